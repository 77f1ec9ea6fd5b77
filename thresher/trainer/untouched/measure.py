"""All that a call of `train` measures of the untouched model."""

from __future__ import annotations

from dataclasses import dataclass

from thresher.trainer.context import RunContext
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
    """

    base: list[BaseOutcomes]
    general: GeneralSet | None
    on_general: GeneralOutcomes | None


def measure_untouched(context: RunContext) -> UntouchedOutcomes:
    """Measure the untouched model, on all processes, or read what was measured before."""
    general = prepare_general(context, has_answers=True)
    on_general = None if general is None else measure_general_base(context, general)
    return UntouchedOutcomes(measure_base(context), general, on_general)
