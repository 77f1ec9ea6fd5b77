"""SIFT: rows that leave the least uncertainty about a target, under a linear surrogate model."""

from __future__ import annotations

import numpy as np

from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.threads import limit_blas

EQUAL = 1e-9  # gains within this relative distance are ties


@limit_blas()
def pick_by_variance(unit: Float32, target: Float32, n_picks: int, noise: float) -> tuple[Int64, Float64]:
    """Pick rows greedily, each the one that lowers the target's posterior variance most.

    A Gaussian process with the cosine as its kernel and observation noise `noise`: the variance of
    the target's rows, summed, given the picks. A row that resembles a pick is known already and
    brings little, so near-copies do not follow one another.

    Args:
        unit: (n, d) rows of length 1.
        target: (q, d) rows of length 1.
        n_picks: how many, at most n.
        noise: variance of an observation, above 0.

    Returns:
        (n_picks,) rows, best first; (n_picks,) the variance that is left after each, as a share of
        that before the first.
    """
    x, t = unit.astype(np.float64), target.astype(np.float64)
    # the summed squares of the covariances depend on t'd products alone: at most d rows will do
    if len(t) > t.shape[1]:
        t = np.asarray(np.linalg.qr(t, mode="r"))
    covariance = np.eye(x.shape[1])  # of the weights of the surrogate, given the picks
    variance = (x**2).sum(axis=1)  # (n,) of each row
    shared = t @ x.T  # (q, n) covariances of target and rows
    left = total = float((t**2).sum())
    is_open = np.ones(len(x), np.bool_)
    picks, shares = np.empty(n_picks, np.int64), np.empty(n_picks)
    for number in range(n_picks):
        gain = np.where(is_open, (shared**2).sum(axis=0) / (variance + noise), -1.0)
        best = gain.max()
        pick = int(np.flatnonzero(gain >= best - EQUAL * max(best, EQUAL))[0])
        direction = covariance @ x[pick]
        scale = variance[pick] + noise
        projected = x @ direction  # (n,) covariances of the pick and each row
        variance = np.maximum(variance - projected**2 / scale, 0)
        shared -= np.outer(shared[:, pick], projected) / scale
        covariance -= np.outer(direction, direction) / scale
        left -= gain[pick]
        is_open[pick] = False
        picks[number], shares[number] = pick, left / total if total > 0 else 0.0
    return picks, shares
