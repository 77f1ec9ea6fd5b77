"""Functions of counts (n-grams, topics) through apricot-select, behind a check of its picks."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from thresher.errors import InputError, MissingExtraError
from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float64, Int64
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores, ranked
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class CountCoverage(Selector):
    """A method on counts, ranked by one of apricot-select's functions.

    Its `naive` optimizer is the exact greedy; the others return rows twice
    (https://github.com/jmschrei/apricot/issues/19). Rows without any count are ranked from the
    lowest.

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

    @property
    def _function(self) -> tuple[str, dict[str, Any]]:
        """Name of apricot-select's class, and its settings."""
        raise NotImplementedError

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows greedily; the others score -inf.

        Raises:
            MissingExtraError: apricot-select is not installed.
            InputError: it returned a row twice, or too few.
        """
        n = features.n_rows
        counts, existing = count_features(features, self.counts, self.n_topics, rng)
        ranking, gains = self._rank_counts(counts, existing, n_ranked)
        if len(ranking) != n_ranked or len(np.unique(ranking)) != n_ranked:
            raise InputError(
                f"{self.name}: apricot-select must return {n_ranked} different rows, got {len(ranking)} of which "
                f"{len(np.unique(ranking))} differ; choose another method"
            )
        return Scores(
            row_id=features.row_id,
            value=ranked(n, ranking),
            by=self.name,
            objective=np.cumsum(gains),
            notes={
                "optimizer": "apricot-select naive",
                "guarantee": "exact greedy: every prefix has at least 1 - 1/e of the largest objective",
                "n_counts": int(counts.nnz),
                "n_features": int(counts.shape[1]),
                "n_gain_evaluations": n_ranked * n - n_ranked * (n_ranked - 1) // 2,
            },
        )

    def _rank_counts(self, counts: Any, existing: Any, n_ranked: int) -> tuple[Int64, Float64]:
        """Return what apricot-select picks, and what each pick gains."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # its numba signatures are older than numba
            try:
                import apricot
            except ImportError as error:
                raise MissingExtraError("apricot-select", self.name, "counts") from error
            if not counts.nnz:  # apricot-select fails in numpy where there is nothing to count
                return np.arange(n_ranked), np.zeros(n_ranked)
            kind, settings = self._function
            function = getattr(apricot, kind)(n_ranked, optimizer="naive", initial_subset=existing, **settings)
            function.fit(counts)
            return np.asarray(function.ranking, np.int64), np.asarray(function.gains, np.float64)


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
