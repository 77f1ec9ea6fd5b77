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
from thresher.numeric.arrays import Bool, Float64

LEAST_RUNS = 2


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
    if fit.n_seeds[-1] < LEAST_RUNS:
        return None
    places = np.flatnonzero(fit.n_seeds[:-1] >= LEAST_RUNS)
    stderr = estimate_stderr(fit)[places]
    worse = fit.errors[-1] - fit.errors[places]
    clear = np.flatnonzero((worse > within) & find_clear(worse, stderr, fit.dof))
    if not len(clear):
        return None
    best = clear[int(np.argmax(worse[clear]))]
    by = make_interval(float(worse[best]), float(stderr[best]), fit.dof)
    return Decline(best=int(fit.sizes[places[best]]), by=by)


def estimate_stderr(fit: CurveFit) -> Float64:
    """Return the standard errors of the differences to the largest size, (n - 1,)."""
    between_seeds = fit.seed_sd**2 / fit.n_seeds
    stderr: Float64 = np.sqrt(between_seeds[:-1] + between_seeds[-1] + np.diag(fit.test_covariance)[:-1])
    return stderr


def find_clear(differences: Float64, stderr: Float64, dof: float) -> Bool:
    """Tell which differences are not chance, by a t test and Holm's correction for their number."""
    from scipy import stats

    from thresher.evaluation.effect import LEVEL, adjust_p_values  # not for the help of commands

    p = [float(2 * stats.t.sf(abs(t), dof)) for t in differences / stderr]
    return np.array(adjust_p_values(p)) < LEVEL


def make_interval(value: float, stderr: float, dof: float) -> Interval:
    """Return the 80 % interval of a difference by Student's t."""
    from scipy import stats

    reach = float(stats.t.ppf((1 + COVERAGE) / 2, dof) * stderr)
    return Interval(value, value - reach, value + reach)
