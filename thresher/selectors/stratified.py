"""Stratified random choice: per class, per source, or per cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.selectors.groups import GroupedSelector
from thresher.selectors.round_robin import Balance, plan_turns, take_turns
from thresher.selectors.uniform import hash_rows
from thresher.subset.scores import Scores, ranked


@dataclass(frozen=True, kw_only=True)
class Stratified(GroupedSelector):
    """Rank rows at random within groups, and let the groups take turns.

    Optimizes the match of every prefix to a target mix of groups. "balanced": all groups equally
    often, round robin until a group is used up. "proportional": after any k rows, group g has floor
    or ceil of its exact share k n_g / n. "sqrt": shares by the square root of the groups' sizes,
    between the two.

    Source: Neyman 1934, doi:10.2307/2342192; the turns of "proportional" are those of Baruah et al.
    1996, doi:10.1007/BF01940883. Cost: O(n log n) time, O(n) memory; with clusters also O(n
    n_clusters d) for k-means. Needs: `column:<by>`, or `embedding` if `by` is "cluster". Ties:
    between groups to the lowest code. Equal rows are drawn apart. An empty pool is refused. Fails:
    "balanced" takes all of a small group, its wrong labels included; clusters need not be classes.
    Balanced labels beat random rows by 0.085 [0.050, 0.117] of accuracy at 10 % where classes are
    even (Banking77) and lost by 0.188 [0.107, 0.271] where they are not (product attributes), as
    the test set has the pool's shares (`benchmarks/selection_helps.py`).

    Attributes:
        by: a column ("label" is the class of classification data, "source" the source), or
            "cluster" for k-means.
        balance: "balanced", "sqrt" or "proportional".
        n_clusters: clusters of k-means, for by="cluster" only; default: the square root of half the
            rows.
    """

    name: ClassVar[str] = "stratified"
    ranks_only: ClassVar[bool] = True

    balance: Balance = "balanced"

    @property
    def requirements(self) -> Requirements:
        """The column, or the embedding to cluster."""
        return Requirements(features={"embedding" if self.by == "cluster" else f"column:{self.by}"})

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows; the others score -inf."""
        n = features.n_rows
        group = self._group(features, rng)  # (n,) int64
        order = np.argsort(-hash_rows(features.row_id, rng), kind="stable")
        sizes = np.bincount(group)
        ranking = take_turns(order, group, plan_turns(self.balance, sizes, n_ranked))
        notes: dict[str, str | int | float] = {"n_groups": len(sizes)}
        return Scores(row_id=features.row_id, value=ranked(n, ranking), by=self.name, notes=notes)
