"""The folder of a learning curve: written whole, and read back."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_csv
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.safe_csv import escape_formulas
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import read_table
from thresher.evaluation.effect import LEVEL, adjust_p_values
from thresher.evaluation.saturation import CurveFit, Saturation
from thresher.experiments.curve import CurveProgress, LearningCurve, fit_runs, group_values
from thresher.experiments.result_folder import RunClock, read_result, run_in_folder
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.settings import BASELINE
from thresher.experiments.tables import (
    CELL_SCHEMA,
    build_cell_table,
    build_manifest,
    build_slice_table,
    compute_identity,
    write_tables,
)
from thresher.experiments.untouched.forgetting import describe_forgetting
from thresher.experiments.untouched.row_zero import describe_row_zero

KIND = "curve"
CURVE, SATURATION = "curve.csv", "saturation.json"
BAND_SIZES = 60  # points of the band in the chart
BAND_REACH = 4  # it ends so many times beyond the largest measured size


def write_curve(
    runner: ExperimentRunner,
    progress: CurveProgress,
    run_cells: Callable[[CurveProgress, ExperimentRunner], None],
) -> LearningCurve:
    """Run the cells of a curve and write its folder, or read back the one that is there.

    Args:
        runner: of the cells.
        progress: nothing measured yet.
        run_cells: fills it.
    """
    asked = _describe_plan(progress)
    clock, identity = RunClock(), compute_identity(runner, asked)

    def run(_: Path | None) -> LearningCurve:
        run_cells(progress, runner)
        fits = _fit_methods(runner, progress)
        content = build_content(runner, progress, fits)
        manifest = build_manifest(runner, KIND, identity, asked, clock)
        return _build_curve(build_cell_table(runner), content, fits, manifest, None)

    def write(curve: LearningCurve, folder: Path) -> None:
        write_tables(runner, folder, CURVE)
        write_csv(escape_formulas(build_slice_table(runner, progress.settings.slices)), folder / "slices.csv")
        write_atomic(folder / SATURATION, encode_record(curve.content))
        write_atomic(folder / MANIFEST, curve.manifest.to_json())

    return run_in_folder(identity, progress.settings, run=run, write=write, read=read_curve)


def _describe_plan(progress: CurveProgress) -> dict[str, Any]:
    """Return what determines a curve besides its experiment, as JSON values."""
    settings = progress.settings
    plan = {
        "methods": settings.methods,
        "sizes": progress.sizes,
        "n_seeds": settings.seeds,
        "delta": settings.delta,
        "is_grid": settings.grid,
        "max_runs": settings.max_runs,
        "max_seconds": settings.max_seconds,
        "targets": settings.targets,
        "more": settings.more,
        "equal": settings.equal,
    }
    return {"plan": plan, "slices": list(settings.slices)}


def read_curve(path: str | Path) -> LearningCurve:
    """Read a curve's folder; its laws are fitted again, which gives the same samples.

    Raises:
        ManifestError: the folder is not one that `curve` wrote.
    """
    folder = Path(path)
    manifest, content = read_result(folder, KIND, "a learning curve", SATURATION)
    cells = read_table(folder / CURVE, schema=CELL_SCHEMA)
    runs = {(m, n, s): v for m, n, s, v in cells.select("method", "n_rows", "seed", "value").iter_rows()}
    higher = content["is_higher_better"]
    fits = {
        name: fit_runs(runs, name, is_higher_better=higher, test_stderr=entry.get("test_stderr", 0.0))
        for name, entry in content["methods"].items()
    }
    return _build_curve(cells, content, {k: v for k, v in fits.items() if v is not None}, manifest, folder)


def build_content(runner: ExperimentRunner, progress: CurveProgress, fits: Mapping[str, CurveFit]) -> dict[str, Any]:
    """Return the content of `saturation.json`: nothing in it depends on the clock."""
    delta, metric = progress.compute_delta(runner), runner.experiment.metric
    return {
        "metric": metric.name,
        "is_higher_better": metric.is_higher_better,
        "delta": delta,
        "pool": len(runner.experiment.pool),
        "unknown_labels": runner.experiment.unknown_labels,
        "stopped": progress.stopped,
        "unfinished": runner.list_unfinished(),
        "base": describe_row_zero(runner),
        "general": describe_forgetting(runner),
        "cost_share": round(progress.cost / progress.full_cost, 4),
        "methods": {
            method: _describe_method(runner, progress, method, fits.get(method), delta)
            for method in progress.settings.methods
        },
        "trade": _compute_trades(fits, {method: list(group_values(progress.runs, method)) for method in fits}),
    }


def _describe_method(
    runner: ExperimentRunner, progress: CurveProgress, method: str, fit: CurveFit | None, delta: float
) -> dict[str, Any]:
    values_by_size, settings = group_values(progress.runs, method), progress.settings
    points = [
        {
            "n_rows": size,
            "value": float(np.mean(values)),
            "stderr": runner.estimate_stderr(method, size),
            "n_seeds": len(values),
        }
        for size, values in values_by_size.items()
    ]
    if fit is None:
        return {"points": points, "saturation": None, "notes": ["too few runs to fit a law"]}
    last = float(fit.sizes[-1])
    saturation = fit.saturation(delta=delta, pool=len(runner.experiment.pool))
    band = np.unique(np.geomspace(fit.sizes[0], last * BAND_REACH, BAND_SIZES).round())
    return {
        "points": points,
        "saturation": saturation.to_json(),
        "asymptote": fit.asymptote().to_json(),
        "laws": {law: round(weight, 6) for law, weight in fit.weights.items()},
        "misfit": fit.misfit,
        "seed_sd": fit.seed_sd,
        "test_stderr": fit.test_stderr,
        "band": [{"n_rows": int(size), **fit.predict(float(size)).to_json()} for size in band],
        "gain_of_doubling": [{"n_rows": int(size), **fit.gain(size, size).to_json()} for size in fit.sizes],
        "targets": [{"target": target, **fit.rows_needed(target).to_json()} for target in settings.targets],
        "gains": [{"from": int(last), "more": more, **fit.gain(last, more).to_json()} for more in settings.more],
        "notes": [*describe_dips(runner, method, list(values_by_size)), *describe_limits(fit, saturation)],
    }


def describe_dips(runner: ExperimentRunner, method: str, sizes: Sequence[int]) -> list[str]:
    """Say where more rows made the metric worse, after Holm's correction for all steps."""
    metric = runner.experiment.metric
    if metric.column is None:
        return []
    steps = []
    for small, large in zip(sizes, sizes[1:], strict=False):
        pairs = runner.pair_runs((method, large), (method, small))
        if len(pairs) >= 2:  # one pair says nothing of the spread between seeds
            steps.append((small, large, pairs.estimate_effect()))
    adjusted = adjust_p_values([change.p for _, _, change in steps])
    return [
        f"from {small:,} to {large:,} rows the {metric.name} gets worse by {-change.value:.4f} ± {change.stderr:.4f}"
        for (small, large, change), p in zip(steps, adjusted, strict=True)
        if change.value < 0 and p < LEVEL
    ]


def describe_limits(fit: CurveFit, saturation: Saturation) -> list[str]:
    """Say where an answer is one of the measured sizes or of the noise, rather than of the rows."""
    first, last, delta = int(fit.sizes[0]), int(fit.sizes[-1]), saturation.delta
    notes = []
    if saturation.high is not None and saturation.high <= first:
        notes.append(
            f"doubling gains less than {delta:.2g} already at {first:,} rows, the smallest size: fewer rows may do as "
            f"well, or more rows hardly help this model"
        )
    noise = fit.misfit * float(fit.stderr[-1])
    if noise > delta:
        notes.append(
            f"the mean at {last:,} rows is known to {noise:.2g} (spread between seeds) and a doubling shall gain "
            f"{delta:.2g}: more seeds or a larger delta give a surer answer"
        )
    return notes


def _compute_trades(fits: Mapping[str, CurveFit], sizes: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """Return how many random rows are as good as so many chosen ones."""
    base = fits.get(BASELINE)
    if base is None:
        return []
    return [
        {
            "method": method,
            "n_rows": size,
            "baseline": BASELINE,
            "baseline_rows": base.equivalent_rows(fit, size).to_json(),
        }
        for method, fit in fits.items()
        if method != BASELINE
        for size in sizes[method]
    ]


def _fit_methods(runner: ExperimentRunner, progress: CurveProgress) -> dict[str, CurveFit]:
    higher, fits = runner.experiment.metric.is_higher_better, {}
    for method in progress.settings.methods:
        sizes = list(group_values(progress.runs, method))
        noise = runner.estimate_test_stderr(method, sizes[-1]) if sizes else 0.0
        fit = fit_runs(progress.runs, method, is_higher_better=higher, test_stderr=noise)
        if fit is not None:
            fits[method] = fit
    return fits


def _build_curve(
    cells: pl.DataFrame, content: Mapping[str, Any], fits: Mapping[str, CurveFit], manifest: Manifest, path: Path | None
) -> LearningCurve:
    saturation = {
        method: Saturation(**{**entry["saturation"], "next_sizes": tuple(entry["saturation"]["next_sizes"])})
        for method, entry in content["methods"].items()
        if entry["saturation"] is not None
    }
    return LearningCurve(cells=cells, fits=fits, saturation=saturation, content=content, path=path, manifest=manifest)
