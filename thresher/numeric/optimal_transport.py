"""Optimal transport: prices of few targets for many rows, and the distance of two samples."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Array, Float32, Float64

BLOCK_CELLS = 1 << 22  # distances held at a time: 16 MB
WARM_ROWS = 16_384  # rows on which the prices are found first
MAX_WARM_PASSES = 300
MAX_PASSES = 60
TOLERANCE = 2e-3  # share of the mass that may be at the wrong target row
LEAST_MASS = 1e-30  # of a target row that no row of float32 probabilities reaches


class Prices(NamedTuple):
    """The dual solution of entropic transport between rows, mass 1/n each, and targets, 1/m each.

    Attributes:
        price: (m,) float64 g, of mean 0: high where the rows have little to offer.
        smoothing: the entropic term, in units of the cost.
        error: share of the mass that the plan brings to the wrong target row.
        n_passes: over all rows.
    """

    price: Float64
    smoothing: float
    error: float
    n_passes: int


def iterate_distances(rows: Float32, targets: Float32) -> Iterator[tuple[slice, Float32]]:
    """Yield Euclidean distances block by block: which rows, and (b, m) float32.

    Args:
        rows: (n, d) float32.
        targets: (m, d) float32.
    """
    n_at_once = max(1, BLOCK_CELLS // max(len(targets), 1))
    squares = np.einsum("ij,ij->i", targets, targets)
    for first in range(0, len(rows), n_at_once):
        block = rows[first : first + n_at_once]
        # |x - t|^2 = |x|^2 + |t|^2 - 2 x.t, in place
        distance = block @ targets.T
        distance *= -2
        distance += squares
        distance += np.einsum("ij,ij->i", block, block)[:, None]
        np.maximum(distance, 0, out=distance)
        np.sqrt(distance, out=distance)
        yield slice(first, first + len(block)), distance


def solve_prices(rows: Float32, targets: Float32, *, smoothing: float) -> Prices:
    """Find the prices of the targets by Sinkhorn's iteration in the log domain.

    Only the m prices are kept between passes. Given them, each row's softmax over the targets is
    its part of the plan, and a target's price moves by the logarithm of the mass that it lacks. The
    first passes go over evenly spaced rows with a smoothing that shrinks to the one asked for.

    Args:
        rows: (n, d) float32, at least one.
        targets: (m, d) float32, at least one.
        smoothing: share of the mean distance.
    """
    step = max(1, len(rows) // WARM_ROWS)
    sample = rows[::step]
    mean = float(np.mean([block.mean(dtype=np.float64) for _, block in iterate_distances(sample, targets)]))
    price = np.zeros(len(targets))
    unit = mean if mean > 0 else 1.0
    shrinking = [unit * smoothing * 2**power for power in (3, 2, 1)]
    for each in shrinking:
        price, _, _ = _iterate(sample, targets, price, each, MAX_WARM_PASSES // 10)
    price, error, n_passes = _iterate(sample, targets, price, unit * smoothing, MAX_WARM_PASSES)
    if step > 1:
        price, error, n_passes = _iterate(rows, targets, price, unit * smoothing, MAX_PASSES)
    return Prices(price - price.mean(), unit * smoothing, error, n_passes)


def _iterate(
    rows: Float32, targets: Float32, price: Float64, smoothing: float, n_most: int
) -> tuple[Float64, float, int]:
    """Return prices after passes over some rows, the error before the last one, and the passes."""
    m = len(targets)
    error, n_passes = np.inf, 0
    while n_passes < n_most:
        n_passes += 1
        mass = np.zeros(m)
        for _, distance in iterate_distances(rows, targets):
            mass += _divide_rows(distance, price, smoothing).sum(axis=0, dtype=np.float64)
        mass /= len(rows)
        error = float(np.abs(mass - 1 / m).sum() / 2)
        if error < TOLERANCE:
            break
        price = price - smoothing * np.log(m * np.maximum(mass, LEAST_MASS))
        price -= price.mean()
    return price, error, n_passes


def _divide_rows(distance: Float32, price: Float64, smoothing: float) -> Float32:
    """Return each row's shares of the targets, (b, m); the distances are overwritten."""
    distance -= price.astype(np.float32)
    distance *= np.float32(-1 / smoothing)
    distance -= distance.max(axis=1)[:, None]
    np.exp(distance, out=distance)
    distance /= distance.sum(axis=1, keepdims=True)
    return distance


def compute_potentials(rows: Float32, targets: Float32, prices: Prices) -> Float64:
    """Return f of each row, (n,): -s log mean_j exp((g_j - distance) / s), s the smoothing.

    It is what the transport distance would grow by, up to a constant, if the row had more mass.
    """
    potential = np.empty(len(rows))
    shift = prices.price.astype(np.float32)
    for at, distance in iterate_distances(rows, targets):
        distance -= shift
        # the least of each row goes in front, so that no exponential overflows
        least = distance.min(axis=1)
        distance -= least[:, None]
        distance *= np.float32(-1 / prices.smoothing)
        np.exp(distance, out=distance)
        potential[at] = least - prices.smoothing * np.log(distance.mean(axis=1, dtype=np.float64))
    return potential


def compute_transport_distance(ours: Array, theirs: Array) -> float:
    """Return the optimal transport distance of two samples of unit rows, with cost 1 - cosine.

    Both samples are cut to the length of the shorter one, so that the cheapest transport is an
    assignment (Birkhoff 1946), which is solved exactly. O(m^3) for m rows.

    Args:
        ours: (n, d) unit rows in random order.
        theirs: (k, d) unit rows in random order.

    Returns:
        From 0, for equal samples, to 2.
    """
    from scipy.optimize import linear_sum_assignment

    m = min(len(ours), len(theirs))
    cost: Float64 = 1.0 - ours[:m].astype(np.float64) @ theirs[:m].astype(np.float64).T
    rows, columns = linear_sum_assignment(cost)
    return float(max(0.0, cost[rows, columns].mean()))
