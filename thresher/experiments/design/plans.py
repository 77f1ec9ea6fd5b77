"""Plans of the three experiments: which runs they will make, and what those take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from thresher.errors import InputError
from thresher.experiments.comparison import parse_sizes
from thresher.experiments.design.dry_run import measure_experiment, plan_base, plan_runs, with_stop
from thresher.experiments.experiment import Experiment, load_experiment
from thresher.experiments.learning_curve import SHARE_OF_GRID, choose_sizes
from thresher.experiments.planning import choose_curve_methods, list_first_cells
from thresher.experiments.rankings import choose_methods, has_columns, name_methods
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.search import EARLY, EPOCHS, list_set_fields
from thresher.experiments.settings import (
    ComparisonSettings,
    CurveSettings,
    MethodExperimentSettings,
    TuneSettings,
)
from thresher.numeric.units import format_count
from thresher.trainer.estimate import PlannedRuns, TrainingPlan
from thresher.validation import build_settings

CELLS_NOTE = "the time of choosing rows is not counted, and what is kept from before costs nothing"


def plan_curve(pool: Any, *, eval: Any, **options: Any) -> TrainingPlan:  # noqa: A002 - as `learning_curve`
    """Estimate what `learning_curve` with the same arguments will take; nothing is written.

    Args:
        pool: as for `learning_curve`.
        eval: as for `learning_curve`.
        options: fields of `CurveSettings`.
    """
    settings: CurveSettings = build_settings(CurveSettings, "curve", name_methods(options, "curve")[0])
    _refuse_own_trainer(settings)
    with ExperimentRunner.open(load_experiment(pool, eval=eval, settings=settings), settings) as runner:
        experiment, n_workers = runner.experiment, runner.n_workers
        n_methods = len(choose_curve_methods(settings, experiment.pool.kind))
        sizes = choose_sizes(settings, experiment)
        if settings.equal == "steps":
            runner.set_equal_steps(sizes[-1])
            experiment = runner.experiment
    cost = measure_experiment(experiment, n_workers=n_workers)
    # a cell of the whole pool is the same for all methods
    n_of_pool = max(1, len(settings.ranks or ()), len(settings.models or ()))
    n_arms = n_methods * n_of_pool

    def spread(cells: list[tuple[int, int]]) -> list[int]:
        return [size for size, _ in cells for _ in range(n_of_pool if size == len(experiment.pool) else n_arms)]

    grid = spread([(size, seed) for seed in range(settings.seeds) for size in sizes])
    first = grid if settings.grid else spread(list_first_cells(sizes, settings.seeds))
    first = first[: settings.max_runs]
    base = plan_base(experiment, cost, n_subsets=n_methods * len(sizes))
    parts = [replace(base, seconds=len(settings.models or "1") * base.seconds)]
    parts.append(plan_runs("every cell of the grid" if settings.grid else "first cells", experiment, cost, first))
    if not settings.grid and settings.max_runs is None:
        whole = plan_runs("grid", experiment, cost, grid)
        share = max(0.0, SHARE_OF_GRID - parts[1].seconds / whole.seconds)
        further = PlannedRuns(
            name="further cells, at most",
            n=round(share * whole.n),
            seconds=share * whole.seconds,
            tokens=round(share * whole.tokens),
        )
        parts.append(further)
    return TrainingPlan(parts=tuple(parts), n_workers=n_workers, memory_bytes=cost.memory_bytes, note=CELLS_NOTE)


def _refuse_own_trainer(settings: MethodExperimentSettings) -> None:
    if settings.trainer is not None:
        raise InputError("dry_run: how long a trainer of your own takes is not known; leave --trainer or --dry-run out")


def plan_comparison(pool: Any, *, eval: Any, **options: Any) -> TrainingPlan:  # noqa: A002 - as `compare`
    """Estimate what `compare` with the same arguments will take; nothing is written.

    Args:
        pool: as for `compare`.
        eval: as for `compare`.
        options: fields of `ComparisonSettings`.
    """
    named, selectors = name_methods(options, "compare")
    settings: ComparisonSettings = build_settings(ComparisonSettings, "compare", named)
    _refuse_own_trainer(settings)
    method_settings = settings.method_settings or {}
    methods = choose_methods(settings.methods, method_settings, selectors)
    with ExperimentRunner.open(load_experiment(pool, eval=eval, settings=settings), settings) as runner:
        n_workers, pool_rows = runner.n_workers, runner.experiment.pool
        if settings.methods == "all":
            methods = [name for name in methods if has_columns(name, method_settings, pool_rows)]
        cost = measure_experiment(runner.experiment, n_workers=n_workers)
        budgets = parse_sizes(settings.budget, len(pool_rows))
        parts = [plan_base(runner.experiment, cost, n_subsets=len(methods) * len(budgets))]
        for size in budgets:
            if settings.equal == "steps":
                runner.set_equal_steps(size)
            sizes = [size] * (len(methods) * settings.seeds)
            parts.append(
                plan_runs(
                    f"{format_count(size, 'row')}, {format_count(len(methods), 'method')}",
                    runner.experiment,
                    cost,
                    sizes,
                )
            )
    return TrainingPlan(parts=tuple(parts), n_workers=n_workers, memory_bytes=cost.memory_bytes, note=CELLS_NOTE)


def plan_tuning(data: Any, *, eval: Any, **options: Any) -> TrainingPlan:  # noqa: A002 - as `tune`
    """Estimate what `tune` with the same arguments will take; nothing is written.

    Trials differ in their epochs and batch sizes; those of the middle of the space are counted.

    Args:
        data: as for `tune`.
        eval: as for `tune`.
        options: fields of `TuneSettings`.
    """
    from thresher.experiments.cells.worker_pool import count_workers

    settings: TuneSettings = build_settings(TuneSettings, "tune", options)
    test = load_experiment(data, eval=eval, settings=settings)
    dev = load_experiment(test.pool, eval=settings.dev, settings=replace(settings, model=test.model))
    n_workers = count_workers(settings.workers, settings.device)
    cost = measure_experiment(test, n_workers=n_workers)
    base = _choose_middle(settings, dev)
    n_finals = min(settings.finalists + settings.checks + 1, settings.trials)
    n_dev, n_all = len(dev.pool), len(test.pool)
    early = replace(cost, general_seconds=0.0)  # what is forgotten is asked at the end
    parts = (
        plan_base(test, cost),
        plan_runs(f"trials, to {EARLY:.0%}", dev, early, [n_dev] * settings.trials, with_stop(base, EARLY)),
        plan_runs("trials, to the end", dev, cost, [n_dev] * n_finals, base),
        plan_runs("winner and default on the test rows", test, cost, [n_all] * (2 * settings.seeds), base),
    )
    note = "trials differ in epochs, and those of the middle are counted"
    return TrainingPlan(parts=parts, n_workers=n_workers, memory_bytes=cost.memory_bytes, note=note)


def _choose_middle(settings: TuneSettings, dev: Experiment) -> Any:
    base = dev.resolve_settings()
    if list_set_fields(settings.settings) & {"epochs", "max_steps"}:
        return base
    return replace(base, epochs=sum(EPOCHS) / 2, min_steps=1)
