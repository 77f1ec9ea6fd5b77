"""Runs the stages of one selection on an engine, and keeps what their shards reported."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import digest, versions
from thresher.progress import OnProgress
from thresher.selection.distributed.engine import Engine, run_stage
from thresher.selection.distributed.stage import ModelWork, Record, Work

KEY_DIGITS = 16


@dataclass(frozen=True)
class StageRunner:
    """Runs stages.

    Attributes:
        engine: that runs them.
        folder: for their files, on storage that all nodes see.
        on_progress: listener.
        records: of the stages so far, by name.
    """

    engine: Engine
    folder: Path
    on_progress: OnProgress | None = None
    records: dict[str, list[Record]] = field(default_factory=dict)

    def run(self, work: Work | ModelWork, numbers: Sequence[int]) -> list[Record]:
        """Run a stage on shards, and return their records in the order of the numbers."""
        records = run_stage(self.engine, work, numbers, self.on_progress)
        self.records[work.name] = records
        return records

    def stage_folder(self, name: str, key: Any) -> Path:
        """Return the folder of a stage whose files are determined by a key."""
        return self.folder / f"{name}-{digest([key, versions(())])[:KEY_DIGITS]}"

    def describe(self) -> dict[str, Any]:
        """Return who did the work, and how long each stage took, for the manifest."""
        hosts = {record["host"] for records in self.records.values() for record in records}
        seconds = {name: _sum_seconds(records) for name, records in self.records.items()}
        return {"hosts": sorted(hosts), "worker_seconds": seconds}


def _sum_seconds(records: Sequence[Record]) -> dict[str, float]:
    """Return rows and seconds of all shards, and of the median one, which loads no model."""
    median = sorted(records, key=lambda record: float(record["seconds"]))[len(records) // 2]
    return {
        "rows": sum(record.get("rows", 0) for record in records),
        "seconds": round(sum(record["seconds"] for record in records), 3),
        "median_rows": median.get("rows", 0),
        "median_seconds": median["seconds"],
    }
