"""Transport: rows that pull the pool towards a target, by the prices of optimal transport."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from thresher.errors import InputError
from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.capped_plan import solve_capped_plan
from thresher.numeric.optimal_transport import compute_potentials, solve_prices
from thresher.numeric.vectors import distinct_rows, unit_rows
from thresher.selectors.contract import FeatureKernelSelector
from thresher.selectors.uniform import hash_rows
from thresher.subset.scores import Scores
from thresher.validation import option

Notes = dict[str, str | int | float]
DIGITS = 6  # to which potentials are compared, so that rounding separates no equal rows
N_NEIGHBORS = 64  # of each row, among which its near-copies are looked for


@dataclass(frozen=True, kw_only=True)
class Transport(FeatureKernelSelector):
    """Rank rows by how much they pull the pool towards the rows of a target (GOT-D, TSDS).

    Optimizes, with form="gradient", the optimal transport distance of pool and target. Its dual,
    max over f, g of mean f_i + mean g_j with f_i + g_j <= |e_i - t_j|, gives each row its gradient:
    f_i less the mean of the others. The rows of the lowest f come first. A price g_j is high where
    the pool has little to offer, so rows near to such a target row win over rows that are as near
    to one which many serve. With form="spread" it minimizes alpha / balance times the transport
    distance plus (1 - alpha) times the largest density of the plan, in which near rows share one
    row's mass, and draws rows in proportion to their mass, without replacement. Rows of no mass
    follow, in the order in which a smaller alpha would give them some. Rows within `width` of
    one before them come after all others, and repeats of one text last.

    Source: gradient: Kang et al. 2024, arXiv:2405.02774 (GOT-D), after LAVA, arXiv:2305.00054;
    spread: Liu et al. 2024, arXiv:2410.11303 (TSDS). The tests compare both with the exact linear
    programs. Cost: the embeddings; gradient: a few passes (6 to 30) of O(n q d) time for q target
    rows, after as many over 16,384 rows, and 12 bytes a row; spread: two such passes and a neighbor
    search of the pool. Needs: `embedding` or `hidden_state`, and the target's rows (--target).
    Ties: to the lowest row; f is compared to six digits. Equal rows come one after another in
    gradient. An empty pool is refused. A row with no token to read is excluded with its reason.
    Fails: gradient takes near-copies of good rows together; rows of the target in the pool come
    first (keep test data out of both); what the target lacks is not picked. The nearest rows
    (`target-similarity`) may serve as well: `docs/select.md` has the comparison.

    Attributes:
        kernel: "embedding" compares the encoder's vectors, "hidden_state" the language model's.
        form: "gradient" or "spread".
        smoothing: of gradient: entropic term in shares of the mean distance. The smaller, the
            nearer to the exact prices, and the more passes.
        alpha: of spread: weight of the transport distance; the rest is that of being spread.
        balance: of spread: scale of that rest, C in the paper. The larger, the more rows serve.
        width: of spread: distance of near-copies, which share mass; 0.3 is a cosine of 0.955.

    Differs: GOT-D's code is no longer at its address. TSDS draws with replacement from a generator
    without seed and sees the nearest 5,000 rows of each query; here all rows count, and draws are
    hashes of row ids. Its kernel has the width 0.75, in which a dense group of good rows that are
    no copies shares the mass of few.
    """

    name: ClassVar[str] = "transport"
    ranks_only: ClassVar[bool] = True

    kernel: Literal["embedding", "hidden_state", "hidden"] = option("embedding")
    form: Literal["gradient", "spread"] = option("gradient")
    smoothing: float = option(0.05, ge=0.005, le=1)
    alpha: float = option(0.6, ge=0.01, le=1)
    balance: float = option(5.0, gt=0)
    width: float = option(0.3, gt=0, le=2)

    @property
    def requirements(self) -> Requirements:
        """The compared vectors of pool and target."""
        return Requirements(features={self.kernel}, side_features={"target": {self.kernel}}, required_roles={"target"})

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank every row that has a value; the others score -inf.

        Raises:
            InputError: there is no target.
        """
        target = features.context.get(f"target_{self.kernel}")  # (q, d)
        if target is None or not len(target):
            raise InputError(f"{self.name}: needs rows of a target, found none; give --target FILE")
        values = features[self.kernel]  # (n, d), NaN for rows without a value
        usable = np.flatnonzero(np.isfinite(values).all(axis=1))
        rank = np.full(features.n_rows, -np.inf)
        notes: Notes = {"n_target_rows": len(target)}
        if len(usable):
            unit, target = unit_rows(values[usable]), unit_rows(target)
            if self.form == "gradient":
                rank[usable] = self._rank_by_gradient(unit, target, notes)
            else:
                key = hash_rows(features.row_id, rng)[usable]
                rank[usable[self._order_spread(unit, target, key, features, rng, notes)]] = -np.arange(len(usable))
        return Scores(
            row_id=features.row_id, value=rank, by=self.name, excluded=features.missing.get(self.kernel), notes=notes
        )

    def _rank_by_gradient(self, unit: Float32, target: Float32, notes: Notes) -> Float64:
        """Return (n,) values: the mean of f less each row's."""
        prices = solve_prices(unit, target, smoothing=self.smoothing)
        potential = compute_potentials(unit, target, prices)
        notes |= {
            "transport_distance": round(float(potential.mean()), 4),
            "misplaced_mass": round(prices.error, 5),
            "n_passes": prices.n_passes,
        }
        value: Float64 = np.round(potential.mean() - potential, DIGITS)
        return value

    def _order_spread(
        self,
        unit: Float32,
        target: Float32,
        key: Float64,
        features: Features,
        rng: np.random.Generator,
        notes: Notes,
    ) -> Int64:
        """Return (n,) rows in the order in which they are kept."""
        from thresher.selectors.neighbors.near_copies import compute_density, find_near_copies
        from thresher.selectors.neighbors.search import build_neighbor_graph

        groups = distinct_rows(unit)
        distinct = unit[groups.first]
        near = build_neighbor_graph(distinct, N_NEIGHBORS, rng, features.products, features.store)
        weight = groups.size / compute_density(near.graph, groups.size, self.width)
        plan = solve_capped_plan(distinct, weight, target, balance=self.balance * (1 - self.alpha) / self.alpha)
        # of keys log(u) / mass the largest are a draw without replacement (Efraimidis and Spirakis)
        with np.errstate(divide="ignore"):
            drawn = np.where(plan.mass > 0, np.log(np.maximum(key[groups.first], 1e-300)) / plan.mass, -np.inf)
        order = np.lexsort((np.arange(len(drawn)), plan.level, -drawn))
        is_copy = find_near_copies(order, near.graph, 1 - self.width**2 / 2)
        order = np.concatenate([order[~is_copy[order]], order[is_copy[order]]])
        notes |= {
            "n_served_by": int((plan.mass > 0).sum()),
            "n_near_copies": int(is_copy.sum()),
            "neighbor_search": near.search,
        }
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        is_first = np.zeros(len(unit), np.bool_)
        is_first[groups.first] = True
        by_place: Int64 = np.lexsort((np.arange(len(unit)), place[groups.group], ~is_first))
        return by_place
