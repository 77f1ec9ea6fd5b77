"""The arrow to a curve: the same method at rising numbers of rows, until the answer is firm."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Any, Unpack

import numpy as np

from thresher.errors import InputError
from thresher.evaluation.metric import RATES
from thresher.experiments.curve import MIN_SEEDS, MIN_SIZES, CurveProgress, LearningCurve, fit_method
from thresher.experiments.curve_io import write_curve
from thresher.experiments.design.group_axis import GroupAxis
from thresher.experiments.design.variants import list_variants
from thresher.experiments.experiment import Experiment, load_experiment
from thresher.experiments.own.fit_points import check_only_points, fit_points
from thresher.experiments.own.method_file import list_methods
from thresher.experiments.planning import (
    MIN_CELLS,
    Cost,
    check_rates,
    choose_curve_methods,
    is_firm,
    list_doubling_sizes,
    list_first_cells,
    propose_cells,
)
from thresher.experiments.rankings import check_methods, name_methods
from thresher.experiments.runner import CellId, ExperimentRunner
from thresher.experiments.settings import CurveOptions, CurveSettings
from thresher.experiments.tables import check_slices
from thresher.progress import OnProgress
from thresher.validation import build_settings, document_options

SHARE_OF_GRID = 0.4  # of the full grid's cost, at most spent by the adaptive mode after its start
CELLS_AT_ONCE = 2  # of each method; not the number of workers, on which no result may depend


@document_options(CurveSettings)
def learning_curve(
    pool: Any = None,
    *,
    eval: Any = None,  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[CurveOptions],
) -> LearningCurve:
    """Measure how the score changes with the number of rows, and how many are enough.

    Every cell is cached: a killed call resumes with the unfinished cell, and cells that an earlier
    command ran on the same rows with the same settings are reused. Where the machine ended cells
    however often they were tried, as when memory runs out, they are listed in
    `content["unfinished"]`, and the same call completes the result.

    Without `grid`, four sizes up to the whole pool come first, and then the cell that narrows the
    answer most for its cost, until the answer is firm or 40 % of the grid's cost is spent (the
    first cells are run in any case).

    With `points`, a table of scores that were measured elsewhere, nothing is trained, and the laws
    and answers are of these.

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
    if settings.points is not None:
        check_only_points(settings, {"pool": pool, "eval": eval})
        return fit_points(settings)
    if pool is None or eval is None:
        raise InputError("curve: needs rows to choose from and --eval to measure on, or measured scores by --from")
    methods = None if settings.methods is None else list_methods(settings.methods, "curve")
    if methods is not None:  # before anything is read
        check_methods(methods, settings.method_settings or {}, "curve", selectors)
    experiment = load_experiment(pool, eval=eval, settings=settings, on_progress=on_progress)
    if methods is None:
        methods = choose_curve_methods(settings, experiment.pool.kind)
        check_methods(methods, settings.method_settings or {}, "curve", selectors)
    with ExperimentRunner.open(experiment, settings, on_progress) as runner:
        runner.rankings.selectors = selectors
        # a metric of the user's own has any values
        if (metric := runner.experiment.metric.name) in RATES:
            check_rates(settings, metric)
        if settings.axis is not None:
            runner.axis = GroupAxis.read(runner.experiment.pool, settings.axis, settings.max_rows)
        sizes = choose_sizes(settings, runner.experiment) if runner.axis is None else runner.axis.list_sizes()
        if settings.ranks or settings.models:
            runner.variants = {each.label: each for each in list_variants(settings, runner.experiment, methods)}
            methods = list(runner.variants)
        progress = CurveProgress(settings=settings, methods=tuple(methods), sizes=sizes)
        check_slices(runner, settings.slices)
        if settings.equal == "steps":
            runner.set_equal_steps(sizes[-1] if runner.axis is None else runner.axis.n_rows)
        return write_curve(runner, progress, run_cells)


def run_cells(progress: CurveProgress, runner: ExperimentRunner) -> None:
    """Run the cells of a curve, all of them or those that it takes."""
    cost, started, settings, sizes = runner.compute_cost(), time.monotonic(), progress.settings, progress.sizes
    n_seeds, max_runs, max_seconds = settings.seeds, settings.max_runs, settings.max_seconds
    grid = [(size, seed) for seed in range(n_seeds) for size in sizes]
    every_cell = [(method, *cell) for cell in grid for method in progress.methods]
    progress.full_cost = _sum_costs(every_cell, cost, runner)
    first = grid if settings.grid else list_first_cells(sizes, n_seeds)
    todo = [(method, size, seed) for size, seed in first for method in progress.methods]
    if not settings.grid:
        todo = keep_payable(todo, MIN_CELLS * len(progress.methods), progress, runner, cost)
    while todo:
        if max_runs is not None and len(progress.runs) + len(todo) > max_runs:
            todo = todo[: max_runs - len(progress.runs)]
            progress.stopped = f"{max_runs} runs were allowed"
        if max_seconds is not None and progress.runs:
            if time.monotonic() - started > max_seconds:
                progress.stopped = f"{max_seconds:g} seconds were allowed"
                progress.is_cut_short = True
                break
            todo = _leave_out_costly_sizes(todo, progress, runner, cost, max_seconds + started - time.monotonic())
        # time is checked between batches: with a limit, a batch is what the workers do at once
        batch = todo[: runner.n_workers] if max_seconds is not None else todo
        progress.runs |= runner.run(batch, largest=sizes[-1])
        progress.cost = _sum_costs(progress.runs, cost, runner)
        todo = todo[len(batch) :]
        if not todo and not settings.grid and not progress.stopped:
            if runner.list_unfinished():
                progress.stopped = "which cells come next depends on those that could not be finished"
            else:
                todo = _choose_next_cells(progress, runner, cost)
    progress.stopped = progress.stopped or "every cell of the grid was run"
    runner.require_results()


def keep_payable(
    cells: list[CellId], n_least: int, progress: CurveProgress, runner: ExperimentRunner, cost: Cost
) -> list[CellId]:
    """Return the first cells that the adaptive mode may spend, but no fewer than an answer takes.

    A grid of few sizes and seeds has hardly more cells than that.
    """
    n_kept = len(cells)
    while n_kept > n_least and _sum_costs(cells[:n_kept], cost, runner) > SHARE_OF_GRID * progress.full_cost:
        n_kept -= 1
    return cells[:n_kept]


def _sum_costs(cells: Iterable[CellId], cost: Cost, runner: ExperimentRunner) -> float:
    """Return what cells cost; one that trains on the whole pool is the same for all methods."""
    n_pool, values = len(runner.experiment.pool), {label: each.value for label, each in runner.variants.items()}
    distinct = {(values.get(method, "") if size == n_pool else method, size, seed) for method, size, seed in cells}
    return sum(cost.compute(size) for _, size, _ in distinct)


def _leave_out_costly_sizes(
    todo: list[CellId], progress: CurveProgress, runner: ExperimentRunner, cost: Cost, seconds_left: float
) -> list[CellId]:
    """Return the next cells without sizes of which one run would take longer than there is time.

    Seconds are those of the cells so far, in proportion to the rows that pass through the model.
    The answer is then about the largest size that is left.
    """
    done = [name for name, outcome in runner.outcomes.items() if "train_seconds" in outcome.facts]
    spent = sum(runner.outcomes[name].facts["train_seconds"] for name in done)
    rate = spent / sum(cost.compute(size) for _, size, _ in done) if done else 0.0
    measured = {size for _, size, _ in progress.runs}
    while (largest := progress.sizes[-1]) not in measured and len(progress.sizes) > MIN_SIZES:
        if rate * cost.compute(largest) <= seconds_left:
            break
        smaller = progress.sizes[-2]
        progress.sizes, progress.is_cut_short = progress.sizes[:-1], True
        todo = list(dict.fromkeys((method, min(size, smaller), seed) for method, size, seed in todo))
    return [cell for cell in todo if cell not in progress.runs]


def _choose_next_cells(progress: CurveProgress, runner: ExperimentRunner, cost: Cost) -> list[CellId]:
    """Return the next cells of the adaptive mode; none, and why, when it is time to stop."""
    useful: list[CellId] = []
    are_firm = []
    for method in progress.methods:
        cells, is_done = _choose_cells(progress, runner, cost, method)
        useful += [(method, size, seed) for size, seed in cells]
        are_firm.append(is_done)
    payable = _take_payable(useful, progress, runner, cost)
    if useful and not payable:
        progress.stopped = f"the next cell would cost more than {SHARE_OF_GRID:.0%} of the full grid"
    elif not useful:
        progress.stopped = "the answer is firm" if all(are_firm) else "no further cell would narrow the answer much"
    return payable


def _choose_cells(
    progress: CurveProgress, runner: ExperimentRunner, cost: Cost, method: str
) -> tuple[list[tuple[int, int]], bool]:
    """Return the (size, seed) that would help a method's answer most, and whether it is firm."""
    runs, n_seeds, largest = progress.runs, progress.settings.seeds, progress.sizes[-1]
    counts = {size: sum((method, size, seed) in runs for seed in range(n_seeds)) for size in progress.sizes}
    fit = fit_method(runner, progress, method)
    if fit is None:  # cells failed, or there are few sizes
        return [(size, n) for size, n in counts.items() if n < n_seeds][:1], False
    within = progress.settings.tolerance.resolve(fit)
    if is_firm(fit, within=within, largest=largest):
        # all sizes are compared with the largest one, of which one run may have been bad luck
        return ([], True) if counts[largest] >= MIN_SEEDS else ([(largest, counts[largest])], False)
    rng = np.random.default_rng(len(runs))
    cells = propose_cells(fit, counts=counts, n_seeds=n_seeds, within=within, cost=cost, n=CELLS_AT_ONCE, rng=rng)
    return cells, False


def _take_payable(
    cells: Sequence[CellId], progress: CurveProgress, runner: ExperimentRunner, cost: Cost
) -> list[CellId]:
    payable: list[CellId] = []
    for cell in cells:
        if _sum_costs([*progress.runs, *payable, cell], cost, runner) <= SHARE_OF_GRID * progress.full_cost:
            payable.append(cell)
    return payable


def choose_sizes(settings: CurveSettings, experiment: Experiment) -> tuple[int, ...]:
    """Return the sizes, rising: the largest one is the whole pool, or what may be run of it."""
    n_pool = len(experiment.pool)
    most = min(n_pool, settings.max_rows or n_pool)
    if settings.sizes == "auto":
        sizes = list_doubling_sizes(most, n_classes=len(experiment.labels))
    else:
        sizes = sorted({*settings.sizes, most})
        if sizes[-1] > most:
            limit = f"the {n_pool:,} rows of the pool" if most == n_pool else f"max_rows ({most:,})"
            raise InputError(f"curve: sizes must be at most {limit}, got {sizes[-1]:,}")
    if len(sizes) < MIN_SIZES:
        raise InputError(
            f"curve: at least {MIN_SIZES} sizes are needed to see a law, got {len(sizes)} ({sizes}); give more sizes"
        )
    return tuple(int(size) for size in sizes)
