"""Do more rows make it worse? No law can say so, as all of them fall: this asks the points alone.

The largest size is compared with every smaller one by a t test, corrected for their number (Holm),
as where the answers of a pool contradict those of a task. Both need two runs: one training that
diverged is no property of the rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.evaluation.curves.curve_fit import CurveFit
from thresher.evaluation.curves.interval import COVERAGE, Interval
from thresher.evaluation.effect import LEVEL, adjust_p_values

_LEAST_RUNS = 2


@dataclass(frozen=True, kw_only=True)
class Decline:
    """The largest size is worse than a smaller one, beyond doubt.

    Attributes:
        best: the measured size with the lowest error of those that are clearly better.
        by: by how much the largest size is worse, with its 80 % interval.
    """

    best: int
    by: Interval


def find_decline(fit: CurveFit, within: float) -> Decline | None:
    """Return by how much the largest size is worse than the best smaller one, or None.

    Args:
        fit: of the curve.
        within: differences up to the tolerance do not count.
    """
    from scipy import stats

    if fit.n_seeds[-1] < _LEAST_RUNS:
        return None
    places = np.flatnonzero(fit.n_seeds[:-1] >= _LEAST_RUNS)
    between_seeds = fit.seed_sd**2 / fit.n_seeds
    stderr = np.sqrt(between_seeds[places] + between_seeds[-1] + np.diag(fit.test_covariance)[places])
    worse = fit.errors[-1] - fit.errors[places]
    adjusted = np.array(adjust_p_values([float(2 * stats.t.sf(abs(t), fit.dof)) for t in worse / stderr]))
    clear = np.flatnonzero((worse > within) & (adjusted < LEVEL))
    if not len(clear):
        return None
    best = clear[int(np.argmax(worse[clear]))]
    value, reach = float(worse[best]), float(stats.t.ppf((1 + COVERAGE) / 2, fit.dof) * stderr[best])
    return Decline(best=int(fit.sizes[places[best]]), by=Interval(value, value - reach, value + reach))
