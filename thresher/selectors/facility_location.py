"""Facility location: pick the rows that together stand for all rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float64, Int64
from thresher.numeric.vectors import Distinct
from thresher.selectors.nested import Nested
from thresher.selectors.submodular.distinct_cover import DistinctGreedy
from thresher.selectors.submodular.kernel_method import NestedGreedy


@dataclass(frozen=True, kw_only=True)
class FacilityLocation(DistinctGreedy, NestedGreedy):
    """Rank rows so that every prefix represents the whole pool as well as greedy can.

    Optimizes f(S) = sum over all rows i of max(0, max over j in S of cos(i, j)): each row counts
    with its cosine to the nearest pick. Each pick is the row that raises f most (Nemhauser, Wolsey
    and Fisher 1978, doi:10.1007/BF01588971; lazy evaluation Minoux 1978; for data selection Wei,
    Iyer and Bilmes 2015). f is monotone submodular, so with the dense kernel every prefix of k rows
    has at least 1 - 1/e = 63 % of the largest f of any k rows. With the sparse kernel that holds
    for the graph's own f only, which ignores pairs outside the graph.

    Source: the greedy algorithm is exact; the oracle of the tests is apricot-select's `naive`
    optimizer. Cost: dense O(n^2 d) time for the kernel, n^2 ln k for k picks, and 4 n^2 bytes;
    sparse O(n n_neighbors) memory and a neighbor search, O(n^2 d) up to 30,000 distinct rows,
    inverted lists with measured recall beyond. The memory is planned before any of it is taken.
    Needs: `embedding`; uses `existing_embedding` of the context, if there, as rows already picked,
    and the feature `weight`, if there, as how often each row counts. Ties: to the lowest row; gains
    within float32 error are compared in float64 first. Equal rows count as often as they occur and
    are picked once; a zero row is similar to nothing. When no row can raise f, the lowest rows not
    yet picked follow. No row is ever picked twice. An empty pool is refused. Fails: prefers dense
    regions, so rare kinds of rows come late (`k-center` takes them first); repeats of one text with
    small changes attract picks (remove near-duplicates before). Where a few labels have most of the
    rows (product attributes) it was no better than random rows at 5, 10 and 30 %, and 0.04 to 0.11
    of accuracy below them; where classes are even (Banking77) it was 0.08 to 0.14 above
    (`benchmarks/selection_helps.py`).

    `covered_by` is the pick nearest to each row, EXISTING where an existing row is as near, -1
    where nothing is more similar to it than 0; `similarity` is the cosine with that pick, or with
    the nearest existing row.

    Attributes:
        kernel: "dense" compares all pairs, "sparse" only nearest neighbors, "auto" is dense where
            memory allows.
        n_neighbors: neighbors per row of the sparse kernel.
        max_kernel_gb: largest dense kernel, in 10^9 bytes; 2 GB hold 22,360 distinct rows.
        optimizer: "lazy" is the exact greedy; "stochastic" takes the best of a sample
            (Mirzasoleiman et al. 2015, arXiv:1409.7938), "threshold" the first row above a falling
            threshold (Badanidiyuru and Vondrak 2014, doi:10.1137/1.9781611973402.110). All gains
            are kept up to date, so these two do not save much time.
        epsilon: what "stochastic" and "threshold" give away: 1 - 1/e - epsilon instead of 1 - 1/e.

    Differs: stochastic greedy samples n/t ln(1/epsilon) rows for pick t, not n/k ln(1/epsilon) for
    all k picks, so that every prefix keeps the guarantee and rankings nest. Cosines below 0 count
    as 0; apricot's metric="cosine" uses max(distance) - distance instead.
    """

    name: ClassVar[str] = "facility-location"
    ranks_only: ClassVar[bool] = True
    requirements: ClassVar[Requirements] = Requirements(
        features={"embedding"}, side_features={"existing": {"embedding"}}, takes_weights=True
    )

    def rank(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Nested:
        """Rank `n_ranked` rows greedily; the others score -inf.

        Raises:
            InputError: the dense kernel was asked for and is too large.
        """
        weight = features.get("weight")

        def weigh(distinct: Distinct) -> Float64 | Int64:
            return distinct.size if weight is None else np.bincount(distinct.group, weights=weight)

        cover = self._start(features, weigh, rng)
        picked, gains, n_visited = self._pick(cover, min(n_ranked, len(cover.vectors)), rng)
        objective = np.full(n_ranked, float((cover.floor * cover.weight).sum()))
        objective[: len(gains)] += np.cumsum(gains)
        objective[len(gains) :] += gains.sum()
        notes = {
            "n_pair_updates": n_visited,
            "n_distinct_rows": len(cover.vectors),
            "n_picks_with_gain": len(picked),
        }
        scores = cover.score(self.name, features, picked, n_ranked, notes, objective=objective)
        return Nested(scores, lambda: cover.trace(picked))
