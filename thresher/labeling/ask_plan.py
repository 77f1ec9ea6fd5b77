"""What `label ask` will take, from a few batches."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Unpack

from thresher.features.cost import SERVER_NOTE
from thresher.features.plan import FeaturesPlan, name_server_model, plan_stages
from thresher.labeling.ask import AllAskOptions, plan_call
from thresher.labeling.scores import measure_disagreement
from thresher.models.server_address import is_server
from thresher.models.stages import StageCost

if TYPE_CHECKING:
    from thresher.features import FeatureContext


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
    rows, settings = plan.rows, plan.settings
    texts = rows.texts.frame["response"].gather(rows.open_rows).to_list()

    def run(context: FeatureContext) -> object:
        if settings.by == "disagree":
            measure_disagreement(texts, plan.classes, settings, context)
        return rows.embed(context)

    planned = plan_stages(run, len(rows.texts), name_server_model(plan.context.resolved()))
    others = []
    if settings.by == "change":
        others.append(_describe("predictions of the adapter", len(texts), settings.adapter))
    if settings.annotator is not None:
        n = min(settings.batch, len(texts))
        others.append(_describe("answers of the annotator", n, settings.annotator))
    return replace(planned, stages=(*planned.stages, *others))


def _describe(stage: str, n: int, model: str | None) -> StageCost:
    """Return a stage that a dry run does not time."""
    note = SERVER_NOTE if is_server(model) else "a dry run does not time it"
    return StageCost(stage=stage, n=n, n_cached=0, seconds=None, note=note)
