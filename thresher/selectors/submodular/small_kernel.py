"""Greedy picks from a small dense kernel, by numpy alone: nothing has to be compiled first.

The picks of `dense_kernel`, of which it is a slower form: k picks cost n^2 (1 + ln k) pairs, too,
but each of them a few nanoseconds. Up to 2,000 rows that is less than loading compiled loops takes,
and far less than the 15 s of compiling them. The number of rows decides, not whether loops are
compiled: the same rows give the same bytes before and after.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.numba_jit import get_uncompiled
from thresher.selectors.submodular import pick_rules
from thresher.selectors.submodular.greedy import CoverageState, Picks, tie_width
from thresher.selectors.submodular.pick_rules import ANYTHING, CLOSE, N_COMPARED, N_NEAR, NOTHING, PICKED, PickRule

MOST_ROWS = 2000
CELLS = 1 << 20  # float64 terms of gains at once


def pick_from_small_kernel(
    kernel: Float32, cover: CoverageState, n_picks: int, rule: PickRule, bonus: Float64 | None = None
) -> Picks:
    """Make up to `n_picks` greedy picks from a dense kernel.

    Args:
        kernel: (n, n) float32, symmetric.
        cover: state, updated.
        n_picks: how many.
        rule: the rule, updated.
        bonus: (n,) float64 >= 0, what each row is worth besides; with it, rows are picked that
            cover nothing.
    """
    run = _Run(kernel, cover, rule, bonus)
    picks: list[int] = []
    gains: list[float] = []
    n_visited = len(kernel) ** 2
    while len(picks) < n_picks:
        pick = run.choose()
        if pick is None:
            break
        picks.append(pick)
        gains.append(float(run.gain[pick]))
        n_visited += len(kernel) * (1 + run.add(pick))
    return Picks(np.array(picks, np.int64), np.array(gains, np.float64), n_visited)


@dataclass
class _Run:
    """A greedy run; `gain` (n,) float64 is what each row would add, PICKED for picks."""

    kernel: Float32
    cover: CoverageState
    rule: PickRule
    bonus: Float64 | None
    gain: Float64 = field(init=False)

    def __post_init__(self) -> None:
        everything = np.arange(len(self.kernel))
        low, high = (limit.astype(np.float64) for limit in (self.cover.open_from, self.cover.open_to))
        self.gain = self._sum_parts(everything, low, high)
        self.gain[self.cover.is_pick] = PICKED

    @cached_property
    def _vectors(self) -> Float64:
        """The vectors at length 1, in float64."""
        return self.cover.vectors.astype(np.float64) * self.cover.inverse_norm[:, None]

    def _sum_parts(self, rows: Int64, low: Float64, high: Float64) -> Float64:
        """Return what each candidate has of these rows' intervals, weighted, (n,) float64.

        Sums are those of numpy, which depend on neither the BLAS nor threads.
        """
        total = np.zeros(len(self.kernel))
        n_rows = max(1, CELLS // len(self.kernel))
        for first in range(0, len(rows), n_rows):
            part = slice(first, first + n_rows)
            at_least = low[part, None]
            terms = self.kernel[rows[part]].astype(np.float64)
            np.clip(terms, at_least, np.maximum(high[part, None], at_least), out=terms)
            terms -= at_least
            terms *= self.cover.weight[rows[part], None]
            total += terms.sum(axis=0)
        return total

    def choose(self) -> int | None:
        """Return the next pick, or None when nothing can be gained."""
        value = self.gain if self.bonus is None else self.gain + self.bonus
        most, least = value.max(), NOTHING if self.bonus is None else ANYTHING
        if most <= least:
            return None
        near = self._list_candidates(value, most)
        if len(near) and value[near].max() <= least:  # a sample in which nothing gains: one more
            near = self._list_candidates(value, most)
        if len(near) == 0:
            return None
        best = value[near].max()
        near = near[value[near] >= best - CLOSE * (1 + abs(best))][:N_COMPARED]
        pick = int(near[0])
        if len(near) > 1:
            exact = self._compute_exact_gains(near)
            exact += 0.0 if self.bonus is None else self.bonus[near]
            width = get_uncompiled(tie_width)(self.cover, self.kernel)
            pick = int(near[get_uncompiled(pick_rules.find_first_best)(near, exact, width)])
        get_uncompiled(pick_rules.note_pick)(self.rule, pick)
        return pick

    def _list_candidates(self, value: Float64, most: float) -> Int64:
        """Return candidates, ascending, whose values may equal the best that the rule allows."""
        none = np.zeros(len(value))
        if self.rule.kind == pick_rules.STOCHASTIC:
            near: Int64 = get_uncompiled(pick_rules.draw_near_largest)(self.rule, value, none, 0.0)
        elif self.rule.kind == pick_rules.THRESHOLD:
            near = get_uncompiled(pick_rules.find_first_over_threshold)(self.rule, value, none, most)
        else:
            near = np.flatnonzero(value >= most - CLOSE * (1 + abs(most)))[:N_NEAR]
        return near

    def _compute_exact_gains(self, near: Int64) -> Float64:
        """Return gains in float64, from the vectors where there are some."""
        cover = self.cover
        if cover.vectors.shape[1] == 0:
            return self.gain[near]
        now = cover.floor.copy()
        has_pick = np.flatnonzero(cover.by >= 0)
        nearest = self._vectors[cover.by[has_pick]]
        now[has_pick] = np.maximum(now[has_pick], np.einsum("ij,ij->i", self._vectors[has_pick], nearest))
        more = np.maximum(self._vectors @ self._vectors[near].T - now[:, None], 0)
        gains: Float64 = np.einsum("i,ij->j", cover.weight.astype(np.float64), more)
        return gains

    def add(self, pick: int) -> int:
        """Close what a pick closes, and take from each candidate what it loses there.

        Returns the number of rows in which something was closed.
        """
        cover, line = self.cover, self.kernel[pick]
        rows = np.flatnonzero(line > (cover.open_from if cover.is_sum else cover.nearest))
        similarity = line[rows].astype(np.float64)
        low, high = cover.open_from[rows].astype(np.float64), cover.open_to[rows].astype(np.float64)
        is_nearer = line[rows] > cover.nearest[rows]
        # the array may be `open_from` itself
        cover.nearest[rows[is_nearer]] = line[rows[is_nearer]]
        cover.by[rows[is_nearer]] = pick
        if cover.is_sum:  # the pick uses up the topmost part of what is still open
            low = np.maximum(high - similarity, 0)
            cover.open_to[rows] = low
            cover.filled_by[rows[(low <= 0) & (high > 0)]] = pick
        else:  # all below its similarity is closed
            high = np.minimum(similarity, high)
            cover.open_from[rows] = np.maximum(low, high)
        is_closed = low < high
        rows, low, high = rows[is_closed], low[is_closed], high[is_closed]
        self.gain -= self._sum_parts(rows, low, high)
        self.gain[pick] = PICKED
        cover.is_pick[pick] = True
        return len(rows)
