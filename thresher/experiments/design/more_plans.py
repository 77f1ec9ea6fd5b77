"""Plans of the commands that train cells of other kinds: mixes, base models, sources, advice."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import numpy as np

from thresher.experiments.bases.candidates import Candidate
from thresher.experiments.bases.rank import require_trainable
from thresher.experiments.bases.settings import BaseRankSettings
from thresher.experiments.bases.source_settings import SourceRankSettings
from thresher.experiments.bases.sources import count_more, load_candidates
from thresher.experiments.bases.transfer_settings import TransferSettings
from thresher.experiments.cells.worker_pool import count_workers
from thresher.experiments.design.dry_run import measure_experiment, plan_runs
from thresher.experiments.design.plans import CELLS_NOTE, plan_comparison
from thresher.experiments.experiment import Experiment, load_experiment
from thresher.experiments.mixing.mix import load_mix
from thresher.experiments.rankings import name_methods
from thresher.experiments.settings import ComparisonSettings, ExperimentSettings
from thresher.trainer.context import load_rows
from thresher.trainer.estimate import PlannedRuns, RunCost, TrainingPlan
from thresher.trainer.settings import TrainSettings
from thresher.validation import build_settings


def plan_mix(pool: Any, *, eval: Any, **options: Any) -> TrainingPlan:  # noqa: A002 - as `mix`
    """Estimate what `mix` with the same arguments will take; nothing is written.

    Args:
        pool: as for `mix`.
        eval: as for `mix`.
        options: fields of `MixSettings`.
    """
    settings, experiment, sources = load_mix(pool, eval=eval, **options)
    _, sizes = sources.plan(settings.mixes)
    cost = measure_experiment(experiment)
    parts = [plan_runs("mixes", experiment, cost, [int(size) for size in sizes])]
    if settings.seeds:
        ends = [sources.n_rows] * (2 * settings.seeds)
        parts.append(plan_runs("best and equal shares", experiment, cost, ends))
    return _build_plan(parts, settings, [cost], "runs that are kept from before cost nothing")


def _build_plan(
    parts: Sequence[PlannedRuns], settings: ExperimentSettings, costs: Sequence[RunCost], note: str
) -> TrainingPlan:
    return TrainingPlan(
        parts=tuple(parts),
        n_workers=count_workers(settings.workers, settings.device),
        memory_bytes=max((cost.memory_bytes for cost in costs), default=0),
        note=note,
    )


def plan_rank(pool: Any, *, eval: Any = "20%", **options: Any) -> TrainingPlan:  # noqa: A002 - as `rank_bases`
    """Estimate what `rank_bases` with the same arguments will take; nothing is written.

    Args:
        pool: as for `rank_bases`.
        eval: as for `rank_bases`.
        options: fields of `BaseRankSettings`; `models` is required.
    """
    settings: BaseRankSettings = build_settings(BaseRankSettings, "base rank", options)
    rows = load_rows(pool)
    settings = settings.choose_shots(rows.kind)
    candidates = [Candidate.find(name, rows.kind) for name in dict.fromkeys(settings.models)]
    trainable = require_trainable(candidates, settings.confirm)
    first = candidates[0].model if rows.kind != "classification" else None
    experiment = load_experiment(rows, eval=eval, settings=replace(settings, model=first))
    is_labels = rows.kind == "classification"
    n_read = min(settings.rows, len(experiment.pool if is_labels else experiment.test))
    parts, costs = [], {each.name: measure_experiment(replace(experiment, model=each.model)) for each in trainable}
    for name, cost in costs.items():
        n_answers = 0 if is_labels else min(experiment.resolve_settings().eval_generations, n_read)
        shots = (0,) if is_labels else settings.shots
        reading = sum(cost.estimate_measuring(n_read, n_answers, times=k + 1) for k in shots)
        seconds = cost.start_seconds + reading
        parts.append(PlannedRuns(name=f"{name} reads {n_read:,} rows", n=0, seconds=seconds, tokens=0))
    if settings.confirm:
        n_rows = min(settings.train_rows, len(experiment.pool))
        sizes = [n_rows] * settings.seeds
        runs = [plan_runs(name, replace(experiment, model=None), cost, sizes) for name, cost in costs.items()]
        runs = sorted(runs, key=lambda each: each.seconds)[-settings.confirm :]
        parts.append(_merge(f"the first {settings.confirm}, at most", runs))
    others = [each.name for each in candidates if not each.can_be_trained]
    note = f"the time of {' and '.join(others)} is not counted, and " if others else ""
    return _build_plan(parts, settings, list(costs.values()), f"{note}runs that are kept from before cost nothing")


def _merge(name: str, runs: Sequence[PlannedRuns]) -> PlannedRuns:
    return PlannedRuns(
        name=name,
        n=sum(each.n for each in runs),
        seconds=sum(each.seconds for each in runs),
        tokens=sum(each.tokens for each in runs),
    )


def plan_sources(pool: Any, *, eval: Any = "20%", **options: Any) -> TrainingPlan:  # noqa: A002 - as `rank_sources`
    """Estimate what `rank_sources` with the same arguments will take; nothing is written.

    Args:
        pool: as for `rank_sources`.
        eval: as for `rank_sources`.
        options: fields of `SourceRankSettings`; `candidates` is required.
    """
    settings: SourceRankSettings = build_settings(SourceRankSettings, "base sources", options)
    own = load_experiment(pool, eval=eval, settings=settings)
    sizes = sorted(map(len, load_candidates(settings.candidates, own).values()))[-settings.confirm :]
    if not settings.confirm:
        return _build_plan([], settings, [], "rows are compared in seconds, and nothing is trained")
    n_own, cost = min(settings.train_rows, len(own.pool)), measure_experiment(own)
    mixes = [n_own + count_more(share, n_own, size) for size in sizes for share in settings.shares]
    if settings.equal == "steps":
        own = _with_steps(own, max([n_own, *mixes]))
    most = max(settings.shares, default=0.5)
    firsts = [count_more(most, n_own, size) for size in sizes] if settings.before else []
    parts = [plan_runs("your rows alone", own, cost, [n_own] * settings.seeds)]
    parts.append(
        plan_runs(f"mixes with {len(sizes)} data set{'s' if len(sizes) > 1 else ''}", own, cost, mixes * settings.seeds)
    )
    if firsts:  # each is two runs, which together take the steps of a mix
        runs = plan_runs("the other data first", own, cost, [first + n_own for first in firsts] * settings.seeds)
        parts.append(replace(runs, n=2 * runs.n))
    note = "the time of comparing rows is not counted, and runs that are kept from before cost nothing"
    return _build_plan(parts, settings, [cost], note)


def _with_steps(experiment: Experiment, n_rows: int) -> Experiment:
    from thresher.trainer.engine.fit import count_steps

    context = experiment.build_context(experiment.pool.take(np.arange(1)), seed=0)
    return replace(experiment, n_equal_steps=count_steps(n_rows, context.settings))


def plan_transfer(pool: Any, *, eval: Any, **options: Any) -> TrainingPlan:  # noqa: A002 - as `transfer`
    """Estimate what `transfer` with the same arguments will take; nothing is written.

    Args:
        pool: as for `transfer`.
        eval: as for `transfer`.
        options: fields of `TransferSettings`; `models` is required.
    """
    named, _ = name_methods(options, "base transfer")
    settings: TransferSettings = build_settings(TransferSettings, "base transfer", named)
    rows = load_rows(pool)
    compared = {field.name: getattr(settings, field.name) for field in fields(ComparisonSettings)}
    compared |= {"methods": options.get("methods", settings.methods), "out": None, "force": False}
    parts, memory = [], 0
    for name in dict.fromkeys(settings.models):
        plan = plan_comparison(rows, eval=eval, **{**compared, "model": Candidate.find(name, rows.kind).model})
        parts += [replace(part, name=f"{name}, {part.name}") for part in plan.parts]
        memory = max(memory, plan.memory_bytes)
    return replace(_build_plan(parts, settings, [], CELLS_NOTE), memory_bytes=memory)


def plan_experts(
    data: Any,
    *,
    eval: Any,  # noqa: A002 - as `experts`
    model: Any = None,
    k: int,
    common: float,
    seeds: int,
    settings: TrainSettings,
    **_: Any,
) -> TrainingPlan:
    """Estimate what `experts` with the same arguments will take; nothing is written.

    Args:
        data: as for `experts`.
        eval: as for `experts`.
        model: as for `experts`.
        k: as for `experts`.
        common: as for `experts`.
        seeds: as for `experts`.
        settings: of the training.
    """
    from thresher.trainer.context import resolve_run
    from thresher.trainer.engine.fit import count_steps
    from thresher.trainer.estimate import measure_run

    context = resolve_run(data, model=model, settings=settings, seed=0, eval=eval)
    cost, n = measure_run(context), len(context.split.train)
    n_eval = 0 if context.split.held_out is None else len(context.split.held_out)
    whole = count_steps(n, context.settings)
    first = whole if k == 1 else max(1, round(common * whole))
    own = 0 if k == 1 else max(1, whole - first)

    def plan(name: str, n_runs: int, n_steps: int, n_rows: int) -> PlannedRuns:
        begins = n_runs * (cost.start_seconds + n_rows * cost.row_seconds)
        n_all = n_runs * n_steps * seeds
        # each held-out row by one adapter
        measuring = cost.estimate_measuring(n_eval, context.settings.eval_generations)
        seconds = seeds * (begins + measuring) + n_all * cost.step_seconds
        return PlannedRuns(name=name, n=n_runs * seeds, seconds=seconds, tokens=round(n_all * cost.step_tokens))

    parts = [plan("common part" if k > 1 else "one adapter", 1, first, n)]
    if k > 1:
        parts += [plan("experts", k, own, n // k), plan("random clusters", k, own, n // k)]
        parts.append(plan("one adapter", 1, own * k, n))
    note = "the time of dividing the rows is not counted"
    return TrainingPlan(parts=tuple(parts), n_workers=1, memory_bytes=cost.memory_bytes, note=note)
