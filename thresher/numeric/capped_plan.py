"""A plan that brings many rows to few targets, cheaply and yet not by too few rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.optimal_transport import iterate_distances

N_BINS = 4_096
LARGEST = 2.0  # distance of unit vectors
N_HALVINGS = 60


class CappedPlan(NamedTuple):
    """How much each row serves the targets.

    Attributes:
        mass: (n,) float64, of sum 1; 0 for rows that serve none.
        level: (n,) float64: how much weight of nearer rows some target has, at least. Rows of low
            level begin to serve first as the plan is spread over more rows.
        spread: weight of the rows that serve each target, x below.
    """

    mass: Float64
    level: Float64
    spread: float


def solve_capped_plan(rows: Float32, weights: Float64, targets: Float32, *, balance: float) -> CappedPlan:
    """Minimize the mean distance of the plan plus `balance` times its largest density.

    min over q >= 0 with sum_j q_ij = 1 for each of the m targets i, and over h with q_ij <= h w_j:
    (1/m) sum_ij q_ij d_ij + balance * h. With x = 1/h each target takes its nearest rows up to the
    weight x, and x is where the mean over targets of sum_j w_j (d_i(x) - d_ij)+ passes `balance`;
    d_i(x) is the distance at which target i has the weight x. Distances are told apart to 1/2048.

    Args:
        rows: (n, d) float32, unit rows or zeros.
        weights: (n,) above 0: what a row can serve, relative to others.
        targets: (m, d) float32, unit rows or zeros.
        balance: at least 0; the larger, the more rows serve.
    """
    n_targets, width = len(targets), LARGEST / N_BINS
    histogram = np.zeros((n_targets, N_BINS))
    offset = np.arange(n_targets) * N_BINS
    for at, distance in iterate_distances(rows, targets):
        places = (_find_bins(distance) + offset).ravel()
        repeated = np.repeat(weights[at], n_targets)
        histogram += np.bincount(places, repeated, histogram.size).reshape(histogram.shape)
    reached = np.cumsum(histogram, axis=1)  # weight up to the end of each bin
    centers = np.linspace(width / 2, LARGEST - width / 2, N_BINS, dtype=np.float64)
    moment = np.cumsum(histogram * centers, axis=1)
    spread = _find_spread(reached, moment, centers, balance)
    edge = _find_edges(reached, spread)
    rest = spread - (reached - histogram)[np.arange(n_targets), edge]
    # of the bin in which a target has enough, each row serves the same part of its weight
    part = np.clip(rest / histogram[np.arange(n_targets), edge], 0, 1)
    mass, level = np.zeros(len(rows)), np.zeros(len(rows))
    before = (reached - histogram).ravel()
    for at, distance in iterate_distances(rows, targets):
        bins = _find_bins(distance)
        share = (bins < edge) + (bins == edge) * part
        mass[at] = weights[at] * share.sum(axis=1)
        level[at] = before[bins + offset].min(axis=1)
    return CappedPlan(mass / mass.sum(), level, spread)


def _find_bins(distance: Float32) -> Int64:
    bins: Int64 = np.minimum(distance * (N_BINS / LARGEST), N_BINS - 1).astype(np.int64)
    return bins


def _find_edges(reached: Float64, spread: float) -> Int64:
    """Return the bin in which each target has so much weight, (m,)."""
    edges: Int64 = np.array([np.searchsorted(row, spread * (1 - 1e-12)) for row in reached], dtype=np.int64)
    return np.minimum(edges, N_BINS - 1)


def _find_spread(reached: Float64, moment: Float64, centers: Float64, balance: float) -> float:
    """Return the weight x at which the mean excess distance passes `balance`, by bisection."""
    rows = np.arange(len(reached))
    # no target is served by less than its nearest bin; none has more weight than there is
    low, high = float(np.min([row[row > 0][0] for row in reached])), float(reached[0, -1])
    for _ in range(N_HALVINGS):
        middle = (low + high) / 2
        edge = _find_edges(reached, middle)
        excess = centers[edge] * reached[rows, edge] - moment[rows, edge]
        low, high = (middle, high) if excess.mean() < balance else (low, middle)
    return high
