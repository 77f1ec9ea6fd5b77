"""Functions of counts (n-grams, topics) through apricot-select, behind a check of its picks."""

from __future__ import annotations

import warnings
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from thresher.errors import InputError, MissingExtraError
from thresher.features.container import Features
from thresher.selectors.checks import check_n_ranked
from thresher.subset.scores import Scores, ranked

COUNTS = ("ngram", "topic")
N_TOPICS = 100


class Counting(Protocol):
    """A selector that counts."""

    @property
    def name(self) -> str:
        """Its name."""

    @property
    def counts(self) -> str:
        """What it counts, one of COUNTS."""

    @property
    def n_topics(self) -> int:
        """Clusters at most."""


def feature_of(counts: str) -> str:
    """Return the feature behind "ngram" or "topic"."""
    return "ngram" if counts == "ngram" else "embedding"


def counts_of(features: Features, kind: str, n_topics: int, rng: np.random.Generator) -> tuple[Any, Any]:
    """Return the counts of the rows, (n, m) CSR float64, and those of the existing rows summed, (1, m) or None.

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


def apricot_ranking(
    selector: Counting, kind: str, features: Features, n_ranked: int, rng: np.random.Generator, **settings: Any
) -> Scores:
    """Rank rows with one of apricot-select's functions, by its `naive` optimizer, the exact greedy.

    Its other optimizers return rows twice (https://github.com/jmschrei/apricot/issues/19). Rows
    without any count are ranked from the lowest.

    Args:
        selector: says what is counted.
        kind: class of apricot.
        features: of the rows.
        n_ranked: rows to rank.
        rng: seeds the topics.
        settings: of the class.

    Raises:
        MissingExtraError: apricot-select is not installed.
        InputError: `n_ranked` is not in 1..n, or apricot-select returned a row twice, or too few.
    """
    name, n = selector.name, features.n_rows
    check_n_ranked(name, n_ranked, n)
    counts, existing = counts_of(features, selector.counts, selector.n_topics, rng)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its numba signatures are older than numba
        try:
            import apricot
        except ImportError as error:
            raise MissingExtraError("apricot-select", name, "counts") from error
        ranking, gains = np.arange(n_ranked), np.zeros(n_ranked)
        if counts.nnz:  # apricot-select ends with an error of numpy's where there is nothing to count
            function = getattr(apricot, kind)(n_ranked, optimizer="naive", initial_subset=existing, **settings)
            function.fit(counts)
            ranking, gains = np.asarray(function.ranking, np.int64), np.asarray(function.gains, np.float64)
    if len(ranking) != n_ranked or len(np.unique(ranking)) != n_ranked:
        raise InputError(
            f"{name}: apricot-select must return {n_ranked} different rows, got {len(ranking)} of which "
            f"{len(np.unique(ranking))} differ; choose another method"
        )
    return Scores(
        row_id=features.row_id,
        value=ranked(n, ranking),
        by=name,
        objective=np.cumsum(gains),
        notes={
            "optimizer": "apricot-select naive",
            "guarantee": "exact greedy: every prefix has at least 1 - 1/e of the largest objective",
            "n_counts": int(counts.nnz),
            "n_features": int(counts.shape[1]),
            "n_gain_evaluations": n_ranked * n - n_ranked * (n_ranked - 1) // 2,
        },
    )
