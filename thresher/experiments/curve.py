"""The learning curve: its record, its plan and its progress."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.evaluation.saturation import MIN_DELTA, CurveFit, Saturation, fit_curve
from thresher.experiments.runner import ExperimentRunner

if TYPE_CHECKING:
    pass

BASELINE = "random"


MIN_SIZES, MIN_SEEDS = 3, 2


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

    def __str__(self) -> str:
        """Return one sentence per method."""
        return "\n".join(f"{method}: {found}" for method, found in self.saturation.items())


@dataclass(frozen=True, kw_only=True)
class CurvePlan:
    """What a curve asks for, checked.

    Attributes:
        methods: names of selectors, the baseline among them.
        sizes: rising.
        n_seeds: most runs at one size.
        delta: gain of a doubling that no longer pays; None for half a point or one standard error.
        is_grid: run every cell.
        max_runs: most cells, reused ones included.
        max_seconds: after which no cell is begun.
        targets: values of the metric to find the rows for.
        more: rows on top of the largest size, to find the gain of.
    """

    methods: tuple[str, ...]
    sizes: tuple[int, ...]
    n_seeds: int
    delta: float | None
    is_grid: bool
    max_runs: int | None
    max_seconds: float | None
    targets: tuple[float, ...] = ()
    more: tuple[int, ...] = ()


@dataclass
class CurveProgress:
    """A curve while it is measured.

    Attributes:
        plan: that is followed.
        runs: (method, size, seed) -> value of the metric; None where the cell failed.
        stopped: why it ended.
        cost: spent, in rows that pass through the model.
        full_cost: of the whole grid.
    """

    plan: CurvePlan
    runs: dict[tuple[str, int, int], float | None] = field(default_factory=dict)
    stopped: str = ""
    cost: float = 0.0
    full_cost: float = 1.0

    def points(self, method: str) -> dict[int, list[float]]:
        """Return the values of a method by size, rising."""
        return points(self.runs, method)

    def fit(self, method: str, *, is_higher_better: bool, test_stderr: float = 0.0) -> CurveFit | None:
        """Return the law of a method, or None where there are too few runs."""
        return fit_runs(self.runs, method, is_higher_better=is_higher_better, test_stderr=test_stderr)


def points(runs: Mapping[tuple[str, int, int], float | None], method: str) -> dict[int, list[float]]:
    """Return the finite values of a method by size, rising, and by seed."""
    found: dict[int, list[float]] = {}
    for name, size, seed in sorted(runs):
        value = runs[name, size, seed]
        if name == method and value is not None and np.isfinite(value):
            found.setdefault(size, []).append(value)
    return found


def fit_runs(
    runs: Mapping[tuple[str, int, int], float | None], method: str, *, is_higher_better: bool, test_stderr: float
) -> CurveFit | None:
    """Return the law of a method, or None where there are too few runs."""
    found = points(runs, method)
    if len(found) < MIN_SIZES or max(map(len, found.values())) < MIN_SEEDS:
        return None
    values = list(found.values())
    return fit_curve(list(found), values, is_higher_better=is_higher_better, test_stderr=test_stderr)


def compute_delta(plan: CurvePlan, runner: ExperimentRunner, state: CurveProgress) -> float:
    """Return the gain of a doubling that no longer pays: as given, or the larger of half a point and one error."""
    if plan.delta is not None:
        return plan.delta
    sizes = list(state.points(BASELINE))
    return max(MIN_DELTA, runner.stderr(BASELINE, sizes[-1])) if sizes else MIN_DELTA
