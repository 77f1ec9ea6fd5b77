"""Estimate what a selection will take: `plan`, and `thresher select --dry-run`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Unpack

from thresher.dataset.values.given_settings import GivenSettings
from thresher.features.plan import MEASURED, format_stage, name_server_model
from thresher.models.settings import ModelSettings
from thresher.numeric.memory import get_peak_bytes
from thresher.numeric.units import format_bytes, format_duration
from thresher.printable import join_lines
from thresher.selection.pool_adapters import TrainingCost, estimate_training
from thresher.selection.request import Request, SelectCall, resolve_request
from thresher.selection.settings import SelectOptions, SelectSettings
from thresher.selectors import Selector
from thresher.validation import document_options

if TYPE_CHECKING:
    from thresher.features import Progress
    from thresher.models.stages import StageCost


@dataclass(frozen=True, kw_only=True)
class Plan:
    """The estimated cost of a selection. `str` of it is the full report.

    Attributes:
        method: name of the selector.
        n_rows: rows of the pool.
        n_tokens: tokens of their texts, by the tokenizer that counts lengths.
        n_kept: rows that the budget keeps at the most; None for a threshold.
        training: adapters to train first.
        stages: steps of computing the features, in their order.
        memory_bytes: this process's peak while batches of every size ran, and on top the features
            of all rows and the pairs of rows that the method holds.
        disk_bytes: that adapters and features will take in the cache.
        cost: the method's own estimate.
    """

    method: str
    n_rows: int
    n_tokens: int
    n_kept: int | None
    training: tuple[TrainingCost, ...]
    stages: tuple[StageCost, ...]
    memory_bytes: int
    disk_bytes: int
    cost: str

    @property
    def seconds(self) -> float | None:
        """Estimated time of training and features; None where a part of it cannot be measured."""
        parts = [*(cost.seconds for cost in self.training), *(stage.seconds for stage in self.stages)]
        known = [part for part in parts if part is not None]
        return sum(known) if len(known) == len(parts) else None

    @property
    def model_tokens(self) -> int:
        """Estimated tokens that language models read, in all passes over a row."""
        return sum(cost.tokens for cost in self.training) + sum(stage.tokens or 0 for stage in self.stages)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        from dataclasses import asdict

        return {**asdict(self), "seconds": self.seconds, "model_tokens": self.model_tokens}

    def __str__(self) -> str:
        """Return the account, in a few lines."""
        kept = "rows above the threshold" if self.n_kept is None else f"{self.n_kept:,} rows"
        lines = [f"{self.method}: {kept} of {self.n_rows:,}, which hold {self.n_tokens:,} tokens"]
        lines += [f"  {cost}" for cost in self.training]
        lines += [f"  {format_stage(stage)}" for stage in self.stages]
        total = "not known" if self.seconds is None else format_duration(self.seconds)
        read = f", {self.model_tokens:,} tokens through the model" if self.model_tokens else ""
        memory, disk = format_bytes(self.memory_bytes), format_bytes(self.disk_bytes)
        lines.append(f"total: {total}{read}; {memory} of memory, {disk} of disk")
        if self.cost:
            lines.append(f"the method's own estimate: {self.cost}")
        lines.append(MEASURED)
        return join_lines(lines)


@document_options(SelectSettings, GivenSettings, ModelSettings)
def plan(
    pool: Any,
    method: str | Selector = "auto",
    *,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Unpack[SelectOptions],
) -> Plan:
    """Estimate the cost of `select` with the same arguments; nothing is written.

    A few batches of the rows are run, and a few steps of training where a method trains adapters;
    models are loaded for that (and downloaded, where they are on the Hub and not here yet). What
    the cache holds costs nothing. A server is not asked.

    Args:
        pool: as for `select`.
        method: as for `select`.
        on_progress: called with a Progress as each part has been measured.
        **options: fields of `SelectSettings` (`budget` is required), `GivenSettings` and
            `ModelSettings`.
    """
    request = resolve_request(SelectCall.of_options(pool, method, options, on_progress))
    lengths = _count_tokens(request)
    budget = request.budget
    training = tuple(estimate_training(planned) for planned in request.planned_adapters)
    stages = tuple(_estimate_stages(request, on_progress))
    values = sum(stage.bytes * stage.n // max(stage.n_to_do, 1) for stage in stages)
    return Plan(
        method=request.selector.name,
        n_rows=len(request.pool),
        n_tokens=int(lengths.sum()),
        n_kept=None if budget.unit == "threshold" else budget.n_rows(len(request.pool), lengths),
        training=training,
        stages=stages,
        memory_bytes=get_peak_bytes() + values + _estimate_pair_bytes(request),
        disk_bytes=sum(cost.bytes for cost in training) + sum(stage.bytes for stage in stages),
        cost=describe_cost(request.selector),
    )


def _estimate_pair_bytes(request: Request) -> int:
    """Return the bytes of pairs of embeddings that the method will hold; 0 where it holds none.

    Raises:
        InputError: it does not fit into memory.
    """
    if "embedding" not in request.needs:
        return 0
    context, pool = request.context, request.pool
    return request.selector.estimate_memory(len(pool), pool.texts().n_unique(), context.load_encoder().dimension)


def _count_tokens(request: Request) -> Any:
    """Return the tokens of each row, (n,): counted and not estimated, as no model is needed."""
    from thresher.features import compute

    return compute(request.pool, {"length"}, replace(request.context, cache=None, on_progress=None))["length"]


def _estimate_stages(request: Request, on_progress: Callable[[Progress], None] | None) -> list[StageCost]:
    """Estimate every feature of the pool and of the rows beside it."""
    from thresher.features import Progress
    from thresher.features.compute import COLUMN, NUMBER

    features: list[tuple[str, str, Any, Any]] = [("", name, request.pool, None) for name in sorted(request.needs)]
    for role, rows in request.others.items():
        names = sorted(request.selector.requirements.side_features[role])
        features += [(f"{role}: ", name, rows, request.pool) for name in names]
    costs: list[StageCost] = []
    for number, (label, name, rows, pool) in enumerate(features, start=1):
        if not name.startswith((COLUMN, NUMBER)):
            costs += [
                replace(stage, stage=f"{label}{stage.stage}") for stage in _estimate_feature(name, rows, pool, request)
            ]
        if on_progress is not None:
            on_progress(Progress(stage="dry run", done=number, total=len(features)))
    return costs


def _estimate_feature(name: str, rows: Any, pool: Any, request: Request) -> list[StageCost]:
    from thresher.features.cost import estimate
    from thresher.features.registry import is_pairwise, load_provider

    provider, context = load_provider(name), name_server_model(request.context)
    if pool is not None and is_pairwise(name):
        return estimate(provider, pool, replace(context, examples=rows))
    return estimate(provider, rows, context)


def describe_cost(selector: Any) -> str:
    """Return what a selector's docstring says of its cost, in one line."""
    import inspect

    lines = (inspect.getdoc(type(selector)) or "").splitlines()
    start = next((i for i, line in enumerate(lines) if line.startswith("Cost: ")), None)
    if start is None:
        return ""
    sentence = [lines[start].removeprefix("Cost: ")]
    for line in lines[start + 1 :]:
        if not line.strip() or line.split(" ")[0].endswith(":"):
            break
        sentence.append(line.strip())
    return " ".join(sentence)
