"""All that a call of `train` measures of the model before it is trained."""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from thresher.trainer.context import RunContext
from thresher.trainer.engine.fit import build_model
from thresher.trainer.events import TrainEvent
from thresher.trainer.held_out import prepare_held_out
from thresher.trainer.untouched.forgetting import GeneralOutcomes, measure_general_base
from thresher.trainer.untouched.general import GeneralSet, prepare_general
from thresher.trainer.untouched.row_zero import BaseOutcomes, measure_base


@dataclass(frozen=True)
class UntouchedOutcomes:
    """What the untouched model does.

    Attributes:
        base: on the held-out rows, by rising number of rows in the prompt.
        general: the rows that are not of the task, or None.
        on_general: what it does on them.
        start: what the adapter that training continues does on the held-out rows, or None.
    """

    base: list[BaseOutcomes]
    general: GeneralSet | None
    on_general: GeneralOutcomes | None
    start: pl.DataFrame | None


def measure_untouched(context: RunContext) -> UntouchedOutcomes:
    """Measure the untouched model, on all processes, or read what was measured before."""
    general = prepare_general(context, has_answers=True)
    on_general = None if general is None else measure_general_base(context, general)
    return UntouchedOutcomes(measure_base(context), general, on_general, _measure_start(context))


def _measure_start(context: RunContext) -> pl.DataFrame | None:
    """Measure the adapter that training continues, or return None."""
    held_out = None if context.start is None else prepare_held_out(context)
    if held_out is None or not context.untouched.prompts:
        return None
    outcomes = held_out.measure_all(build_model(context, seed=context.seeds[0]).eval())
    if context.accelerator.is_main_process:
        context.on_event(TrainEvent(kind="note", message="measured the adapter as it was"))
    return outcomes
