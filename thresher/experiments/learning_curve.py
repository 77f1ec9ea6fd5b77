"""The arrow to a curve: the same method at rising numbers of rows, until the answer is firm."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from thresher.errors import InputError, SettingsError
from thresher.evaluation.metric import Metric
from thresher.experiments.curve import (
    BASELINE,
    MIN_SEEDS,
    MIN_SIZES,
    CurvePlan,
    CurveProgress,
    LearningCurve,
    compute_delta,
)
from thresher.experiments.experiment import Experiment, Overlap
from thresher.experiments.planning import Cost, geometric_sizes, is_firm, propose, start
from thresher.experiments.rankings import check_methods
from thresher.experiments.runner import ExperimentRunner
from thresher.trainer.settings import TrainSettings

if TYPE_CHECKING:
    from thresher.features import Progress

SHARE_OF_GRID = 0.4  # of the full grid's cost that the adaptive mode spends at most, beyond its first cells
CELLS_AT_ONCE = 2  # of each method; not the number of workers, on which no result may depend
DEFAULTS = TrainSettings()


def learning_curve(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    methods: str | Sequence[str] = (BASELINE, "facility-location"),
    sizes: Literal["auto"] | Sequence[int] = "auto",
    seeds: int = 5,
    grid: bool = False,
    model: str | Path | None = None,
    metric: str | None = None,
    delta: float | None = None,
    equal: Literal["epochs", "steps"] = "epochs",
    max_time: float | None = None,
    max_runs: int | None = None,
    targets: Sequence[float] = (),
    more: Sequence[int] = (),
    settings: TrainSettings = DEFAULTS,
    method_settings: Mapping[str, Mapping[str, Any]] | None = None,
    encoder: str | None = None,
    device: str | None = None,
    slices: Sequence[str] = (),
    overlap: Overlap = "refuse",
    workers: int | None = 1,
    engine: str = "local",
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> LearningCurve:
    """Measure how the score rises with the number of rows, and from where on more rows stop paying.

    Every cell is kept: a killed call continues with the cell it was at, and cells that any earlier
    command has run on the same rows with the same settings are not run again.

    Args:
        pool: rows to choose from, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out ("10%").
        methods: names of selectors, as a list or with commas; random is always among them.
        sizes: numbers of rows, or "auto": doubling up to the whole pool.
        seeds: runs at each size; in the adaptive mode, at most.
        grid: run every size with every seed. Otherwise (adaptive) the small sizes come first, and
            then the cell that narrows the answer most for its cost, until the answer is firm or 40
            % of the grid's cost is spent (the first cells, four sizes with two seeds, are run in
            any case).
        model: Hub id or folder of the base model; not set: the embedded one.
        metric: accuracy, macro_f1 or loss; loss, exact_match, rouge_l or chrf for language models.
        delta: gain of a doubling that no longer pays, in units of the metric; not set: the larger
            of 0.005 and one standard error of the metric at the largest size.
        equal: "epochs": every size is passed over equally often; "steps": every size gets as many
            optimizer steps as the largest one needs.
        max_time: seconds after which no cell is begun.
        max_runs: most cells.
        targets: values of the metric to find the needed rows for.
        more: numbers of further rows, on top of the largest size, to find the gain of.
        settings: of the training.
        method_settings: of the selectors, by name.
        encoder: as for `select`.
        device: as for `select`.
        slices: columns of the test set to draw curves for, beside the label.
        overlap: a test row that is also in the pool is refused ("refuse"), or taken out of the pool
            ("drop").
        workers: processes that run cells at once; None for one per core or GPU.
        engine: "local", or "ray" for a Ray cluster.
        out: folder for the result; cells are kept in the cache either way.
        force: replace an earlier result in `out`.
        on_progress: listener.

    Raises:
        InputError: pool, test set, sizes or methods do not fit.
        NotFoundError: there is no such method, metric or model.
        SettingsError: a setting has an illegal value.
        OutputError: `out` holds something else.
    """
    from thresher.experiments.curve_io import write_curve
    from thresher.experiments.tables import check_slices

    names = _methods(methods)
    check_methods(names, method_settings or {}, "curve")
    with ExperimentRunner.open(
        pool,
        eval=eval,
        model=model,
        metric=metric,
        settings=settings,
        overlap=overlap,
        method_settings=method_settings,
        select_options={"encoder": encoder, "device": device},
        workers=workers,
        engine=engine,
        on_progress=on_progress,
    ) as runner:
        plan = CurvePlan(
            methods=names,
            sizes=_sizes(sizes, runner.experiment),
            n_seeds=_at_least(seeds, MIN_SEEDS, "seeds", "the spread between seeds is the error bar"),
            delta=None if delta is None else _positive(delta, "delta"),
            is_grid=grid,
            max_runs=None if max_runs is None else _at_least(max_runs, 1, "max_runs", "nothing would run"),
            max_seconds=None if max_time is None else _positive(max_time, "max_time"),
            targets=tuple(_target(target, runner.experiment.metric) for target in targets),
            more=tuple(_at_least(rows, 1, "more", "rows are whole") for rows in more),
        )
        if equal not in ("epochs", "steps"):
            raise SettingsError(f"curve: equal must be 'epochs' or 'steps', got '{equal}'")
        check_slices(runner, slices)
        if equal == "steps":
            runner.set_equal_steps(plan.sizes[-1])
        asked = {"plan": vars(plan) | {"equal": equal}, "slices": list(slices)}
        return write_curve(runner, asked, lambda: run_plan(plan, runner), out=out, force=force, slices=slices)


def run_plan(plan: CurvePlan, runner: ExperimentRunner) -> CurveProgress:
    """Run the cells of a plan, all of them or those that it takes."""
    cost, began = runner.cost(), time.monotonic()
    full_cost = len(plan.methods) * plan.n_seeds * sum(cost.of(size) for size in plan.sizes)
    state = CurveProgress(plan=plan, full_cost=full_cost)
    grid = [(size, seed) for seed in range(plan.n_seeds) for size in plan.sizes]
    first = grid if plan.is_grid else start(plan.sizes, plan.n_seeds)
    todo = [(method, size, seed) for size, seed in first for method in plan.methods]
    while todo:
        if plan.max_runs is not None and len(state.runs) + len(todo) > plan.max_runs:
            todo = todo[: plan.max_runs - len(state.runs)]
            state.stopped = f"{plan.max_runs} runs were allowed"
        if plan.max_seconds is not None and state.runs and time.monotonic() - began > plan.max_seconds:
            state.stopped = f"{plan.max_seconds:g} seconds were allowed"
            break
        batch = todo[: runner.n_workers] if plan.max_seconds is not None else todo
        state.runs |= runner.run(batch, largest=plan.sizes[-1])
        state.cost += sum(cost.of(size) for _, size, _ in batch)
        todo = todo[len(batch) :]
        if not todo and not plan.is_grid and not state.stopped:
            todo = _next(plan, runner, state, cost)
    state.stopped = state.stopped or "every cell of the grid was run"
    runner.require_results()
    return state


def _next(plan: CurvePlan, runner: ExperimentRunner, state: CurveProgress, cost: Cost) -> list[tuple[str, int, int]]:
    """Return the next cells of the adaptive mode; none, and why, when it is time to stop."""
    wanted, are_firm = [], []
    for method in plan.methods:
        cells, is_done = _wanted(plan, runner, state, cost, method)
        wanted += [(method, size, seed) for size, seed in cells]
        are_firm.append(is_done)
    payable = _within(wanted, SHARE_OF_GRID * state.full_cost - state.cost, cost)
    if wanted and not payable:
        state.stopped = f"the next cell would cost more than {SHARE_OF_GRID:.0%} of the full grid"
    elif not wanted:
        state.stopped = "the answer is firm" if all(are_firm) else "no further cell would narrow the answer much"
    return payable


def _wanted(
    plan: CurvePlan, runner: ExperimentRunner, state: CurveProgress, cost: Cost, method: str
) -> tuple[list[tuple[int, int]], bool]:
    """Return the cells that would help a method's answer most, as (size, seed), and whether the answer is firm."""
    done = {size: sum((method, size, seed) in state.runs for seed in range(plan.n_seeds)) for size in plan.sizes}
    fit = state.fit(method, is_higher_better=runner.experiment.metric.is_higher_better)
    if fit is None:  # cells failed, or there are few sizes
        return [(size, n) for size, n in done.items() if n < plan.n_seeds][:1], False
    delta, largest = compute_delta(plan, runner, state), plan.sizes[-1]
    if is_firm(fit, delta=delta, largest=largest):
        # a curve may be flat at first and rise later: the end is looked at before it is foretold
        return ([], True) if done[largest] else ([(largest, 0)], False)
    rng = np.random.default_rng(len(state.runs))
    cells = propose(fit, counts=done, n_seeds=plan.n_seeds, delta=delta, cost=cost, n=CELLS_AT_ONCE, rng=rng)
    return cells, False


def _within(cells: Iterable[tuple[str, int, int]], room: float, cost: Cost) -> list[tuple[str, int, int]]:
    payable = []
    for cell in cells:
        if cost.of(cell[1]) <= room:
            room -= cost.of(cell[1])
            payable.append(cell)
    return payable


def _methods(methods: str | Sequence[str]) -> tuple[str, ...]:
    names = methods.split(",") if isinstance(methods, str) else list(methods)
    names = [name.strip() for name in names if name.strip()]
    if not names:
        raise InputError("curve: at least one method is needed, got none")
    return tuple(dict.fromkeys([BASELINE, *names]))


def _sizes(sizes: str | Sequence[int], experiment: Experiment) -> tuple[int, ...]:
    n_pool = len(experiment.pool)
    if isinstance(sizes, str):
        if sizes != "auto":
            raise SettingsError(f"curve: sizes must be 'auto' or numbers of rows, got '{sizes}'")
        found = geometric_sizes(n_pool, n_classes=len(experiment.labels))
    else:
        found = sorted(set(sizes))
    if any(isinstance(size, bool) or size != int(size) or size < 1 for size in found):
        raise SettingsError(f"curve: sizes must be whole numbers from 1, got {found}")
    if found and found[-1] > n_pool:
        raise InputError(f"curve: sizes must be at most the {n_pool:,} rows of the pool, got {found[-1]:,}")
    if len(found) < MIN_SIZES:
        raise InputError(
            f"curve: at least {MIN_SIZES} sizes are needed to see a law, got {len(found)} ({found}); give more sizes"
        )
    return tuple(int(size) for size in found)


def _at_least(value: int, least: int, name: str, why: str) -> int:
    if isinstance(value, bool) or value != int(value) or value < least:
        raise SettingsError(f"curve: {name} must be a whole number of at least {least} ({why}), got {value}")
    return int(value)


def _target(value: float, metric: Metric) -> float:
    if not (0 < value < float("inf")) or (metric.is_higher_better and value > 1):
        legal = "in 0..1" if metric.is_higher_better else "above 0"
        raise SettingsError(f"curve: a target of {metric.name} must be {legal}, got {value}")
    return float(value)


def _positive(value: float, name: str) -> float:
    if not 0 < value < float("inf"):
        raise SettingsError(f"curve: {name} must be above 0, got {value}")
    return float(value)
