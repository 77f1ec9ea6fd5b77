"""What a soup will take, from measuring one adapter on a few rows."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Unpack

from thresher.experiments.soups.inputs import load_call
from thresher.experiments.soups.settings import SoupOptions, SoupSettings
from thresher.numeric.memory import get_peak_bytes
from thresher.numeric.units import format_count
from thresher.trainer.context import RunContext
from thresher.trainer.estimate import PlannedRuns, TrainingPlan, time_measuring
from thresher.validation import build_settings


def plan_soup(
    adapters: Sequence[str | Path],
    *,
    dev: Any,
    eval: Any,  # noqa: A002 - as `soup`
    **options: Unpack[SoupOptions],
) -> TrainingPlan:
    """Estimate what `soup` with the same arguments will take at most; nothing is written.

    Args:
        adapters: as for `soup`.
        dev: as for `soup`.
        eval: as for `soup`.
        options: fields of `SoupSettings`.
    """
    settings = build_settings(SoupSettings, "soup", options)
    trained, contexts, _ = load_call(adapters, dev, eval, settings)
    start, measure = _measure_cost(contexts["dev"], trained[0].path)
    n_dev, n_test = (len(rows) for each in contexts.values() if (rows := each.split.held_out) is not None)
    n_soups = len(settings.ways) * (len(trained) - 1)  # each further adapter is tried once
    n_ends = 1 + len(settings.ways)  # on the test rows: the best adapter, and each soup

    def plan(name: str, n: int, n_rows: int) -> PlannedRuns:
        rows = format_count(n_rows, "row")
        return PlannedRuns(name=f"{name} on {rows}", n=0, seconds=n * (start + measure(n_rows)), tokens=0)

    return TrainingPlan(
        parts=(
            plan(f"{format_count(len(trained), 'adapter')} measured", len(trained), n_dev),
            plan(f"up to {format_count(n_soups, 'soup')} measured", n_soups, n_dev),
            plan(f"the best adapter and up to {format_count(n_ends - 1, 'soup')} measured", n_ends, n_test),
        ),
        n_workers=1,
        memory_bytes=get_peak_bytes(),
        note="the time to merge is not counted",
    )


def _measure_cost(context: RunContext, folder: Path) -> tuple[float, Callable[[int], float]]:
    """Return the seconds of loading an adapter, and of measuring rows by their number."""
    from thresher.trainer.engine.fit import load_trained_model

    seconds = []
    for _ in range(2):  # the first time imports
        began = time.perf_counter()
        model = load_trained_model(context, folder).to(context.accelerator.device)
        seconds.append(time.perf_counter() - began)
    cost, n_asked = time_measuring(context, model), context.settings.eval_generations

    def measure(n: int) -> float:
        return cost.estimate(n, n_asked if context.task == "sft" else 0)

    return seconds[-1], measure
