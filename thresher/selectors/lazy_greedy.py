"""Greedy cover by any sparse kernel, symmetric or not: lazy, in float64, exact."""

from __future__ import annotations

import heapq
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Float64 = NDArray[np.float64]
Int64 = NDArray[np.int64]

DIGITS = 10  # gains that are equal to so many decimals are ties
NOTHING = 1e-10


class Pairs(NamedTuple):
    """What candidates do for rows, sorted by candidate.

    Attributes:
        start: (n + 1,) candidate j has the entries `start[j]:start[j + 1]`.
        row: (nnz,) int64.
        worth: (nnz,) float64 > 0.
    """

    start: Int64
    row: Int64
    worth: Float64

    @classmethod
    def of(cls, row: Int64, candidate: Int64, worth: Float64, n: int) -> Pairs:
        """Sort pairs by candidate, then row; those that are worth nothing are left out."""
        counts = worth > 0
        row, candidate, worth = row[counts], candidate[counts], worth[counts]
        order = np.lexsort((row, candidate))
        start = np.searchsorted(candidate[order], np.arange(n + 1)).astype(np.int64)
        return cls(start, row[order].astype(np.int64), worth[order].astype(np.float64))


class Covered(NamedTuple):
    """What a greedy run gives.

    Attributes:
        picks: (k,) int64, those that gain nothing any more included.
        gains: (k,) float64, what each pick adds to the objective.
        by: (n,) int64, the pick that does most for each row, -1 where none does anything.
        n_with_gain: picks before the first that gains nothing.
    """

    picks: Int64
    gains: Float64
    by: Int64
    n_with_gain: int


def lazy_cover(pairs: Pairs, candidates: Int64, n_picks: int) -> Covered:
    """Maximise the sum over rows of the largest worth among the picks, greedily.

    Gains only fall, so a gain from an earlier step bounds today's (Minoux 1978): the candidate whose bound is largest
    is brought up to date until it stays on top. Ties go to the lowest candidate. When nothing more can be gained, those
    follow that would do most alone.

    Args:
        pairs: the kernel.
        candidates: which may be picked, ascending.
        n_picks: how many, at most as many as there are candidates.
    """
    n = len(pairs.start) - 1
    best, by = np.zeros(n), np.full(n, -1, dtype=np.int64)

    def gain(j: int) -> float:
        entries = slice(pairs.start[j], pairs.start[j + 1])
        return round(float(np.maximum(pairs.worth[entries] - best[pairs.row[entries]], 0).sum()), DIGITS)

    alone = {j: gain(j) for j in candidates.tolist()}
    heap = [(-value, j, 0) for j, value in alone.items()]  # gain after so many picks, negative
    heapq.heapify(heap)
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < n_picks and -heap[0][0] > NOTHING:
        bound, j, asked = heapq.heappop(heap)
        if asked < len(picks):
            heapq.heappush(heap, (-gain(j), j, len(picks)))
            continue
        entries = slice(pairs.start[j], pairs.start[j + 1])
        rows, worth = pairs.row[entries], pairs.worth[entries]
        better = worth > best[rows]
        best[rows[better]], by[rows[better]] = worth[better], j
        picks.append(j)
        gains.append(-bound)
    n_with_gain = len(picks)
    rest = sorted(set(alone).difference(picks), key=lambda j: (-alone[j], j))[: n_picks - n_with_gain]
    return Covered(np.array([*picks, *rest], dtype=np.int64), np.array(gains + [0.0] * len(rest)), by, n_with_gain)
