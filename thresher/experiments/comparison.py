"""Is any selector better than random on these rows? Same seeds, same test set for all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Unpack

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.result import Result
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import read_table
from thresher.dataset import Dataset
from thresher.errors import InputError
from thresher.evaluation.effect import LEVEL, Effect, adjust_p_values, describe_effect, estimate_seeds_needed
from thresher.evaluation.metric import Unit, find_metric
from thresher.experiments.experiment import load_experiment
from thresher.experiments.paired_runs import compare_by_metrics
from thresher.experiments.rankings import choose_methods, has_columns, name_methods
from thresher.experiments.result_folder import RunClock, read_result, run_in_folder
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.settings import (
    BASELINE,
    ComparisonOptions,
    ComparisonSettings,
    ExperimentSettings,
)
from thresher.experiments.tables import (
    CELL_SCHEMA,
    build_cell_table,
    build_cost_table,
    build_manifest,
    compute_identity,
    write_tables,
)
from thresher.experiments.untouched.forgetting import describe_forgetting
from thresher.experiments.untouched.row_zero import describe_row_zero
from thresher.progress import OnProgress
from thresher.subset.budget import parse_budget
from thresher.validation import build_settings, document_options

KIND = "comparison"
RATES = ("accuracy", "macro_f1", "balanced_accuracy")  # that differ where classes are uneven
UNEVEN = 1.5  # rows of the largest class to the mean
CELLS, COMPARISON = "cells.csv", "comparison.json"


@dataclass(frozen=True, kw_only=True)
class PairwiseResult:
    """One method at one budget against random.

    Attributes:
        method: name.
        n_rows: rows trained on.
        effect: paired difference to random, positive where the method is better.
        p_holm: adjusted for all methods and budgets of the comparison.
        sentence: the verdict in words.
        seeds_needed: to see `detect` with these test rows; None where they are too few, however
            many the seeds.
        select_seconds: mean over seeds, features included (as spent now: cached ones cost nothing).
        train_seconds: mean over seeds.
        net: the effect net of selection time, with its interval; None where only one budget was
            measured.
        others: where classes are uneven, metric -> `difference`, `p_holm` and `sentence` in the
            other rates, adjusted for all metrics, too.
    """

    method: str
    n_rows: int
    effect: Effect
    p_holm: float
    sentence: str
    seeds_needed: int | None
    select_seconds: float
    train_seconds: float
    net: Mapping[str, float] | None
    others: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True, repr=False)
class Comparison(Result):
    """Selectors against random.

    Attributes:
        cells: one row per cell, as in `LearningCurve`.
        verdicts: on every method and budget but random itself.
        content: of `comparison.json`.
        path: of the folder, or None when none was asked for.
        manifest: what ran.
    """

    cells: pl.DataFrame
    verdicts: tuple[PairwiseResult, ...]
    content: Mapping[str, Any]
    path: Path | None
    manifest: Manifest

    def list_facts(self) -> list[tuple[str, str]]:
        """Return one sentence per method and budget."""
        return [(f"{v.method}, {v.n_rows:,} rows", v.sentence) for v in self.verdicts]

    def plot(self, ax: Any = None) -> Any:
        """Draw each method's difference to random; return the matplotlib figure."""
        from thresher.experiments.figures.plots import plot_comparison

        return plot_comparison(self.content, ax)


@document_options(ComparisonSettings)
def compare(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[ComparisonOptions],
) -> Comparison:
    """Compare selectors with random at given budgets, with the same seeds on the same test set.

    Cells that the machine ended however often they were tried, as when memory runs out, are listed
    in `content["unfinished"]`; the same call completes the result.

    Args:
        pool: rows to choose from, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out ("10%").
        on_progress: listener.
        options: fields of `ComparisonSettings`.

    Raises:
        IncompleteError: the machine ended every cell.
        InputError: pool, test set, budgets or methods do not fit.
        NotFoundError: there is no such method, metric or model.
        SettingsError: a setting has an illegal value.
        OutputError: `out` holds something else.
    """
    options_by_name, selectors = name_methods(options, "compare")
    settings: ComparisonSettings = build_settings(ComparisonSettings, "compare", options_by_name)
    method_settings = settings.method_settings or {}
    names = choose_methods(settings.methods, method_settings, selectors)
    experiment = load_experiment(pool, eval=eval, settings=settings, on_progress=on_progress)
    with ExperimentRunner.open(experiment, settings, on_progress) as runner:
        runner.rankings.selectors, runner.rankings.redraw = selectors, settings.redraw
        experiment = runner.experiment
        sizes = parse_sizes(settings.budget, len(experiment.pool))
        if settings.methods == "all":
            names = [name for name in names if has_columns(name, method_settings, experiment.pool)]
        asked = {
            "methods": names,
            "budgets": sizes,
            "seeds": settings.seeds,
            "redraw": settings.redraw,
            "equal": settings.equal,
            "detect": settings.detect,
        }
        return _write_comparison(runner, asked, settings)


def _write_comparison(runner: ExperimentRunner, asked: dict[str, Any], settings: ComparisonSettings) -> Comparison:
    def judge() -> tuple[list[int], Sequence[PairwiseResult]]:
        _run_cells(runner, asked)
        return asked["budgets"], compare_with_baseline(runner, detect=asked["detect"])

    return write_comparison(runner, asked, settings, judge)


def write_comparison(
    runner: ExperimentRunner,
    asked: dict[str, Any],
    settings: ExperimentSettings,
    judge: Callable[[], tuple[list[int], Sequence[PairwiseResult]]],
    *,
    baseline: str = BASELINE,
) -> Comparison:
    """Run a comparison in its folder, or read the one that is there.

    Args:
        runner: of the cells.
        asked: what the result is of, besides rows, model and training.
        settings: of the command.
        judge: runs the cells, and returns the sizes and the verdicts.
        baseline: what the others were compared with.
    """
    clock, identity = RunClock(), compute_identity(runner, asked)

    def run(_: Path | None) -> Comparison:
        sizes, verdicts = judge()
        return Comparison(
            cells=build_cell_table(runner),
            verdicts=tuple(verdicts),
            content=build_content(runner, sizes, verdicts, baseline),
            path=None,
            manifest=build_manifest(runner, KIND, identity, asked, clock),
        )

    def write(comparison: Comparison, folder: Path) -> None:
        write_tables(runner, folder, CELLS)
        write_atomic(folder / COMPARISON, encode_record(comparison.content))
        write_atomic(folder / MANIFEST, comparison.manifest.to_json())

    return run_in_folder(identity, settings, run=run, write=write, read=read_comparison)


def _run_cells(runner: ExperimentRunner, asked: Mapping[str, Any]) -> None:
    experiment = runner.experiment
    for size in asked["budgets"]:
        if asked["equal"] == "steps":
            runner.set_equal_steps(size)
        names = [(method, size, seed) for seed in range(asked["seeds"]) for method in asked["methods"]]
        runner.run(names, largest=asked["budgets"][-1])
    runner.experiment = experiment  # what was asked, not the steps of the last budget
    runner.require_results()


def build_content(
    runner: ExperimentRunner, budgets: Sequence[int], verdicts: Sequence[PairwiseResult], baseline: str = BASELINE
) -> dict[str, Any]:
    """Return the content of `comparison.json`."""
    return {
        "metric": runner.experiment.metric.name,
        "is_higher_better": runner.experiment.metric.is_higher_better,
        "budgets": budgets,
        "pool": len(runner.experiment.pool),
        "choices": runner.rankings.describe_choices(budgets) if baseline == BASELINE else [],
        "unknown_labels": runner.experiment.unknown_labels,
        "baseline": baseline,
        "level": LEVEL,
        "values": _describe_values(runner),
        "base": describe_row_zero(runner),
        "general": describe_forgetting(runner),
        "verdicts": [_to_json(verdict) for verdict in verdicts],
        "failed": [
            {"method": method, "n_rows": size, "seed": seed, "reason": outcome.reason}
            for (method, size, seed), outcome in sorted(runner.outcomes.items(), key=lambda entry: entry[0])
            if outcome.reason is not None and not outcome.is_unfinished
        ],
        "unfinished": runner.list_unfinished(),
    }


def compare_with_baseline(runner: ExperimentRunner, *, detect: float) -> list[PairwiseResult]:
    """Return the verdict on every method and budget, from the seeds that finished on both sides.

    Args:
        runner: with finished cells.
        detect: true difference to find the number of needed seeds for.
    """
    groups = [group for group in runner.list_groups() if group[0] != BASELINE]
    effects: list[tuple[str, int, Effect, int | None]] = []
    units: dict[tuple[str, int], Unit] = {}
    for method, size in groups:
        pairs = runner.pair_runs((method, size), (BASELINE, size))
        if len(pairs) >= 2:
            units[method, size] = pairs.unit
            needed = estimate_seeds_needed(*pairs.stack(), gain=detect, n_tests=len(groups), shared=pairs.shared)
            effects.append((method, size, pairs.estimate_effect(n_tests=len(groups)), needed))
    adjusted = adjust_p_values([effect.p for _, _, effect, _ in effects])
    costs = build_cost_table(runner).group_by("method", "n_rows").agg(pl.col("select_seconds", "train_seconds").mean())
    seconds = {(m, n): (s, t) for m, n, s, t in costs.iter_rows()}
    others = compare_in_other_metrics(
        runner, [(method, size) for method, size, _, _ in effects], [effect.p for _, _, effect, _ in effects]
    )
    return [
        PairwiseResult(
            method=method,
            n_rows=size,
            effect=effect,
            p_holm=p,
            sentence=describe_effect(effect, p, units[method, size]),
            seeds_needed=needed,
            select_seconds=round(seconds[method, size][0], 3),
            train_seconds=round(seconds[method, size][1], 3),
            net=compute_net_effect(runner, effect, size, *seconds[method, size]),
            others=others.get((method, size), {}),
        )
        for (method, size, effect, needed), p in zip(effects, adjusted, strict=True)
    ]


def compare_in_other_metrics(
    runner: ExperimentRunner, groups: Sequence[tuple[str, int]], own: Sequence[float]
) -> dict[tuple[str, int], dict[str, Any]]:
    """Return the differences to random in the other rates; none unless classes are uneven.

    Args:
        runner: with finished cells.
        groups: methods and budgets that have an effect.
        own: p-values of these, by the metric of the comparison.
    """
    experiment = runner.experiment
    tables = [outcome.outcomes for outcome in runner.outcomes.values() if outcome.outcomes is not None]
    if any("prediction" not in table.columns for table in tables):  # a trainer gave numbers
        return {}
    if experiment.pool.kind != "classification" or not has_uneven_classes(experiment.pool):
        return {}
    pairs = [runner.pair_runs(group, (BASELINE, group[1])) for group in groups]
    metrics = [find_metric(name, "classification") for name in RATES if name != experiment.metric.name]
    return dict(zip(groups, compare_by_metrics(pairs, metrics, own), strict=True))


def has_uneven_classes(rows: Dataset) -> bool:
    """Tell whether the largest class has half more rows than classes have on average."""
    counts = rows.frame["response"].value_counts()["count"]
    return len(counts) > 1 and float(counts.max()) >= UNEVEN * float(counts.mean())  # type: ignore[arg-type]


def compute_net_effect(
    runner: ExperimentRunner, effect: Effect, n_rows: int, select_seconds: float, train_seconds: float
) -> dict[str, float] | None:
    """Return the effect against random rows that got the time of choosing as further rows.

    How much those rows would gain is read off random's own scores: straight lines between the
    measured budgets on a log scale of rows, and the last one on beyond them.

    Args:
        runner: with finished cells.
        effect: at equal numbers of rows.
        n_rows: that number.
        select_seconds: spent on choosing.
        train_seconds: spent on training.

    Returns:
        `value`, `low`, `high`, `random_rows` (those random could train on in the same time); None
        where random was measured at one budget only.
    """
    means = {size: runner.compute_mean(BASELINE, size) for size in sorted({name[1] for name in runner.outcomes})}
    known = [(size, mean) for size, mean in means.items() if mean is not None]
    if len(known) < 2 or not train_seconds:
        return None
    # random rows that take as long to train on as choosing and training together
    affordable = n_rows * (1 + select_seconds / train_seconds)
    sizes, values = np.log([size for size, _ in known]), np.array([mean for _, mean in known])
    slope = (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
    # np.interp is flat beyond the last size, where the last slope goes on
    beyond = max(0.0, float(np.log(affordable) - sizes[-1]))
    reached = float(np.interp(np.log(affordable), sizes, values)) + slope * beyond
    gain = reached - float(np.interp(np.log(n_rows), sizes, values))
    gain *= 1 if runner.experiment.metric.is_higher_better else -1
    ends = {"value": effect.value, "low": effect.low, "high": effect.high}
    return {**{name: float(end - gain) for name, end in ends.items()}, "random_rows": float(round(affordable))}


def read_comparison(path: str | Path) -> Comparison:
    """Read a comparison's folder.

    Raises:
        ManifestError: the folder is not one that `compare` wrote.
    """
    folder = Path(path)
    manifest, content = read_result(folder, KIND, "a comparison", COMPARISON)
    cells = read_table(folder / CELLS, schema=CELL_SCHEMA)
    verdicts = tuple(_from_json(entry) for entry in content["verdicts"])
    return Comparison(cells=cells, verdicts=verdicts, content=content, path=folder, manifest=manifest)


def _to_json(verdict: PairwiseResult) -> dict[str, Any]:
    values = asdict(verdict)
    effect = values.pop("effect")
    return {**values, "difference": effect}


def _from_json(entry: Mapping[str, Any]) -> PairwiseResult:
    values = {name: value for name, value in entry.items() if name != "difference"}
    return PairwiseResult(effect=Effect(**entry["difference"]), **values)


def _describe_values(runner: ExperimentRunner) -> list[dict[str, Any]]:
    """Return mean and standard error of every method and budget, random among them."""
    values = []
    for method, size in runner.list_groups():
        mean, n_seeds = runner.compute_mean(method, size), len(runner.list_tables(method, size))
        if mean is not None:
            stderr = runner.estimate_stderr(method, size)
            values.append({"method": method, "n_rows": size, "value": mean, "stderr": stderr, "n_seeds": n_seeds})
    return values


def parse_sizes(budgets: Sequence[str | int | float], n_pool: int) -> list[int]:
    """Return the budgets of a comparison as numbers of rows, rising.

    Raises:
        InputError: a budget is neither rows nor a share, or there is none.
    """
    sizes = set()
    for text in budgets:
        budget = parse_budget(text)
        if budget.unit not in ("rows", "share"):
            raise InputError(f"compare: the budget must be rows or a share, so that all sides get as many, got {text}")
        sizes.add(budget.n_rows(n_pool))
    if not sizes:
        raise InputError("compare: at least one budget is needed, got none")
    return sorted(sizes)
