"""Engines run the work of a stage on its shards. This module has the plainest: this process."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

from thresher.progress import OnProgress, Progress
from thresher.selection.distributed.stage import ModelWork, Record, Work, check_version, load_record, run_shard


class Engine(Protocol):
    """Runs work on shards, anywhere. Both methods yield records in the order shards finish."""

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
            yield run_shard(work, number)

    def map_shards_with_model(self, work: ModelWork, numbers: Sequence[int]) -> Iterator[Record]:
        """Do shards while its models are in memory."""
        models = work.load_models()
        yield from self.map_shards(work, numbers)
        del models


def run_stage(
    engine: Engine,
    work: Work | ModelWork,
    numbers: Sequence[int],
    on_progress: OnProgress | None = None,
) -> list[Record]:
    """Do the shards of a stage that are not done yet; return the records of all, by the numbers.

    Args:
        engine: that runs them.
        work: of the stage.
        numbers: of its shards.
        on_progress: called for each shard that is done.
    """
    found = {number: load_record(work.folder, number) for number in numbers}
    done = {number: record for number, (record, _) in found.items() if record is not None}
    n_done_before = len(done)
    todo = [number for number in numbers if number not in done]

    def report() -> None:
        if on_progress is not None:
            on_progress(Progress(stage=work.name, done=len(done), total=len(numbers), n_cached=n_done_before))

    report()
    for _, damage in found.values():
        if damage is not None and on_progress is not None:
            note = f"{damage}; its shard will be computed again"
            on_progress(Progress(stage=work.name, done=len(done), total=len(numbers), note=note))
    if todo:
        # made here alone, so that a node that shares no storage notices
        work.folder.mkdir(parents=True, exist_ok=True)
        if isinstance(work, ModelWork) and work.has_model:
            records = engine.map_shards_with_model(work, todo)
        else:
            records = engine.map_shards(work, todo)
        for record in records:
            check_version(record)
            done[record["number"]] = record
            report()
    return [done[number] for number in numbers]
