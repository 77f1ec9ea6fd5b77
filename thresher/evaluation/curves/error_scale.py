"""The error that the laws describe: a metric turned so that it falls, from its best value on.

The laws fall to a floor of at least 0, so an error must be 0 where the metric is at its best. That
of a rate is 1, and that of a loss 0. Of any other metric, as a judge's score from 1 to 5 or a mean
log-probability, the best value is not known: its error is measured from far beyond what was seen,
where the floor of no law that fits comes near 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from thresher.numeric.arrays import Float64

_ROOM = 16.0  # from the best value seen to the assumed best one, in ranges of the values


@dataclass(frozen=True)
class ErrorScale:
    """How a metric becomes an error, and back.

    Attributes:
        is_higher_better: direction of the metric.
        offset: the error is this minus the metric, or plus it where lower is better.
        most: largest error that the metric can have; infinite where it has no bound.
        is_bounded: errors below 0 are impossible, because the best value of the metric is known.
    """

    is_higher_better: bool
    offset: float
    most: float = math.inf
    is_bounded: bool = True

    @property
    def is_rate(self) -> bool:
        """The metric lies in 0..1, so that its differences are points."""
        return self.is_higher_better and self.most == 1

    def to_error(self, metric: ArrayLike) -> Float64:
        """Return the errors of values of the metric, in the same shape."""
        values = np.asarray(metric, dtype=np.float64)
        errors: Float64 = self.offset - values if self.is_higher_better else self.offset + values
        return errors

    def to_metric(self, errors: Float64) -> Float64:
        """Return the metric at errors, as far as it can have them."""
        possible = np.clip(errors, 0.0, self.most) if self.is_bounded else errors
        metric: Float64 = self.offset - possible if self.is_higher_better else possible - self.offset
        return metric


def choose_scale(values: Iterable[float], *, is_higher_better: bool) -> ErrorScale:
    """Return the scale of a metric by the values that it has had.

    Args:
        values: finite, of all curves that are compared; at least one.
        is_higher_better: direction of the metric.
    """
    known = np.fromiter(values, dtype=np.float64)
    low, high = float(known.min()), float(known.max())
    if is_higher_better and low >= 0 and high <= 1:
        return ErrorScale(True, 1.0, most=1.0)
    if not is_higher_better and low >= 0:
        return ErrorScale(False, 0.0)
    room = _ROOM * ((high - low) or abs(high) or 1.0)
    return ErrorScale(is_higher_better, (high if is_higher_better else -low) + room, is_bounded=False)
