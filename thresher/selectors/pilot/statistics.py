"""What paired differences over overlapping splits of one pool are worth."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Float64, Int64

RESAMPLES = 1000


class Difference(NamedTuple):
    """A paired difference with its interval.

    Attributes:
        value: mean over the splits.
        low: lower end of the two-sided interval.
        high: upper end.
        n_splits: splits.
    """

    value: float
    low: float
    high: float
    n_splits: int


def estimate_difference(rows: Sequence[Int64], gaps: Sequence[Float64], level: float) -> Difference:
    """Return the mean of paired differences over splits that share held-out rows.

    A difference varies with the row that judges and with the split (what was drawn at random, which
    rows were candidates); rows come back in other splits. The variance of the mean is clustered
    both ways: that of the sums by row, plus that of the sums by split, less that of single values
    (Cameron, Gelbach and Miller 2011, doi:10.1198/jbes.2010.07136, equation 2.13), with the
    quantiles of Student's t with one degree of freedom less than splits. It holds for this pool:
    that another pool would have been drawn is not part of it.

    Args:
        rows: of each split, (h,) the held-out rows; at least two splits.
        gaps: of each split, (h,) ours less theirs by row.
        level: two-sided, the share of intervals that would miss.
    """
    from scipy import stats

    s = len(gaps)
    value = float(np.mean([gap.mean() for gap in gaps]))
    # each split counts the same, however many rows judge in it
    shares = [(gap - value) / (s * len(gap)) for gap in gaps]
    by_row = np.bincount(np.concatenate(rows), weights=np.concatenate(shares))
    by_split = np.array([share.sum() for share in shares])
    parts = float((by_row**2).sum()), float((by_split**2).sum()) * s / (s - 1)
    single = float(sum((share**2).sum() for share in shares))
    stderr = math.sqrt(max(parts[0] + parts[1] - single, *parts))
    reach = float(stats.t.ppf(1 - level / 2, s - 1)) * stderr
    return Difference(value, value - reach, value + reach, s)


class Multiplier(NamedTuple):
    """How many times as many random rows it takes to match the choice.

    Attributes:
        value: estimate, 1 to `largest`.
        low: lower end of its interval.
        high: upper end.
        largest: multiple that was tried; a number that reaches it means at least that.
    """

    value: float
    low: float
    high: float
    largest: float

    def __str__(self) -> str:
        """Return "2.9 times as many random rows [2.1 to at least 4.0]"."""
        if round(self.low, 1) >= self.largest:
            return f"at least {self.largest:.1f} times as many random rows"
        value, high = (f"at least {x:.1f}" if x >= self.largest else f"{x:.1f}" for x in (self.value, self.high))
        return f"{value} times as many random rows [{self.low:.1f} to {high}]"


def estimate_multiplier(
    sizes: Float64, control: Float64, ours: Float64, rng: np.random.Generator, level: float = 0.05
) -> Multiplier:
    """Return how many times as many random rows match the choice, with its interval.

    The mean score of random rows is made to rise with their number (isotonic regression) and
    interpolated over log(rows).

    Args:
        sizes: (m,) rising multiples of the chosen rows, the first 1.
        control: (s, m) score of random rows of these sizes, by split.
        ours: (s,) score of the choice.
        rng: resamples the splits.
        level: of the percentile interval.
    """
    s = len(ours)
    drawn = rng.integers(s, size=(RESAMPLES, s))
    values = [_find_multiple(sizes, control[rows].mean(axis=0), float(ours[rows].mean())) for rows in drawn]
    low, high = np.quantile(values, [level / 2, 1 - level / 2])
    value = _find_multiple(sizes, control.mean(axis=0), float(ours.mean()))
    return Multiplier(value, float(low), float(high), float(sizes[-1]))


def _find_multiple(sizes: Float64, curve: Float64, score: float) -> float:
    """Return the size at which a curve reaches a score, 1 to the largest size."""
    from sklearn.isotonic import isotonic_regression

    rising = isotonic_regression(curve)
    if score <= rising[0]:
        return 1.0
    if score >= rising[-1]:
        return float(sizes[-1])
    at = int(np.searchsorted(rising, score, side="left"))  # rising[at - 1] < score <= rising[at]
    share = (score - rising[at - 1]) / (rising[at] - rising[at - 1])
    return float(np.exp(np.log(sizes[at - 1]) + share * np.log(sizes[at] / sizes[at - 1])))
