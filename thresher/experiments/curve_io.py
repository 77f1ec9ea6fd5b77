"""The folder of a learning curve: written whole, and read back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_csv
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.safe_csv import escape_formulas
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import read_table
from thresher.evaluation.classification import describe_common_label
from thresher.evaluation.curves.curve_fit import CurveFit
from thresher.evaluation.curves.enough import Enough, find_enough
from thresher.evaluation.effect import LEVEL, adjust_p_values
from thresher.evaluation.lm_eval_task import LmEvalMetric
from thresher.experiments.curve import CurveProgress, LearningCurve, fit_method, fit_runs, group_values
from thresher.experiments.design.variants import compare_factors
from thresher.experiments.result_folder import RunClock, read_result, run_in_folder
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.settings import BASELINE, CurveSettings
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
TOO_FEW_RUNS = "Too few runs to tell how many rows are enough: a law needs three sizes, and two runs at one of them."
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
    if runner.variants:
        asked["variants"] = {label: variant.to_json() for label, variant in runner.variants.items()}
        asked["plan"]["methods"] = list(dict.fromkeys(variant.method for variant in runner.variants.values()))
    clock, identity = RunClock(), compute_identity(runner, asked)

    def run(_: Path | None) -> LearningCurve:
        run_cells(progress, runner)
        fits = _fit_methods(runner, progress)
        content = build_content(runner, progress, fits)
        manifest = build_manifest(runner, KIND, identity, asked, clock)
        return build_curve(build_cell_table(runner), content, fits, manifest, None)

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
        "methods": progress.methods,
        "sizes": progress.sizes,
        "n_seeds": settings.seeds,
        "within": str(settings.within),
        "max_rows": settings.max_rows,
        "axis": settings.axis,
        "ranks": settings.ranks,
        "models": settings.models,
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
        name: fit_runs(
            {cell: value for cell, value in runs.items() if cell[1] <= content["of"]},
            name,
            is_higher_better=higher,
            test_stderr=entry["test_stderr"],
            test_covariance=entry["test_covariance"],
        )
        for name, entry in content["methods"].items()
        if entry["enough"] is not None
    }
    return build_curve(cells, content, {k: v for k, v in fits.items() if v is not None}, manifest, folder)


def build_content(runner: ExperimentRunner, progress: CurveProgress, fits: Mapping[str, CurveFit]) -> dict[str, Any]:
    """Return the content of `saturation.json`: nothing in it depends on the clock."""
    metric = runner.experiment.metric
    joint = compare_factors(list(runner.variants.values()), fits, runner.estimate_covariance)
    answers = {method: _answer(runner, progress, fit) for method, fit in fits.items()}
    labels = runner.experiment.test.frame["response"].to_list() if runner.experiment.labels else []
    sentences = [*([] if joint is None else [joint["answer"]]), *write_answer(answers, fits)]
    return {
        **name_sentences([*sentences, *filter(None, [describe_common_label(labels, metric.name)])]),
        "metric": metric.name,
        "is_higher_better": metric.is_higher_better,
        "within": str(progress.settings.within),
        "of": progress.sizes[-1],
        "pool": len(runner.experiment.pool) if runner.axis is None else len(runner.axis.places),
        **_describe_axis(runner),
        "unknown_labels": runner.experiment.unknown_labels,
        "stopped": progress.stopped,
        "is_cut_short": progress.is_cut_short,
        "unfinished": runner.list_unfinished(),
        "base": describe_row_zero(runner),
        "general": describe_forgetting(runner),
        "cost_share": round(progress.cost / progress.full_cost, 4),
        "methods": {
            method: _describe_method(runner, progress, method, fits.get(method), answers.get(method))
            for method in progress.methods
        },
        **({} if joint is None else {"joint": joint}),
        "trade": compute_trades(fits, {method: list(group_values(progress.runs, method)) for method in fits}),
    }


def _describe_axis(runner: ExperimentRunner) -> dict[str, Any]:
    axis = runner.axis
    if axis is None:
        return {"unit": "rows"}
    return {"unit": axis.unit, "axis": {"column": axis.column, "rows": axis.n_rows, "left_out": axis.n_left_out}}


def _answer(runner: ExperimentRunner, progress: CurveProgress, fit: CurveFit) -> Enough:
    experiment, axis = runner.experiment, runner.axis
    # documents of an lm-eval task are as many as the task has: nobody can add some
    n_test = None if isinstance(experiment.metric, LmEvalMetric) else runner.count_test_values()
    n_unanswered = 0 if n_test is None else len(experiment.test) - n_test
    n_pool, unit = (len(runner.experiment.pool), "rows") if axis is None else (len(axis.places), axis.unit)
    tolerance = progress.settings.tolerance
    return find_enough(fit, within=tolerance, n_pool=n_pool, n_test=n_test, n_unanswered=n_unanswered, unit=unit)


def name_sentences(sentences: Sequence[str]) -> dict[str, Any]:
    """Return the first sentence of a curve as its `answer`, and the others as its `outlook`."""
    return {"answer": sentences[0], "outlook": list(sentences[1:])}


def write_answer(answers: Mapping[str, Enough], fits: Mapping[str, CurveFit]) -> list[str]:
    """Return the answer of a curve, and what twice the rows are expected to bring.

    It is that of the method which needs the fewest rows.

    All methods are compared with the same pool; where only a part of it was measured, which each
    method chooses for itself, the method with the lowest error there comes first.

    Args:
        answers: per method, random among them.
        fits: per method.
    """
    if not answers:
        return [TOO_FEW_RUNS]
    method = find_leader(answers, fits)
    name, _, variant = method.partition(", ")
    whose = "random rows" if name == BASELINE else f"rows chosen by {name}"
    whose += f" ({variant})" if variant else ""
    aside = ", ".join([*([] if name == BASELINE else [f"chosen by {name}"]), *([variant] if variant else [])])
    if answers[method].unit != "rows":
        whose = aside = ""
    return [answers[method].describe(whose, aside), answers[method].describe_next()]


def find_leader(answers: Mapping[str, Enough], fits: Mapping[str, CurveFit]) -> str:
    """Return the method whose answer is that of the curve; `write_answer` says which."""
    order = {"enough": 0, "all": 1, "cannot tell": 2}

    def rank(method: str) -> tuple[float, ...]:
        answer = answers[method]
        is_one_pool = answer.is_whole_pool and BASELINE in answers
        lead = 0.0 if is_one_pool else float(fits[method].errors[-1])
        return (lead, order[answer.verdict], answer.high, method != BASELINE)

    return min(answers, key=rank)


def _describe_method(
    runner: ExperimentRunner, progress: CurveProgress, method: str, fit: CurveFit | None, enough: Enough | None
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
    if fit is None or enough is None:
        return {"points": points, "enough": None, "notes": ["too few runs to fit a law"]}
    return {
        "points": points,
        **describe_fit(fit, enough, settings),
        "notes": [*describe_dips(runner, method, list(values_by_size)), *describe_least_steps(runner, values_by_size)],
    }


def describe_fit(fit: CurveFit, enough: Enough, settings: CurveSettings) -> dict[str, Any]:
    """Return the laws of a method, with its answers, as JSON values.

    Args:
        fit: of the method.
        enough: its answer.
        settings: with the targets and the further rows that were asked for.
    """
    last = float(fit.sizes[-1])
    band = np.unique(np.geomspace(fit.sizes[0], last * BAND_REACH, BAND_SIZES).round())
    return {
        "enough": enough.to_json(),
        "asymptote": fit.asymptote().to_json(),
        "laws": {law: round(weight, 6) for law, weight in fit.weights.items()},
        "misfit": fit.misfit,
        "seed_sd": [{"n_rows": int(n), "value": float(sd)} for n, sd in zip(fit.sizes, fit.seed_sd, strict=True)],
        "test_stderr": fit.test_stderr,
        "test_covariance": fit.test_covariance.tolist(),
        "band": [{"n_rows": int(size), **fit.predict(float(size)).to_json()} for size in band],
        "gain_of_doubling": [{"n_rows": int(size), **fit.gain(size, size).to_json()} for size in fit.sizes],
        "targets": [
            {"target": target, **fit.rows_needed(target).to_json(), "smallest": int(fit.sizes[0])}
            for target in settings.targets
        ],
        "gains": [{"from": int(last), "more": more, **fit.gain(last, more).to_json()} for more in settings.more],
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


def describe_least_steps(runner: ExperimentRunner, sizes: Iterable[int]) -> list[str]:
    """Say which sizes took more steps than their epochs, so that few rows are learned fully."""
    from thresher.trainer.engine.fit import count_steps

    if runner.experiment.trainer is not None:
        return []
    settings = runner.experiment.resolve_settings()
    if not settings.min_steps or settings.min_steps == 1:
        return []
    few = [size for size in sizes if count_steps(size, replace(settings, min_steps=1)) < settings.min_steps]
    if not few or runner.axis is not None:
        return []
    return [
        f"sizes up to {max(few):,} rows took {settings.min_steps} optimizer steps, more than their {settings.epochs:g} "
        f"epochs, so that few rows are learned to the end, too (--train min_steps)"
    ]


def compute_trades(fits: Mapping[str, CurveFit], sizes: Mapping[str, Sequence[int]]) -> list[dict[str, Any]]:
    """Return how many random rows are as good as so many chosen ones.

    Fewer than `smallest`, the smallest measured size, are told as 0.
    """
    base = fits.get(BASELINE)
    if base is None:
        return []
    return [
        {
            "method": method,
            "n_rows": size,
            "baseline": BASELINE,
            "baseline_rows": {**base.equivalent_rows(fit, size).to_json(), "smallest": int(base.sizes[0])},
        }
        for method, fit in fits.items()
        if method != BASELINE
        for size in sizes[method]
    ]


def _fit_methods(runner: ExperimentRunner, progress: CurveProgress) -> dict[str, CurveFit]:
    fits = {method: fit_method(runner, progress, method) for method in progress.methods}
    return {method: fit for method, fit in fits.items() if fit is not None}


def build_curve(
    cells: pl.DataFrame, content: Mapping[str, Any], fits: Mapping[str, CurveFit], manifest: Manifest, path: Path | None
) -> LearningCurve:
    """Return the record of a curve from its parts."""
    enough = {
        method: Enough.from_json(entry["enough"])
        for method, entry in content["methods"].items()
        if entry["enough"] is not None
    }
    return LearningCurve(cells=cells, fits=fits, enough=enough, content=content, path=path, manifest=manifest)
