"""The interval of a number over sampled curves."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from thresher.numeric.arrays import Float64

COVERAGE = 0.8


@dataclass(frozen=True)
class Interval:
    """Median and central 80 % interval over sampled curves; infinite beyond the sizes searched."""

    median: float
    low: float
    high: float

    def to_json(self) -> dict[str, float | None]:
        """Return JSON values; infinity becomes null."""
        return {name: value if math.isfinite(value) else None for name, value in vars(self).items()}


def summarize_samples(values: Float64) -> Interval:
    """Return median and central interval, picked from the values: infinity cannot be averaged."""
    tail = (1 - COVERAGE) / 2
    low, median, high = np.quantile(values, [tail, 0.5, 1 - tail], method="inverted_cdf")
    return Interval(float(median), float(low), float(high))
