"""How the feature arrow keeps its caller informed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Progress:
    """How far one stage is; rate and remaining time are for the reader of `done` to work out.

    Attributes:
        stage: the feature that is being computed, for example "embedding".
        done: rows finished, cached ones included.
        total: distinct rows to do.
        n_cached: how many of `done` came from the cache.
        note: a fact that the user and the manifest should know, or None.
        is_warning: the note tells of something that went wrong, such as a damaged file.
    """

    stage: str
    done: int
    total: int
    n_cached: int = 0
    note: str | None = None
    is_warning: bool = False


OnProgress = Callable[[Progress], None]


def report_done(on_progress: OnProgress | None, *, stage: str, folder: Path, outcome: str) -> None:
    """Tell the caller that a folder holds the result already, and what is done with it."""
    if on_progress is not None:
        note = f"{folder}: holds the result of this very command already, which is {outcome}"
        on_progress(Progress(stage=stage, done=1, total=1, note=note))
