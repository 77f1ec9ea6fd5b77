"""Runs of two sides with the same seeds on the same test rows: what every difference is made of."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import polars as pl

from thresher.evaluation.effect import Effect, estimate_effect
from thresher.evaluation.metric import Metric
from thresher.numeric.arrays import Float64


@dataclass(frozen=True)
class PairedRuns:
    """Outcomes of the seeds that finished on both sides.

    Attributes:
        metric: that is compared.
        ours: one table of outcomes per seed.
        theirs: of the other side, same seeds.
    """

    metric: Metric
    ours: tuple[pl.DataFrame, ...]
    theirs: tuple[pl.DataFrame, ...]

    @staticmethod
    def match(metric: Metric, ours: Iterable[pl.DataFrame | None], theirs: Iterable[pl.DataFrame | None]) -> PairedRuns:
        """Return the pairs of which both runs finished; failed ones are None."""
        pairs = zip(ours, theirs, strict=True)
        finished = [(our, their) for our, their in pairs if our is not None and their is not None]
        return PairedRuns(metric, tuple(our for our, _ in finished), tuple(their for _, their in finished))

    def __len__(self) -> int:
        """Return the number of pairs."""
        return len(self.ours)

    def stack(self) -> tuple[Float64, Float64, Float64 | None]:
        """Return the values of both sides, (seeds, n) each, and the rows' weights, (n,) or None."""
        ours, theirs = (np.stack([self.metric.per_row(table) for table in side]) for side in (self.ours, self.theirs))
        return ours, theirs, self.metric.weights(self.ours[0])

    def compute_means(self) -> tuple[float, float]:
        """Return the mean of the metric over the seeds of each side."""
        ours, theirs = (
            float(np.mean([self.metric.measure(table).value for table in side])) for side in (self.ours, self.theirs)
        )
        return ours, theirs

    def estimate_effect(self, *, n_tests: int = 1) -> Effect:
        """Return the difference, positive where our side is better; needs two pairs.

        Args:
            n_tests: comparisons that are made together.
        """
        is_higher_better = self.metric.is_higher_better
        return estimate_effect(*self.stack(), is_higher_better=is_higher_better, n_tests=n_tests)
