"""The learning curve: its record and its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.evaluation.saturation import MIN_DELTA, CurveFit, Saturation, fit_curve
from thresher.experiments.runner import CellId, ExperimentRunner
from thresher.experiments.settings import BASELINE, CurveSettings
from thresher.printable import join_lines

MIN_SIZES, MIN_SEEDS = 3, 2  # below, no law is fitted

Runs = Mapping[CellId, float | None]


@dataclass(frozen=True, kw_only=True)
class LearningCurve:
    """Learning curves of several methods on one test set.

    Attributes:
        cells: one row per cell: `method`, `n_rows`, `seed`, `metric`, `value`, `stderr` and `n`
            (test rows), `loss`, `steps`, `status`, `reason`, `cell`.
        fits: of the methods that have runs enough.
        saturation: of the same methods: from how many rows on more data stops paying.
        content: of `saturation.json`: metric, delta, why no more cells were run, and per method its
            points, laws, band, targets and notes.
        path: of the folder, or None when none was asked for.
        manifest: what ran.
    """

    cells: pl.DataFrame
    fits: Mapping[str, CurveFit]
    saturation: Mapping[str, Saturation]
    content: Mapping[str, Any]
    path: Path | None
    manifest: Manifest

    def __repr__(self) -> str:
        """Return one sentence per method."""
        return join_lines(f"{method}: {saturation}" for method, saturation in self.saturation.items())


@dataclass
class CurveProgress:
    """A curve while it is measured.

    Attributes:
        settings: of the curve; random is among its methods.
        sizes: rising.
        runs: (method, size, seed) -> value of the metric; None where the cell failed.
        stopped: why it ended.
        cost: spent, in rows that pass through the model.
        full_cost: of the whole grid.
    """

    settings: CurveSettings
    sizes: tuple[int, ...]
    runs: dict[CellId, float | None] = field(default_factory=dict)
    stopped: str = ""
    cost: float = 0.0
    full_cost: float = 1.0

    def compute_delta(self, runner: ExperimentRunner) -> float:
        """Return the gain of a doubling that no longer pays.

        As given; otherwise half a point, or one standard error of the baseline at its largest size
        where that is larger.
        """
        if self.settings.delta is not None:
            return self.settings.delta
        sizes = list(group_values(self.runs, BASELINE))
        return max(MIN_DELTA, runner.estimate_stderr(BASELINE, sizes[-1])) if sizes else MIN_DELTA


def group_values(runs: Runs, method: str) -> dict[int, list[float]]:
    """Return the finite values of a method by size, rising, and by seed."""
    values: dict[int, list[float]] = {}
    for (name, size, _), value in sorted(runs.items()):
        if name == method and value is not None and np.isfinite(value):
            values.setdefault(size, []).append(value)
    return values


def fit_runs(runs: Runs, method: str, *, is_higher_better: bool, test_stderr: float = 0.0) -> CurveFit | None:
    """Return the law of a method, or None where there are too few runs."""
    values = group_values(runs, method)
    if len(values) < MIN_SIZES or max(map(len, values.values())) < MIN_SEEDS:
        return None
    return fit_curve(list(values), list(values.values()), is_higher_better=is_higher_better, test_stderr=test_stderr)
