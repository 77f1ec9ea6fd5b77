"""What `advise` will take, step by step, before any of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from thresher.experiments.advice.advise import choose_method, take_options
from thresher.experiments.advice.pilot import plan_pilot
from thresher.experiments.advice.settings import AdviceSettings
from thresher.experiments.advice.steps import find_most_rows
from thresher.experiments.cells.worker_pool import count_workers
from thresher.experiments.curve import MIN_SIZES
from thresher.experiments.design.dry_run import measure_experiment, plan_base, plan_runs
from thresher.experiments.design.plans import plan_curve
from thresher.experiments.experiment import load_experiment
from thresher.experiments.planning import list_doubling_sizes
from thresher.experiments.settings import BASELINE
from thresher.trainer.context import load_rows
from thresher.trainer.estimate import UNTOUCHED, TrainingPlan
from thresher.validation import build_settings


def plan_advice(pool: Any, *, eval: Any, **options: Any) -> TrainingPlan:  # noqa: A002 - as `advise`
    """Estimate what `advise` with the same arguments will take, at most; nothing is written.

    Args:
        pool: as for `advise`.
        eval: as for `advise`.
        options: fields of `AdviceSettings`.
    """
    settings: AdviceSettings = build_settings(AdviceSettings, "advise", options)
    experiment = load_experiment(pool, eval=eval, settings=replace(settings, overlap="drop"))
    rows, cost = experiment.pool, measure_experiment(experiment)
    most = find_most_rows(settings, len(rows))
    largest = min(len(rows), most or len(rows))
    sizes = list_doubling_sizes(largest, n_classes=len(experiment.labels))
    has_curve = settings.curve and len(sizes) >= MIN_SIZES
    methods = tuple(dict.fromkeys([BASELINE, choose_method(experiment, settings)]))
    # rows in prompts are those of each size of the curve, and of the adapter
    parts = [plan_base(experiment, cost, n_subsets=1 + has_curve * len(methods) * len(sizes))]
    without_general = replace(cost, general_seconds=0.0)  # as the pilot and the curve are
    if settings.pilot != "none":
        target = None if settings.target is None else load_rows(settings.target)
        pilot = plan_pilot(rows, experiment, target=target, most=most)
        short = replace(experiment, settings=pilot.settings, test=pilot.judges)
        parts.append(plan_runs("pilot", short, without_general, [pilot.n_rows] * pilot.n_runs))
    if has_curve:
        plan = plan_curve(
            rows,
            eval=experiment.test,
            methods=methods,
            max_rows=largest if largest < len(rows) else None,
            seeds=settings.seeds,
            workers=settings.workers,
            **take_options(settings, experiment),
            base="none",  # counted above
        )
        parts += [replace(part, name=f"curve, {part.name}") for part in plan.parts if part.name != UNTOUCHED]
    training = plan_runs("adapter, and one on random rows, at most", experiment, cost, [largest] * 2)
    parts.append(replace(training, seconds=training.seconds + cost.general_answers_seconds))
    limit = "" if settings.max_time is None else f"--max-time {settings.max_time} leaves out what does not fit; "
    return TrainingPlan(
        parts=tuple(parts),
        n_workers=count_workers(settings.workers, settings.device),
        memory_bytes=cost.memory_bytes,
        note=f"{limit}the time of cleaning and choosing rows is not counted",
    )
