"""What the last doubling of the rows brought: by the laws, unless the points contradict them.

Each law rises ever more slowly, or by the same amount for each doubling. Scores that rise ever
faster, or that stop rising suddenly, miss all of them: then the measured difference is the answer,
and what further rows bring is not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.evaluation.curves.curve_fit import CurveFit
from thresher.evaluation.curves.decline import estimate_stderr, find_clear, make_interval
from thresher.evaluation.curves.interval import Interval

_HALF = 0.02  # share by which a measured size may differ from half of the largest


@dataclass(frozen=True)
class LastDoubling:
    """What the second half of the rows brought.

    Attributes:
        gain: by how much the metric got better, with its 80 % interval.
        contradicts: how the measured gain compares with what the laws allow: "more", "less", or
            None where it agrees with them or half of the rows were not measured.
    """

    gain: Interval
    contradicts: str | None = None


def find_last_doubling(fit: CurveFit) -> LastDoubling:
    """Return the gain from half of the largest size to the largest one.

    The measured difference takes precedence where a t test at 5 % rejects the median of the laws
    and the interval of the laws leaves it out.
    """
    largest = float(fit.sizes[-1])
    by_laws = fit.gain(largest / 2, largest / 2, is_falling=True)
    halves = np.flatnonzero(np.abs(2 * fit.sizes[:-1] / largest - 1) <= _HALF)
    if not len(halves):
        return LastDoubling(by_laws)
    half = int(halves[-1])
    measured = float(fit.errors[half] - fit.errors[-1])
    stderr = float(estimate_stderr(fit)[half])
    if by_laws.low <= measured <= by_laws.high or stderr == 0:
        return LastDoubling(by_laws)
    if not find_clear(np.array([measured - by_laws.median]), np.array([stderr]), fit.dof)[0]:
        return LastDoubling(by_laws)
    contradicts = "more" if measured > by_laws.median else "less"
    return LastDoubling(make_interval(measured, stderr, fit.dof), contradicts)
