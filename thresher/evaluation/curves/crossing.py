"""Where sampled curves cross zero, between the sizes at which they are known."""

from __future__ import annotations

import numpy as np

from thresher.numeric.arrays import Float64, Int64


def find_first_crossing(sizes: Float64, above: Float64) -> Float64:
    """Return the first size at which each row of `above` is at least zero; infinite if none is."""
    is_above = above >= 0
    first = is_above.argmax(axis=1)  # 0 also where no place is above
    crossing = np.where(is_above.any(axis=1), sizes[0], np.inf)
    rows = np.flatnonzero(is_above.any(axis=1) & (first > 0))
    crossing[rows] = _interpolate(sizes, above, rows, first[rows] - 1)
    return crossing


def find_crossing_or_zero(sizes: Float64, above: Float64) -> Float64:
    """Return the same, but 0 for rows that are above zero at the first size already."""
    crossing: Float64 = np.where(above[:, 0] > 0, 0.0, find_first_crossing(sizes, above))
    return crossing


def _interpolate(sizes: Float64, above: Float64, rows: Int64, i: Int64) -> Float64:
    """Return where rows of `above` cross zero between places i and i + 1, linearly in log size."""
    share = above[rows, i] / (above[rows, i] - above[rows, i + 1])
    crossing: Float64 = sizes[i] * (sizes[i + 1] / sizes[i]) ** share
    return crossing
