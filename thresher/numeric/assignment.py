"""How far two sets of vectors lie apart: the cheapest way to pair them off."""

from __future__ import annotations

import numpy as np

from thresher.numeric.arrays import Array, Float64


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
