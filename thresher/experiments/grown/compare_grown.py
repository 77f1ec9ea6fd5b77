"""Do rows that a model wrote help? The rows of the user alone against the same rows with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, Unpack

import numpy as np
import polars as pl

from thresher.dataset import Dataset, load
from thresher.dataset.loading import ensure_dataset
from thresher.errors import InputError
from thresher.evaluation.effect import adjust_p_values, describe_effect, estimate_seeds_needed
from thresher.experiments.cells.cell import Cell
from thresher.experiments.comparison import (
    Comparison,
    PairwiseResult,
    write_comparison,
)
from thresher.experiments.design.dry_run import measure_experiment, plan_base, plan_runs
from thresher.experiments.experiment import load_experiment
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.settings import ComparisonOptions, ComparisonSettings
from thresher.experiments.tables import (
    build_cost_table,
)
from thresher.numeric.arrays import Bool, Int64
from thresher.progress import OnProgress
from thresher.trainer.estimate import TrainingPlan
from thresher.trainer.weights import read_weights
from thresher.validation import build_settings, document_options

WITHOUT, WITH, INSTEAD = "without", "with-grown", "own-answers"
MARK = "thresher_is_grown"
REPLACES = "answer_from"  # column of rows that stand in the place of the user's
CHOOSES = ("methods", "budget", "redraw", "method_settings", "target_rows")


@document_options(ComparisonSettings)
def compare_grown(
    grown: Any,
    *,
    against: Any,
    eval: Any,  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[ComparisonOptions],
) -> Comparison:
    """Train with and without rows that a model wrote: same seeds, steps and test rows.

    Both sides take the optimizer steps of the larger one (`equal="steps"`), so that more rows do
    not win by more training; with `equal="epochs"` they may. Rows of `grow(how="own")`, which have
    a column `answer_from`, stand in the place of the user's rows; all others beside them.

    Args:
        grown: rows that a model wrote: a folder of `grow`, or anything `load` accepts.
        against: the rows that they were grown from, or that they shall join.
        eval: rows to measure on, which neither side may hold.
        on_progress: listener.
        **options: fields of `ComparisonSettings`, but for those that choose rows.

    Raises:
        IncompleteError: the machine ended every cell.
        InputError: the rows do not fit together, or an option chooses rows.
        OutputError: `out` holds something else.
    """
    settings: ComparisonSettings = build_settings(ComparisonSettings, "compare", options)
    _refuse_choice(settings)
    rows, replaces = _join_rows(ensure_dataset(against), ensure_dataset(grown), settings.settings.weight)
    experiment = load_experiment(rows, eval=eval, settings=settings, on_progress=on_progress)
    with ExperimentRunner.open(experiment, settings, on_progress) as runner:
        sides = _list_sides(runner.experiment.pool, replaces=replaces)
        asked = {"sides": {name: len(side) for name, side in sides.items()}, "seeds": settings.seeds}
        asked |= {"equal": settings.equal, "detect": settings.detect, "budgets": [len(list(sides.values())[-1])]}

        def judge() -> tuple[list[int], Sequence[PairwiseResult]]:
            _run_sides(runner, sides, settings)
            return sorted({len(side) for side in sides.values()}), _judge(runner, sides, settings)

        return write_comparison(runner, asked, settings, judge, baseline=WITHOUT)


def plan_grown_comparison(grown: Any, *, against: Any, eval: Any, **options: Unpack[ComparisonOptions]) -> TrainingPlan:  # noqa: A002
    """Estimate what `compare_grown` with the same arguments will take; nothing is written.

    Args:
        grown: as for `compare_grown`.
        against: as for `compare_grown`.
        eval: as for `compare_grown`.
        **options: as for `compare_grown`.
    """
    settings: ComparisonSettings = build_settings(ComparisonSettings, "compare", options)
    _refuse_choice(settings)
    rows, replaces = _join_rows(ensure_dataset(against), ensure_dataset(grown), settings.settings.weight)
    experiment = load_experiment(rows, eval=eval, settings=settings)
    with ExperimentRunner.open(experiment, settings) as runner:
        sides = _list_sides(runner.experiment.pool, replaces=replaces)
        if settings.equal == "steps":
            runner.set_equal_steps(max(map(len, sides.values())))
        cost = measure_experiment(runner.experiment)
        parts = [plan_base(runner.experiment, cost, n_subsets=len(sides))]
        parts += [
            plan_runs(name, runner.experiment, cost, [len(side)] * settings.seeds) for name, side in sides.items()
        ]
        return TrainingPlan(
            parts=tuple(parts),
            n_workers=runner.n_workers,
            memory_bytes=cost.memory_bytes,
            note="runs that are kept from before cost nothing",
        )


def _list_sides(pool: Dataset, *, replaces: bool) -> dict[str, Int64]:
    """Return the rows of the side without and of the side with the grown ones, by name.

    Raises:
        InputError: one has none.
    """
    is_grown: Bool = pool.column(MARK).cast(pl.String).eq("1").to_numpy()
    ours = np.flatnonzero(is_grown) if replaces else np.arange(len(is_grown))
    sides = {WITHOUT: np.flatnonzero(~is_grown), (INSTEAD if replaces else WITH): ours}
    if not all(len(side) for side in sides.values()):
        raise InputError("compare: needs rows of both sides that are no test rows, found none of one")
    return sides


def _refuse_choice(settings: ComparisonSettings) -> None:
    """Refuse options that choose rows.

    Raises:
        InputError: one is given.
    """
    defaults = {field.name: field.default for field in fields(ComparisonSettings)}
    given = [name for name in CHOOSES if getattr(settings, name) != defaults[name]]
    if given:
        raise InputError(
            f"compare: with against all rows of both sides are trained on, so {', '.join(given)} must be left out"
        )


def _join_rows(pool: Dataset, grown: Dataset, weight: str | None) -> tuple[Dataset, bool]:
    """Return the rows of both sides in the pool's columns, marked, and whether the second replaces.

    Args:
        pool: rows of one side.
        grown: rows of the other.
        weight: column of their weights, or None.

    Raises:
        InputError: the rows are of two kinds.
        NotFoundError: a side has no such column.
    """
    if pool.kind != grown.kind:
        raise InputError(f"against: must hold rows of the grown ones' kind, {grown.kind}, found {pool.kind}")
    names = set(pool.schema.column_names)
    if weight is not None:
        for side in (pool, grown):
            read_weights(side, weight)
        names.add(weight)
    rows = [{name: value for name, value in row.items() if name in names} | {MARK: "0"} for row in pool]
    rows += [{name: value for name, value in row.items() if name in names} | {MARK: "1"} for row in grown]
    joined = load(rows, schema=pool.schema)
    places = pl.concat([side.frame.select("file", "line") for side in (pool, grown)])
    # messages name the user's files
    joined = replace(joined, frame=joined.frame.with_columns(places[joined.position]))
    return joined, REPLACES in grown.column_names


def _run_sides(
    runner: ExperimentRunner, sides: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]], settings: ComparisonSettings
) -> None:
    experiment = runner.experiment
    if settings.equal == "steps":
        runner.set_equal_steps(max(len(side) for side in sides.values()))
    names = [(name, len(side), seed) for seed in range(settings.seeds) for name, side in sides.items()]
    for name, size, seed in names:
        runner.cells[name, size, seed] = Cell(method=name, n_rows=size, seed=seed, rows=sides[name])
    runner.run(names, largest=max(len(side) for side in sides.values()))
    runner.experiment = experiment
    runner.require_results()


def _judge(
    runner: ExperimentRunner, sides: Mapping[str, np.ndarray[Any, np.dtype[np.int64]]], settings: ComparisonSettings
) -> tuple[PairwiseResult, ...]:
    """Return the verdict, from the seeds that finished on both sides."""
    (theirs, our_name) = [(name, len(side)) for name, side in sides.items()]
    pairs = runner.pair_runs(our_name, theirs)
    if len(pairs) < 2:
        return ()
    effect = pairs.estimate_effect(n_tests=1)
    p = adjust_p_values([effect.p])[0]
    costs = build_cost_table(runner).filter(pl.col("method") == our_name[0])["train_seconds"].mean()
    return (
        PairwiseResult(
            method=our_name[0],
            n_rows=our_name[1],
            effect=effect,
            p_holm=p,
            sentence=describe_effect(effect, p, pairs.unit),
            seeds_needed=estimate_seeds_needed(*pairs.stack(), gain=settings.detect, n_tests=1, shared=pairs.shared),
            select_seconds=0.0,
            train_seconds=round(float(costs), 3),  # type: ignore[arg-type]
            net=None,
        ),
    )
