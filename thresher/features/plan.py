"""What computing features of rows will take: `--dry-run` of the commands that choose nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from thresher.features.compute import COLUMN, NUMBER
from thresher.features.cost import estimate, estimate_steps
from thresher.features.registry import load_provider
from thresher.models.server_address import ServerAddress, is_server
from thresher.numeric.memory import get_peak_bytes
from thresher.numeric.units import format_bytes, format_duration
from thresher.printable import join_lines
from thresher.progress import Progress

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features.context import FeatureContext
    from thresher.models.stages import StageCost

UNNAMED = "model"  # the server's only model, since the server is not asked for its name
MEASURED = "measured on a few batches of these rows on this machine; nothing was written"


@dataclass(frozen=True, kw_only=True)
class FeaturesPlan:
    """What computing features will take. `str` of it is the whole account.

    Attributes:
        n_rows: rows.
        stages: steps, in their order.
        memory_bytes: this process's peak while a few batches ran, and the values of all rows.
        disk_bytes: that the values will take in the cache.
    """

    n_rows: int
    stages: tuple[StageCost, ...]
    memory_bytes: int
    disk_bytes: int

    @property
    def seconds(self) -> float | None:
        """Estimated time; None where a part of it cannot be measured."""
        known = [stage.seconds for stage in self.stages if stage.seconds is not None]
        return sum(known) if len(known) == len(self.stages) else None

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {**asdict(self), "seconds": self.seconds}

    def __str__(self) -> str:
        """Return the account, in a few lines."""
        total = "not known" if self.seconds is None else format_duration(self.seconds)
        memory, disk = format_bytes(self.memory_bytes), format_bytes(self.disk_bytes)
        lines = [f"{self.n_rows:,} rows", *(f"  {format_stage(stage)}" for stage in self.stages)]
        return join_lines([*lines, f"total: {total}; {memory} of memory, {disk} of disk", MEASURED])


def plan_features(rows: Dataset, names: Iterable[str], context: FeatureContext) -> FeaturesPlan:
    """Estimate what features take; what the cache holds costs nothing, and a server is not asked.

    Args:
        rows: at least one.
        names: of the features.
        context: models, device and cache.
    """
    shown = [name for name in names if not name.startswith((COLUMN, NUMBER))]
    stages: list[StageCost] = []
    for number, name in enumerate(shown, start=1):
        stages += estimate(load_provider(name), rows, name_server_model(context))
        if context.on_progress is not None:
            context.on_progress(Progress(stage="dry run", done=number, total=len(shown)))
    values = sum(stage.bytes * stage.n // max(stage.n_to_do, 1) for stage in stages)
    return FeaturesPlan(
        n_rows=len(rows),
        stages=tuple(stages),
        memory_bytes=get_peak_bytes() + values,
        disk_bytes=sum(stage.bytes for stage in stages),
    )


def plan_stages(run: Callable[[FeatureContext], object], n_rows: int, context: FeatureContext) -> FeaturesPlan:
    """Estimate what a computation takes; what the cache holds costs nothing, no server is asked.

    Args:
        run: computes in the context that it is given, with values that mean nothing.
        n_rows: of the user.
        context: models, device and cache.
    """
    stages = estimate_steps(run, name_server_model(context))
    return FeaturesPlan(
        n_rows=n_rows,
        stages=tuple(stages),
        memory_bytes=get_peak_bytes(),
        disk_bytes=sum(stage.bytes for stage in stages),
    )


def name_server_model(context: FeatureContext) -> FeatureContext:
    """Return a context whose server's model has a name, so that the server is not asked for it."""
    model = context.models.model
    if is_server(model) and ServerAddress.parse(str(model)).model is None:
        return replace(context, models=replace(context.models, model=f"{str(model).rstrip('#')}#{UNNAMED}"))
    return context


def format_stage(stage: StageCost) -> str:
    """Return a step in one line: entries, what is cached, tokens and time."""
    done = f", {stage.n_cached:,} of them cached" if stage.n_cached else ""
    tokens = f", {stage.tokens:,} tokens" if stage.tokens else ""
    time = "time not known" if stage.seconds is None else format_duration(stage.seconds)
    note = f" ({stage.note})" if stage.note else ""
    return f"{stage.stage}: {stage.n:,} entries{done}{tokens}: {time}{note}"
