"""What `label ask` will take, from a few batches."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Unpack

from thresher.features.cost import SERVER_NOTE
from thresher.features.plan import FeaturesPlan, plan_stages
from thresher.labeling.ask import AllAskOptions, plan_call
from thresher.models.stages import StageCost


def plan_asking(
    pool: Any,
    *,
    labeled: Any = None,
    eval: Any = None,  # noqa: A002 - as `ask_labels`
    **options: Unpack[AllAskOptions],
) -> FeaturesPlan:
    """Estimate what `ask_labels` with the same arguments will take; nothing is written.

    Args:
        pool: as for `ask_labels`.
        labeled: as for `ask_labels`.
        eval: as for `ask_labels`.
        **options: as for `ask_labels`.
    """
    plan = plan_call(pool, labeled, eval, None, options)
    planned = plan_stages(plan.rows.embed, len(plan.rows.texts), plan.context.resolved())
    if plan.settings.annotator is None:
        return planned
    n = min(plan.settings.batch, len(plan.rows.open_rows))
    asked = StageCost(stage="answers of the annotator", n=n, n_cached=0, seconds=None, note=SERVER_NOTE)
    return replace(planned, stages=(*planned.stages, asked))
