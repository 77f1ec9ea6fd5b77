"""The arrow to a curve: the same method at rising numbers of rows, until the answer is firm."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal, Unpack

import numpy as np

from thresher.errors import InputError, SettingsError
from thresher.evaluation.metric import Metric
from thresher.experiments.curve import MIN_SIZES, CurveProgress, LearningCurve, fit_runs
from thresher.experiments.curve_io import write_curve
from thresher.experiments.experiment import Experiment
from thresher.experiments.planning import Cost, is_firm, list_doubling_sizes, list_first_cells, propose_cells
from thresher.experiments.rankings import check_methods, name_methods
from thresher.experiments.runner import CellId, ExperimentRunner
from thresher.experiments.settings import CurveOptions, CurveSettings, list_methods
from thresher.experiments.tables import check_slices
from thresher.progress import OnProgress
from thresher.validation import build_settings, document_options

SHARE_OF_GRID = 0.4  # of the full grid's cost, at most spent by the adaptive mode after its start
CELLS_AT_ONCE = 2  # of each method; not the number of workers, on which no result may depend


@document_options(CurveSettings)
def learning_curve(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[CurveOptions],
) -> LearningCurve:
    """Measure how the score rises with the number of rows, and from where on more rows stop paying.

    Every cell is kept: a killed call continues with the cell it was at, and cells that any earlier
    command has run on the same rows with the same settings are not run again. Where the machine
    ended cells however often they were tried, as when memory runs out, they are listed in
    `content["unfinished"]`, and the same call completes the result.

    Without `grid`, the small sizes come first, and then the cell that narrows the answer most for
    its cost, until the answer is firm or 40 % of the grid's cost is spent (the first cells, four
    sizes with two seeds, are run in any case).

    Args:
        pool: rows to choose from, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out ("10%").
        on_progress: listener.
        options: fields of `CurveSettings`.

    Raises:
        IncompleteError: the machine ended every cell, as when memory runs out.
        InputError: pool, test set, sizes or methods do not fit.
        NotFoundError: there is no such method, metric or model.
        SettingsError: a setting has an illegal value.
        OutputError: `out` holds something else.
    """
    options_by_name, selectors = name_methods(options, "curve")
    settings: CurveSettings = build_settings(CurveSettings, "curve", options_by_name)
    methods = list_methods(settings.methods, "curve")
    check_methods(methods, settings.method_settings or {}, "curve", selectors)
    with ExperimentRunner.open(pool, eval=eval, settings=settings, on_progress=on_progress) as runner:
        runner.rankings.selectors = selectors
        for target in settings.targets:
            _check_target(target, runner.experiment.metric)
        sizes = _choose_sizes(settings.sizes, runner.experiment)
        progress = CurveProgress(settings=replace(settings, methods=tuple(methods)), sizes=sizes)
        check_slices(runner, settings.slices)
        if settings.equal == "steps":
            runner.set_equal_steps(sizes[-1])
        return write_curve(runner, progress, run_cells)


def run_cells(progress: CurveProgress, runner: ExperimentRunner) -> None:
    """Run the cells of a curve, all of them or those that it takes."""
    cost, started, settings, sizes = runner.compute_cost(), time.monotonic(), progress.settings, progress.sizes
    n_seeds, max_runs, max_seconds = settings.seeds, settings.max_runs, settings.max_seconds
    progress.full_cost = len(settings.methods) * n_seeds * sum(cost.compute(size) for size in sizes)
    grid = [(size, seed) for seed in range(n_seeds) for size in sizes]
    first = grid if settings.grid else list_first_cells(sizes, n_seeds)
    todo = [(method, size, seed) for size, seed in first for method in settings.methods]
    while todo:
        if max_runs is not None and len(progress.runs) + len(todo) > max_runs:
            todo = todo[: max_runs - len(progress.runs)]
            progress.stopped = f"{max_runs} runs were allowed"
        if max_seconds is not None and progress.runs and time.monotonic() - started > max_seconds:
            progress.stopped = f"{max_seconds:g} seconds were allowed"
            break
        # time is checked between batches: with a limit, a batch is what the workers do at once
        batch = todo[: runner.n_workers] if max_seconds is not None else todo
        progress.runs |= runner.run(batch, largest=sizes[-1])
        progress.cost += sum(cost.compute(size) for _, size, _ in batch)
        todo = todo[len(batch) :]
        if not todo and not settings.grid and not progress.stopped:
            if runner.list_unfinished():
                progress.stopped = "which cells come next depends on those that could not be finished"
            else:
                todo = _choose_next_cells(progress, runner, cost)
    progress.stopped = progress.stopped or "every cell of the grid was run"
    runner.require_results()


def _choose_next_cells(progress: CurveProgress, runner: ExperimentRunner, cost: Cost) -> list[CellId]:
    """Return the next cells of the adaptive mode; none, and why, when it is time to stop."""
    useful: list[CellId] = []
    are_firm = []
    for method in progress.settings.methods:
        cells, is_done = _choose_cells(progress, runner, cost, method)
        useful += [(method, size, seed) for size, seed in cells]
        are_firm.append(is_done)
    payable = _take_payable(useful, SHARE_OF_GRID * progress.full_cost - progress.cost, cost)
    if useful and not payable:
        progress.stopped = f"the next cell would cost more than {SHARE_OF_GRID:.0%} of the full grid"
    elif not useful:
        progress.stopped = "the answer is firm" if all(are_firm) else "no further cell would narrow the answer much"
    return payable


def _choose_cells(
    progress: CurveProgress, runner: ExperimentRunner, cost: Cost, method: str
) -> tuple[list[tuple[int, int]], bool]:
    """Return the (size, seed) that would help a method's answer most, and whether it is firm."""
    runs, n_seeds = progress.runs, progress.settings.seeds
    counts = {size: sum((method, size, seed) in runs for seed in range(n_seeds)) for size in progress.sizes}
    fit = fit_runs(runs, method, is_higher_better=runner.experiment.metric.is_higher_better)
    if fit is None:  # cells failed, or there are few sizes
        return [(size, n) for size, n in counts.items() if n < n_seeds][:1], False
    delta, largest = progress.compute_delta(runner), progress.sizes[-1]
    if is_firm(fit, delta=delta, largest=largest):
        # a curve may be flat at first and rise later: no answer is firm before its end was measured
        return ([], True) if counts[largest] else ([(largest, 0)], False)
    rng = np.random.default_rng(len(runs))
    cells = propose_cells(fit, counts=counts, n_seeds=n_seeds, delta=delta, cost=cost, n=CELLS_AT_ONCE, rng=rng)
    return cells, False


def _take_payable(cells: Iterable[CellId], budget: float, cost: Cost) -> list[CellId]:
    payable = []
    for cell in cells:
        if cost.compute(cell[1]) <= budget:
            budget -= cost.compute(cell[1])
            payable.append(cell)
    return payable


def _choose_sizes(asked: Literal["auto"] | Sequence[int], experiment: Experiment) -> tuple[int, ...]:
    n_pool = len(experiment.pool)
    sizes = list_doubling_sizes(n_pool, n_classes=len(experiment.labels)) if asked == "auto" else sorted(set(asked))
    if sizes and sizes[-1] > n_pool:
        raise InputError(f"curve: sizes must be at most the {n_pool:,} rows of the pool, got {sizes[-1]:,}")
    if len(sizes) < MIN_SIZES:
        raise InputError(
            f"curve: at least {MIN_SIZES} sizes are needed to see a law, got {len(sizes)} ({sizes}); give more sizes"
        )
    return tuple(int(size) for size in sizes)


def _check_target(value: float, metric: Metric) -> None:
    if metric.is_higher_better and value > 1:
        raise SettingsError(f"curve: a target of {metric.name} must be in 0..1, got {value}")
