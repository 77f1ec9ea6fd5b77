"""What `correct` will take, from a few answers and verdicts."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from thresher.curation.correction.call import plan_call
from thresher.curation.correction.correct import run_correction
from thresher.curation.correction.settings import CorrectOptions

if TYPE_CHECKING:
    from thresher.features.context import FeatureContext
    from thresher.features.plan import FeaturesPlan


def plan_correction(pool: Any, **options: Unpack[CorrectOptions]) -> FeaturesPlan:
    """Estimate what `correct` with the same arguments will take; nothing is written.

    Args:
        pool: as for `correct`.
        **options: as for `correct`.
    """
    from thresher.features.plan import name_server_model, plan_stages

    plan = plan_call(pool, **options)

    def run(context: FeatureContext) -> object:
        judge = context.with_models(model=name_server_model(plan.judge).models.model)
        return run_correction(replace(plan, writer=context, judge=judge), time.monotonic())

    return plan_stages(run, len(plan.pool), plan.writer)
