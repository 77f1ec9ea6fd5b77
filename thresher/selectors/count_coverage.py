"""Functions of counts (n-grams, topics): each count is worth the less, the more there is of it."""

from __future__ import annotations

import heapq
from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float64, Int64
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores, ranked
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class CountCoverage(Selector):
    """A method on counts: rows are picked greedily, so that the sum of what is covered grows most.

    Rows without any count are ranked from the lowest.

    Attributes:
        counts: "ngram" (words and pairs of words) or "topic" (clusters of embeddings).
        n_topics: clusters at most.
    """

    ranks_only: ClassVar[bool] = True

    counts: Literal["ngram", "topic"] = "ngram"
    n_topics: int = option(100, ge=1)

    @property
    def requirements(self) -> Requirements:
        """The feature that is counted, of the pool and of existing rows."""
        feature = "ngram" if self.counts == "ngram" else "embedding"
        return Requirements(features={feature}, side_features={"existing": {feature}})

    @abstractmethod
    def _value_sums(self, total: Float64) -> Float64:
        """Return what it is worth that features were counted so often in all, (m,) of (m,).

        It is concave and does not fall.
        """

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows greedily; the others score -inf."""
        counts, existing = count_features(features, self.counts, self.n_topics, rng)
        picks = self._pick(counts, existing, n_ranked)
        return Scores(
            row_id=features.row_id,
            value=ranked(features.n_rows, picks.rows),
            by=self.name,
            objective=np.cumsum(picks.gains),
            notes={
                "optimizer": "lazy greedy",
                "guarantee": "exact greedy: every prefix has at least 1 - 1/e of the largest objective",
                "n_counts": int(counts.nnz),
                "n_features": int(counts.shape[1]),
                "n_gain_evaluations": picks.n_evaluations,
            },
        )

    def _pick(self, counts: Any, existing: Float64 | None, n_ranked: int) -> _Picks:
        """Pick the row that gains most, again and again; of equal rows the lowest (Minoux 1978).

        What a row gained when it was last looked at is more than it gains now, so that most rows
        need not be looked at again.
        """
        total = np.zeros(counts.shape[1]) if existing is None else existing.reshape(-1).astype(np.float64)
        start = counts.indptr.tolist()

        def gain(row: int) -> float:
            span = slice(start[row], start[row + 1])
            before = total[counts.indices[span]]
            return float((self._value_sums(before + counts.data[span]) - self._value_sums(before)).sum())

        # (-gain, row, number of picks at that time)
        waiting = [(-gain(row), row, 0) for row in range(counts.shape[0])]
        heapq.heapify(waiting)
        rows: list[int] = []
        gains: list[float] = []
        n_evaluations = len(waiting)
        while len(rows) < n_ranked:
            lost, row, n_picks = waiting[0]
            if n_picks < len(rows):
                heapq.heapreplace(waiting, (-gain(row), row, len(rows)))
                n_evaluations += 1
                continue
            heapq.heappop(waiting)
            rows.append(row)
            gains.append(-lost)
            span = slice(start[row], start[row + 1])
            total[counts.indices[span]] += counts.data[span]
        return _Picks(np.array(rows, np.int64), np.array(gains), n_evaluations)


class _Picks(NamedTuple):
    """Rows in the order of the picks, (k,), what each gained, (k,), and gains computed."""

    rows: Int64
    gains: Float64
    n_evaluations: int


def count_features(features: Features, kind: str, n_topics: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return the rows' counts, (n, m) CSR float64, and the existing rows' sum, (1, m) or None.

    Args:
        features: with "ngram" or "embedding", and the existing rows' in its context, if there are
            any.
        kind: "ngram", or "topic" for clusters of embeddings.
        n_topics: clusters at most.
        rng: seeds the clusters.
    """
    if kind == "topic":
        return _topics(features["embedding"], features.context.get("existing_embedding"), n_topics, rng)
    counted, existing = features["ngram"], features.context.get("existing_ngram")
    known = np.unique(np.concatenate([part["bucket"].reshape(-1) for part in (counted, existing) if part is not None]))
    known = known[known >= 0]

    def matrix(part: NDArray[Any]) -> Any:
        is_there = part["bucket"] >= 0
        row = np.repeat(np.arange(len(part)), is_there.sum(axis=1))
        column = np.searchsorted(known, part["bucket"][is_there])
        return csr_matrix((part["count"][is_there].astype(np.float64), (row, column)), shape=(len(part), len(known)))

    return matrix(counted), None if existing is None else np.asarray(matrix(existing).sum(axis=0))


def _topics(
    embedding: NDArray[np.float32], existing: NDArray[np.float32] | None, n_topics: int, rng: np.random.Generator
) -> tuple[Any, Any]:
    from thresher.numeric.kmeans import spherical_kmeans

    n = len(embedding)
    together = embedding if existing is None else np.concatenate([embedding, existing])
    group = spherical_kmeans(together, n_topics, rng).group
    matrix = csr_matrix((np.ones(len(group)), (np.arange(len(group)), group)))
    return matrix[:n], None if existing is None else np.asarray(matrix[n:].sum(axis=0))
