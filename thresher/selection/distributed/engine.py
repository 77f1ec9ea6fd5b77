"""Engines run the work of a stage on its shards. This module has the plainest: this process."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Protocol

from thresher.selection.distributed.stage import ModelWork, Record, Work, check_version, do, find_record

if TYPE_CHECKING:
    from thresher.progress import Progress


class Engine(Protocol):
    """Runs work on shards, anywhere. Both methods give the records in the order in which shards finish."""

    @property
    def name(self) -> str:
        """Name for manifests and people."""

    def map_shards(self, work: Work, numbers: Sequence[int]) -> Iterator[Record]:
        """Do shards with a plain function."""

    def map_shards_with_model(self, work: ModelWork, numbers: Sequence[int]) -> Iterator[Record]:
        """Do shards in processes that each load a model once."""


class InProcess:
    """Does one shard after the other in this process."""

    name = "in-process"

    def map_shards(self, work: Work, numbers: Sequence[int]) -> Iterator[Record]:
        """Do shards with a plain function."""
        for number in numbers:
            yield do(work, number)

    def map_shards_with_model(self, work: ModelWork, numbers: Sequence[int]) -> Iterator[Record]:
        """Do shards while the model is held."""
        held = work.hold()
        yield from self.map_shards(work, numbers)
        del held


def run_stage(
    engine: Engine,
    work: Work | ModelWork,
    numbers: Sequence[int],
    on_progress: Callable[[Progress], None] | None = None,
) -> list[Record]:
    """Do the shards of a stage that are not done yet, and return the records of all, in the order of the numbers.

    Args:
        engine: that runs them.
        work: of the stage.
        numbers: of its shards.
        on_progress: told of each shard that is done.
    """
    from thresher.progress import Progress

    found = {number: record for number in numbers if (record := find_record(work.folder, number)) is not None}
    n_found = len(found)
    todo = [number for number in numbers if number not in found]

    def tell() -> None:
        if on_progress is not None:
            on_progress(Progress(stage=work.name, done=len(found), total=len(numbers), n_cached=n_found))

    tell()
    if todo:
        work.folder.mkdir(parents=True, exist_ok=True)  # here alone: a node that shares no storage must notice
        if isinstance(work, ModelWork) and work.has_model:
            records = engine.map_shards_with_model(work, todo)
        else:
            records = engine.map_shards(work, todo)
        for record in records:
            check_version(record)
            found[record["number"]] = record
            tell()
    return [found[number] for number in numbers]
