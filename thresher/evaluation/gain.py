"""The gain over a fixed reference, as the untouched model: paired by row, with its interval."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.evaluation.effect import estimate_effect
from thresher.evaluation.estimate import paired_difference
from thresher.evaluation.metric import Metric, Unit
from thresher.numeric.arrays import Float64

NORMAL_95 = 1.96  # standard errors on either side of a 95 % interval


@dataclass(frozen=True, kw_only=True)
class Gain:
    """A paired difference, positive where ours is better.

    Attributes:
        value: mean over rows and seeds.
        low: lower end of the 95 % interval.
        high: upper end.
        stderr: over rows, and over seeds where there are several.
        n: held-out rows.
        n_seeds: runs of our side.
    """

    value: float
    low: float
    high: float
    stderr: float
    n: int
    n_seeds: int

    @property
    def direction(self) -> int:
        """1 where the whole interval is above zero, -1 where it is below, else 0."""
        return 1 if self.low > 0 else -1 if self.high < 0 else 0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; what is not a number becomes null."""
        return {name: value if np.isfinite(value) else None for name, value in asdict(self).items()}


def estimate_gain(
    metric: Metric, ours: Sequence[pl.DataFrame], theirs: Sequence[pl.DataFrame], *, n_tests: int = 1
) -> Gain | None:
    """Return how much better our runs are than the reference, or None where that has no value.

    With one run, the interval is over rows only, by Student's t: the spread between seeds is not in
    it. Of answers that are right or wrong, one row of each kind of disagreement is added, so that a
    few rows on which the sides differ, or none, prove nothing (Bonett and Price 2012,
    doi:10.3102/1076998611411915); with several seeds, the interval reaches at least as far. A row
    that has no value on either side, as a label that one of them does not know, does not count.

    Args:
        metric: that is compared; one without a value per row has no gain.
        ours: outcomes of each seed.
        theirs: of the reference, one for each of ours, on the same held-out rows in their order.
        n_tests: gains that are judged together, each of one run: the intervals hold all at once in
            95 % of cases (Bonferroni).

    Raises:
        InputError: the sides were measured on different rows.
    """
    if metric.column is None or not ours:
        return None
    if any(not ours[0]["row_id"].equals(table["row_id"]) for table in (*ours, *theirs)):
        raise InputError("gain: both sides must be measured on the same held-out rows in one order, found others")
    stacked = [np.stack([metric.per_row_or_nan(table) for table in side]) for side in (ours, theirs)]
    is_known = np.isfinite(stacked[0]).all(axis=0) & np.isfinite(stacked[1]).all(axis=0)  # (n,)
    if not is_known.any():
        return None
    a, b = (side[:, is_known] for side in stacked)
    weights = None if metric.weight is None else ours[0][metric.weight].cast(pl.Float64).to_numpy()[is_known]
    n_seeds, n = a.shape
    is_share = weights is None and np.isin((a, b), (0.0, 1.0)).all()
    sides = (a, b) if metric.is_higher_better else (b, a)
    bounds = _bound_proportions(*sides, n_tests=n_tests) if is_share else None
    if n_seeds >= 2 and n >= 2:
        if n_tests > 1:
            raise AssertionError("gains that are judged together are of one run each")
        effect = estimate_effect(a, b, weights, is_higher_better=metric.is_higher_better)
        low, high = bounds or (effect.low, effect.high)
        low, high = min(low, effect.low), max(high, effect.high)
        return Gain(value=effect.value, low=low, high=high, stderr=effect.stderr, n=n, n_seeds=n_seeds)
    difference = paired_difference(*sides, weights)
    reach = _find_reach(n, n_tests) * difference.stderr
    low, high = bounds or (difference.value - reach, difference.value + reach)
    return Gain(value=difference.value, low=low, high=high, stderr=difference.stderr, n=n, n_seeds=n_seeds)


def _find_reach(n: float, n_tests: int) -> float:
    """Return the standard errors on either side of a 95 % interval over n rows, by Student's t."""
    from scipy import stats

    return float(stats.t.ppf(1 - 0.025 / n_tests, n - 1)) if n > 1 else math.inf


def _bound_proportions(ours: Float64, theirs: Float64, *, n_tests: int) -> tuple[float, float]:
    """Return the 95 % interval over rows of two paired shares' difference, (seeds, n) 0 and 1."""
    n_seeds, n = ours.shape[0], ours.shape[1] + 2
    better, worse = (((side.sum() / n_seeds) + 1) / n for side in (ours > theirs, ours < theirs))
    quantile = NORMAL_95 if n_tests == 1 else _find_reach(math.inf, n_tests)
    reach = quantile * math.sqrt((better + worse - (better - worse) ** 2) / n)
    return max(float(better - worse) - reach, -1.0), min(float(better - worse) + reach, 1.0)


def format_gain(gain: Gain, unit: Unit) -> str:
    """Return "22.0 points [18.1, 25.9]", or "0.312 nats [0.290, 0.334]", without the sign.

    Where the interval holds zero, it has its signs: above zero ours is better.
    """
    if gain.direction == 0:
        return unit.format_range(gain.value, gain.low, gain.high, is_signed=True)
    ends = (gain.low, gain.high) if gain.value >= 0 else (-gain.high, -gain.low)
    return unit.format_range(abs(gain.value), *ends)
