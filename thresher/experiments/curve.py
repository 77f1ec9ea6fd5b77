"""The learning curve: its record and its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from thresher.artifacts.manifest import Manifest
from thresher.artifacts.result import Result
from thresher.evaluation.curves.curve_fit import CurveFit, fit_curve
from thresher.evaluation.curves.enough import Enough
from thresher.evaluation.curves.error_scale import choose_scale
from thresher.experiments.runner import CellId, ExperimentRunner
from thresher.experiments.settings import CurveSettings

MIN_SIZES, MIN_SEEDS = 3, 2  # below, no law is fitted

Runs = Mapping[CellId, float | None]


@dataclass(frozen=True, kw_only=True, repr=False)
class LearningCurve(Result):
    """Learning curves of several methods on one test set.

    Attributes:
        cells: one row per cell: `method`, `n_rows`, `seed`, `metric`, `value`, `stderr` and `n`
            (test rows), `loss`, `steps`, `status`, `reason`, `cell`.
        fits: of the methods that have runs enough.
        enough: of the same methods: how many rows are about as good as all of them.
        content: of `saturation.json`: the answer as a sentence, the metric, why no more cells were
            run, and per method its points, laws, band, targets and notes.
        path: of the folder, or None when none was asked for.
        manifest: what ran.
    """

    cells: pl.DataFrame
    fits: Mapping[str, CurveFit]
    enough: Mapping[str, Enough]
    content: Mapping[str, Any]
    path: Path | None
    manifest: Manifest

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the answer, and one sentence per method."""
        facts = [("answer", self.content["answer"]), *(("outlook", line) for line in self.content.get("outlook", ()))]
        return facts if len(self.enough) < 2 else [*facts, *((name, str(each)) for name, each in self.enough.items())]

    def plot(self, ax: Any = None) -> Any:
        """Draw the curves with their bands and what is enough; return the matplotlib figure."""
        from thresher.experiments.figures.plots import plot_curve

        return plot_curve(self.content, ax)


@dataclass
class CurveProgress:
    """A curve while it is measured.

    Attributes:
        settings: of the curve.
        methods: of the curve, with random among them.
        sizes: rising; the last one is what others are compared with.
        runs: (method, size, seed) -> value of the metric; None where the cell failed.
        stopped: why it ended.
        is_cut_short: the time that was allowed ended it, or left out sizes.
        cost: spent, in rows that pass through the model.
        full_cost: of the whole grid.
    """

    settings: CurveSettings
    methods: tuple[str, ...]
    sizes: tuple[int, ...]
    runs: dict[CellId, float | None] = field(default_factory=dict)
    stopped: str = ""
    is_cut_short: bool = False
    cost: float = 0.0
    full_cost: float = 1.0

    def find_sizes(self, method: str) -> list[int]:
        """Return the sizes that count and at which a method has a value, rising."""
        return [size for size in group_values(self.runs, method) if size <= self.sizes[-1]]


def group_values(runs: Runs, method: str) -> dict[int, list[float]]:
    """Return the finite values of a method by size, rising, and by seed."""
    values: dict[int, list[float]] = {}
    for (name, size, _), value in sorted(runs.items()):
        if name == method and value is not None and np.isfinite(value):
            values.setdefault(size, []).append(value)
    return values


def fit_method(runner: ExperimentRunner, progress: CurveProgress, method: str) -> CurveFit | None:
    """Return the law of a method, or None where there are too few runs."""
    sizes = progress.find_sizes(method)
    return fit_runs(
        {name: value for name, value in progress.runs.items() if name[1] <= progress.sizes[-1]},
        method,
        is_higher_better=runner.experiment.metric.is_higher_better,
        test_stderr=runner.estimate_test_stderr(method, sizes[-1]) if sizes else 0.0,
        test_covariance=runner.estimate_test_covariance(method, sizes) if sizes else None,
    )


def fit_runs(
    runs: Runs,
    method: str,
    *,
    is_higher_better: bool,
    test_stderr: float = 0.0,
    test_covariance: ArrayLike | None = None,
) -> CurveFit | None:
    """Return the law of a method, or None where there are too few runs.

    Its errors are on one scale with those of all other methods among the runs.
    """
    values = group_values(runs, method)
    if len(values) < MIN_SIZES or max(map(len, values.values())) < MIN_SEEDS:
        return None
    return fit_curve(
        list(values),
        list(values.values()),
        is_higher_better=is_higher_better,
        scale=choose_scale(
            (value for value in runs.values() if value is not None and np.isfinite(value)),
            is_higher_better=is_higher_better,
        ),
        test_stderr=test_stderr,
        test_covariance=test_covariance,
    )
