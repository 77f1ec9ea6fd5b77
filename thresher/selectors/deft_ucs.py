"""DEFT-UCS: easy and hard rows of every cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.kmeans import spherical_kmeans
from thresher.selectors.contract import Selector
from thresher.selectors.round_robin import plan_equal_turns, plan_proportional_turns, take_turns
from thresher.subset.scores import Scores, ranked
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class DeftUcs(Selector):
    """Rank rows by round robin over clusters, easy (central) and hard (outlying) rows in turn.

    Optimizes nothing in closed form: of each k-means cluster it takes A rows, `easy_share` of them
    nearest to the centroid by cosine and the rest farthest from it.

    Source: Das and Khetan, EMNLP 2024, arXiv:2310.16776 (7 clusters, half easy and half hard, the
    same A per cluster). Cost: O(n n_clusters d) for k-means (25 iterations), O(n log n) after it.
    Needs: `embedding`. Ties: rows at the same distance in file-independent order, lowest first.
    Equal rows lie side by side in their cluster and are picked one after another. An empty pool is
    refused. Fails: the hard end holds the outliers and the garbage, so clean the pool before; 7
    clusters suit a pool of about 7 tasks, and which of easy and hard is better changes with the
    budget.

    Attributes:
        n_clusters: clusters of k-means; fewer when there are fewer distinct rows.
        easy_share: share of easy rows, 0..1; after m rows of a cluster, m * easy_share of them,
            rounded, are easy.
        balance: "equal" (the paper: clusters take turns) or "proportional" (by their size).

    Differs: nested, so that one ranking serves all budgets; and the seed set D_base of the paper is
    left to the caller (train on the subset together with what you have).
    """

    name: ClassVar[str] = "deft-ucs"
    ranks_only: ClassVar[bool] = True
    requirements: ClassVar[Requirements] = Requirements(features={"embedding"})

    n_clusters: int = option(7, ge=1)
    easy_share: float = option(0.5, ge=0, le=1)
    balance: Literal["equal", "proportional"] = "equal"

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows; the others score -inf."""
        n = features.n_rows
        clusters = spherical_kmeans(features["embedding"], self.n_clusters, rng)
        sizes = np.bincount(clusters.group)
        nearest_first = np.lexsort((-clusters.cosine, clusters.group))
        order = np.empty(n, np.int64)
        begin = 0
        for size in sizes:
            of_cluster = slice(begin, begin + size)
            order[of_cluster] = nearest_first[of_cluster][alternate_ends(int(size), self.easy_share)]
            begin += size
        turns = (plan_equal_turns if self.balance == "equal" else plan_proportional_turns)(sizes, n_ranked)
        ranking = take_turns(order, clusters.group, turns)
        notes: dict[str, str | int | float] = {"n_clusters": len(sizes)}
        return Scores(row_id=features.row_id, value=ranked(n, ranking), by=self.name, notes=notes)


def alternate_ends(size: int, easy_share: float) -> NDArray[np.int64]:
    """Return the order in which a cluster's places 0 (nearest) .. size - 1 are taken, (size,)."""
    n_easy = np.floor(np.arange(size + 1) * easy_share + 0.5).astype(np.int64)  # after m rows
    is_easy = np.diff(n_easy) == 1
    n_hard = np.arange(size) - n_easy[:-1]
    place: NDArray[np.int64] = np.where(is_easy, n_easy[:-1], size - 1 - n_hard)
    return place
