"""Greedy picks from a dense kernel.

A pick closes a part of the open interval of some rows, and each of these costs one pass over its
row of the kernel, at the speed of the memory. Of rows that count with their nearest pick, about n /
t get a nearer one from pick t, so that k picks cost about n^2 (1 + ln k) pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.matmul import NUMPY, MatmulBackend
from thresher.numeric.numba_jit import jit, jit_fastmath
from thresher.numeric.threads import count_threads
from thresher.selectors.submodular.greedy import CoverageState, Picks, close_interval, compute_exact_gain, tie_width
from thresher.selectors.submodular.pick_rules import (
    ANYTHING,
    BLOCK,
    CLOSE,
    N_COMPARED,
    N_NEAR,
    NOTHING,
    PICKED,
    PickRule,
    build_bounds,
    find_first_best,
    find_near_best,
    note_pick,
    set_bound,
)

# error of a gain that was summed in float32, as a share of the largest gain at that time
DRIFT = 5e-7
# gains are summed anew when the largest has fallen to one in so many and too many are near it
RESUM = 8
N_TILE = 256  # side of the squares in which the kernel is mirrored
N_CHUNKS = 4  # of a pass, at least
N_SUMMED = 256  # terms of a float32 sum before it goes to float64
N_AT_ONCE = 16  # rows whose losses are summed in float32 before they go to float64
N_COLUMNS = 4096  # candidates whose losses are summed while they stay in the cache
N_SKIPPED = 64  # rows that are passed over at once when a pick is nearer to none of them
WORTH_THREADS = 1 << 20  # pairs


def compute_kernel(unit: Float32, products: MatmulBackend = NUMPY) -> Float32:
    """Return the (n, n) cosines of unit rows, exactly symmetric: each is computed once."""
    n = len(unit)
    filled = products.lower_triangle(unit)
    with ThreadPoolExecutor(count_threads()) as pool:
        list(pool.map(lambda first: _mirror(filled, slice(first, first + N_TILE)), range(0, n, N_TILE)))
    return filled


def _mirror(kernel: Float32, rows: slice) -> None:
    """Copy some rows of the lower triangle to the upper one."""
    # the square on the diagonal: its own lower triangle goes to its upper one
    block = kernel[rows, rows]
    upper = np.triu_indices(len(block), 1)
    block[upper] = block.T[upper]
    # squares left of the diagonal go above it, one by one, as they fit into the cache
    for left in range(0, rows.start, N_TILE):
        columns = slice(left, left + N_TILE)
        kernel[columns, rows] = kernel[rows, columns].T


class _Rows(NamedTuple):
    """The open interval and the weight of rows, (m,) float32."""

    low: Float32
    high: Float32
    weight: Float32


class _Changed(NamedTuple):
    """What a pick closed: rows (n,) int64, their intervals and weights (n,) float32.

    Only the first places count.
    """

    rows: Int64
    low: Float32
    high: Float32
    weight: Float32


class _Threads:
    """Runs a function over fixed chunks of rows: sums do not depend on the number of threads."""

    def __init__(self, n: int, pool: ThreadPoolExecutor) -> None:
        edges = np.linspace(0, n, max(N_CHUNKS, -(-n // N_COLUMNS)) + 1).astype(np.int64).tolist()
        self.chunks = [(first, last) for first, last in zip(edges[:-1], edges[1:], strict=True) if last > first]
        self._pool = pool

    def run(self, call: Callable[[int, int], None]) -> None:
        """Call `call(first, last)` for each chunk."""
        list(self._pool.map(lambda chunk: call(*chunk), self.chunks))


@jit_fastmath
def _gains_of_chunk(kernel: Any, rows: Any, first: Any, last: Any, gain: Any) -> None:
    """Sum the gains of candidates first..last: float32 terms, float64 sums."""
    low, high, weight = rows.low, rows.high, rows.weight
    n = len(low)
    for v in range(first, last, 4):  # four candidates at once share what is read of the rows
        v1, v2, v3 = min(v + 1, last - 1), min(v + 2, last - 1), min(v + 3, last - 1)
        t0, t1, t2, t3 = 0.0, 0.0, 0.0, 0.0
        # a block of rows is summed in float32, which vectorizes, and added to float64
        for block in range(0, n, N_SUMMED):
            end = min(n, block + N_SUMMED)
            k0, k1, k2, k3 = kernel[v, block:end], kernel[v1, block:end], kernel[v2, block:end], kernel[v3, block:end]
            a, b, w = low[block:end], high[block:end], weight[block:end]
            g0, g1, g2, g3 = np.float32(0.0), np.float32(0.0), np.float32(0.0), np.float32(0.0)
            for i in range(end - block):
                # similarity clipped to the row's open interval, less where it begins
                g0 += w[i] * (max(min(k0[i], b[i]), a[i]) - a[i])
                g1 += w[i] * (max(min(k1[i], b[i]), a[i]) - a[i])
                g2 += w[i] * (max(min(k2[i], b[i]), a[i]) - a[i])
                g3 += w[i] * (max(min(k3[i], b[i]), a[i]) - a[i])
            t0 += float(g0)
            t1 += float(g1)
            t2 += float(g2)
            t3 += float(g3)
        # at the end v1..v3 may be the same candidate: the first one counts last
        gain[v3], gain[v2], gain[v1], gain[v] = t3, t2, t1, t0


@jit_fastmath
def _lose(kernel: Any, changed: Any, n_rows: Any, first: Any, last: Any, gain: Any) -> None:
    """Lower the gains of candidates first..last by their loss on rows whose interval shrank."""
    rows, low, high, weight = changed.rows, changed.low, changed.high, changed.weight
    part = np.empty(last - first, np.float32)
    m = 0
    # N_AT_ONCE rows at a time: float32 inside, float64 between
    while m < n_rows:
        part[:] = np.float32(0.0)
        end = min(m + N_AT_ONCE, n_rows)
        # four rows share each read and write of `part`
        while m + 4 <= end:
            k0, k1 = kernel[rows[m], first:last], kernel[rows[m + 1], first:last]
            k2, k3 = kernel[rows[m + 2], first:last], kernel[rows[m + 3], first:last]
            l0, l1, l2, l3 = low[m], low[m + 1], low[m + 2], low[m + 3]
            h0, h1, h2, h3 = high[m], high[m + 1], high[m + 2], high[m + 3]
            w0, w1, w2, w3 = weight[m], weight[m + 1], weight[m + 2], weight[m + 3]
            for j in range(last - first):
                part[j] += (
                    w0 * (max(min(k0[j], h0), l0) - l0)
                    + w1 * (max(min(k1[j], h1), l1) - l1)
                    + w2 * (max(min(k2[j], h2), l2) - l2)
                    + w3 * (max(min(k3[j], h3), l3) - l3)
                )
            m += 4
        # the rest of them one by one
        while m < end:
            k0, l0, h0, w0 = kernel[rows[m], first:last], low[m], high[m], weight[m]
            for j in range(last - first):
                part[j] += w0 * (max(min(k0[j], h0), l0) - l0)
            m += 1
        for j in range(last - first):
            gain[first + j] -= part[j]


def _lose_chunk(kernel: Float32, changed: _Changed, n_rows: int, gain: Float64, first: int, last: int) -> None:
    _lose(kernel, changed, n_rows, first, last, gain)


@jit_fastmath
def _improved(line: Any, low: Any, rows: Any) -> Any:
    """Write down the rows whose similarity is above `low`; blocks without any are passed over.

    Returns their number.
    """
    m = 0
    for first in range(0, len(line), N_SKIPPED):
        last = min(first + N_SKIPPED, len(line))
        # count first, which vectorizes; most blocks hold none
        n_above = np.int32(0)
        for i in range(first, last):
            n_above += np.int32(line[i] > low[i])
        if n_above > 0:
            for i in range(first, last):
                if line[i] > low[i]:
                    rows[m] = i
                    m += 1
    return m


@jit
def _close_rows(line: Any, cover: Any, pick: Any, changed: Any) -> Any:
    """Close the intervals that a pick closes; write down those in which some candidate loses.

    Returns their number.
    """
    n_near = _improved(line, cover.open_from if cover.is_sum else cover.nearest, changed.rows)
    m = 0
    for e in range(n_near):  # m <= e: what is written was read
        i = changed.rows[e]
        # candidates lose on a row only what was open and is closed now
        low, high = close_interval(cover, i, line[i], pick)
        if low < high:
            changed.rows[m], changed.low[m], changed.high[m], changed.weight[m] = i, low, high, cover.weight[i]
            m += 1
    cover.is_pick[pick] = True
    return m


@jit
def _reach(line: Any, cover: Any, slack: Any) -> Any:
    """Rows that a candidate may improve."""
    rows = np.empty(len(line), np.int64)
    m = 0
    for i in range(len(line)):
        # written in any case, kept only when m moves on
        rows[m] = i
        m += line[i] > max(cover.open_from[i] - slack, 0.0)
    return rows[:m]


@jit_fastmath
def _sum_open(line: Any, cover: Any) -> Any:
    """Return the gain of the candidate whose similarities these are, in float64."""
    total = 0.0
    for i in range(len(line)):
        low = np.float64(cover.open_from[i])
        total += cover.weight[i] * (max(min(np.float64(line[i]), np.float64(cover.open_to[i])), low) - low)
    return total


@jit
def _resum(kernel: Any, cover: Any, gain: Any, scale: Any) -> None:
    """Sum all gains anew: their errors are then a share of what is left to gain."""
    n = len(kernel)
    rows = _Rows(cover.open_from.astype(np.float32), cover.open_to.astype(np.float32), cover.weight)
    _gains_of_chunk(kernel, rows, 0, n, gain)
    gain[cover.is_pick] = PICKED
    scale[0] = gain.max()


@jit
def _refine_near_best(
    kernel: Any, cover: Any, rule: Any, gain: Any, bonus: Any, bound: Any, least: Any, scale: Any
) -> Any:
    """Return the rows whose gains may be the largest, their gains summed in float64."""
    near = find_near_best(rule, gain, bonus, bound, least, DRIFT * scale[0])
    is_fresh = False
    # gains drift by rounding: those near the best are summed again before they are compared
    while len(near) > 0:
        # few enough to sum again, and large enough for their errors to be small
        if is_fresh or len(near) < N_NEAR or gain[near].max() * RESUM > scale[0]:
            value = np.empty(len(near))
            for c in range(len(near)):
                v = near[c]
                gain[v] = _sum_open(kernel[v], cover)
                value[c] = gain[v] + bonus[v]
                # a corrected gain may be above the bound of its block
                if value[c] > bound[len(bound) // 2 + v // BLOCK]:
                    set_bound(bound, v // BLOCK, value[c])
            most = value.max()
            if is_fresh or most > least:
                return near[value >= most - CLOSE * (1 + abs(most))][:N_COMPARED]
        # too many to compare, or what looked like a gain was an error of rounding
        _resum(kernel, cover, gain, scale)
        bound[:] = build_bounds(gain, bonus)
        is_fresh = True
        near = find_near_best(rule, gain, bonus, bound, least, DRIFT * scale[0])
    return near


@jit
def _find_first_equal(vectors: Any, near: Any, c: Any) -> Any:
    """Return the first candidate that is equal to candidate c, at the latest c itself."""
    d = vectors.shape[1]
    for other in range(c):
        j = 0
        # j counts equal components from the first
        while j < d and vectors[near[other], j] == vectors[near[c], j]:
            j += 1
        if 0 < d == j:
            return other
    return c


@jit
def _choose(kernel: Any, cover: Any, rule: Any, gain: Any, bonus: Any, bound: Any, least: Any, scale: Any) -> Any:
    """Return the next pick, or -1 when nothing can be gained."""
    near = _refine_near_best(kernel, cover, rule, gain, bonus, bound, least, scale)
    if len(near) == 0:
        return -1
    pick = near[0]
    if len(near) > 1:
        exact = np.empty(len(near))
        for c in range(len(near)):
            line, twin = kernel[near[c]], _find_first_equal(cover.vectors, near, c)
            # equal vectors have equal gains: computed once
            if twin < c:
                exact[c] = exact[twin]
                continue
            rows = _reach(line, cover, 1e-5)
            exact[c] = compute_exact_gain(cover, near[c], rows, line[rows])
        pick = near[find_first_best(near, exact + bonus[near], tie_width(cover, kernel))]
    note_pick(rule, pick)
    return pick


@jit
def _pick_one(
    kernel: Any, cover: Any, rule: Any, gain: Any, bonus: Any, bound: Any, least: Any, scale: Any, changed: Any
) -> Any:
    """Choose a pick and close its intervals.

    Returns the pick, its gain, and how many rows changed; -1 if none.
    """
    pick = _choose(kernel, cover, rule, gain, bonus, bound, least, scale)
    if pick < 0:
        return -1, 0.0, 0
    own = gain[pick]
    gain[pick] = PICKED
    return pick, own, _close_rows(kernel[pick], cover, pick, changed)


@jit
def _loop(
    kernel: Any,
    cover: Any,
    rule: Any,
    gain: Any,
    bonus: Any,
    bound: Any,
    least: Any,
    scale: Any,
    space: Any,
    picks: Any,
    gains: Any,
    t: Any,
) -> Any:
    """Make picks until one changes so many rows that threads are worth while, or to the end.

    Returns the number of picks made, how many rows the last one changed whose losses are still to
    be taken, and the number of pairs visited.
    """
    n = len(kernel)
    n_visited = 0
    while t < len(picks):
        pick, own, m = _pick_one(kernel, cover, rule, gain, bonus, bound, least, scale, space)
        if pick < 0:
            return t, -1, n_visited
        picks[t], gains[t] = pick, own
        t += 1
        n_visited += n + m * n
        # so many pairs: the caller takes the losses with all threads and comes back
        if m * n > WORTH_THREADS:
            return t, m, n_visited
        for first in range(0, n, N_COLUMNS):
            _lose(kernel, space, m, first, min(n, first + N_COLUMNS), gain)
    return t, 0, n_visited


def pick_from_kernel(
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
    n = len(kernel)
    own, least = (np.zeros(n), NOTHING) if bonus is None else (bonus, ANYTHING)
    rows = _Rows(cover.open_from.astype(np.float32), cover.open_to.astype(np.float32), cover.weight)
    space = _Changed(np.empty(n, np.int64), *(np.empty(n, np.float32) for _ in range(3)))
    gain, picks, gains = np.empty(n), np.empty(n_picks, np.int64), np.empty(n_picks)
    with ThreadPoolExecutor(count_threads()) as pool:
        threads = _Threads(n, pool)
        threads.run(lambda first, last: _gains_of_chunk(kernel, rows, first, last, gain))
        gain[cover.is_pick] = PICKED
        bound, scale = build_bounds(gain, own), np.full(1, gain.max())
        t, n_visited = 0, n * n
        while t < n_picks:
            t, m, more = _loop(kernel, cover, rule, gain, own, bound, least, scale, space, picks, gains, t)
            n_visited += more
            if m < 0:
                break
            threads.run(partial(_lose_chunk, kernel, space, m, gain))
    return Picks(picks[:t], gains[:t], int(n_visited))
