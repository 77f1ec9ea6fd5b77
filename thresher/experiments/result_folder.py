"""The folder of an experiment: read where it is finished, else filled by a run and published."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import polars as pl

from thresher.artifacts.folder import OutputFolder
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.result import Result
from thresher.artifacts.stored import read_json
from thresher.experiments.settings import ExperimentSettings

AnyResult = TypeVar("AnyResult")


@dataclass(frozen=True, kw_only=True, repr=False)
class TableResult(Result):
    """The result of an experiment that is a table, and what is said of it.

    Attributes:
        table: of what was compared, as it is in the folder.
        content: of the JSON file beside it.
        path: of the folder, or None when none was asked for.
        manifest: what ran.
    """

    table: pl.DataFrame
    content: Mapping[str, Any]
    path: Path | None
    manifest: Manifest


@dataclass(frozen=True)
class RunClock:
    """When a run began, by the calendar and by a clock that never jumps."""

    created: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    started: float = field(default_factory=time.monotonic)

    def to_json(self) -> dict[str, Any]:
        """Return the time of day and the seconds since."""
        return {"created": self.created, "seconds": round(time.monotonic() - self.started, 3)}


def run_in_folder(
    identity: str,
    settings: ExperimentSettings,
    *,
    run: Callable[[Path | None], AnyResult],
    write: Callable[[AnyResult, Path], None],
    read: Callable[[Path], AnyResult],
) -> AnyResult:
    """Return the result of an experiment, from its folder where that is finished.

    Args:
        identity: of what is asked.
        settings: with the folder.
        run: gets the folder for work that survives a kill, or None.
        write: fills that folder.
        read: reads a finished folder.

    Raises:
        OutputError: `out` holds something else.
    """
    out = settings.out
    with nullcontext() if out is None else OutputFolder(out, identity=identity, force=settings.force) as folder:
        if folder is None:
            return run(None)
        if not folder.is_done:
            write(run(folder.work), folder.work)
            folder.publish()
        return read(folder.path)


def read_result(folder: Path, kind: str, what: str, name: str) -> tuple[Manifest, Any]:
    """Return the manifest of a folder, and the content of one of its JSON files.

    Args:
        folder: of a result.
        kind: that it must have.
        what: the same in words, for the message.
        name: of the JSON file.

    Raises:
        ManifestError: the folder is of another kind, or damaged.
    """
    return Manifest.read_kind(folder, kind, what), read_json(folder / name)
