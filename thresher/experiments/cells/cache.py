"""Finished cells, kept by content, so that any command finds what an earlier one has done.

    ROOT/cells/v1/KEY/{outcomes.parquet, manifest.json}

A cell appears whole or not at all; while it runs, its checkpoints lie in a hidden folder beside it.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest
from thresher.cache.folder_cache import FolderCache
from thresher.errors import OutputError
from thresher.experiments.cells.cell import Outcome

OUTCOMES = "outcomes.parquet"


class CellCache:
    """Finished cells below one folder."""

    def __init__(self, root: str | Path | None = None) -> None:
        """Point to a store; None for the folder of the feature cache."""
        self._folders = FolderCache("cells", root)

    @property
    def root(self) -> Path:
        """Folder of the cells."""
        return self._folders.root

    def find(self, key: str) -> Outcome | None:
        """Return a finished cell, or None. A cell that cannot be read counts as not done, and is deleted.

        Raises:
            OutputError: it cannot be deleted either.
        """
        if not self._folders.has(key):
            return None
        folder = self._folders.folder(key)
        try:
            content = Manifest.read(folder).content
            outcomes = pl.read_parquet(folder / OUTCOMES)
        except (OSError, ValueError, pl.exceptions.PolarsError):
            self._delete(folder)
            return None
        return Outcome(key=key, outcomes=outcomes, facts=content["facts"], is_reused=True)

    def make(self, key: str, run: Callable[[Path], tuple[pl.DataFrame, Mapping[str, Any]]]) -> Outcome:
        """Run a cell and keep it. Where another process is at the same cell, wait for its result.

        Args:
            key: of the cell.
            run: gets a folder for checkpoints, returns outcomes and facts.
        """
        made: list[Outcome] = []

        def write(work: Path) -> None:
            outcomes, facts = run(work)
            write_parquet(outcomes, work / OUTCOMES)
            content = {"format": FORMAT, "kind": "cell", "identity": key, "facts": dict(facts)}
            write_atomic(work / MANIFEST, Manifest(content).to_json())
            made.append(Outcome(key=key, outcomes=outcomes, facts=facts))

        while True:
            found = self.find(key)
            if found is not None:
                return found
            self._folders.make(key, write)
            if made:
                return made[-1]

    @staticmethod
    def _delete(folder: Path) -> None:
        try:
            shutil.rmtree(folder)
        except FileNotFoundError:  # another process was faster
            return
        except OSError as error:
            raise OutputError(
                f"{folder}: a finished cell must be readable, it is not, and cannot be deleted ({error.strerror}); "
                f"delete it yourself or set another THRESHER_CACHE"
            ) from None

    def discard(self, key: str) -> None:
        """Delete what a failed cell left, unless another process is at it."""
        self._folders.discard(key)

    def size(self) -> tuple[int, int]:
        """Return the number of cells and their bytes."""
        return self._folders.size()

    def prune(self, *, max_bytes: int | None = None, older_than_days: float | None = None) -> int:
        """Delete the cells that were used longest ago, and return the bytes freed; limits as for `FolderCache`."""
        return self._folders.prune(max_bytes=max_bytes, older_than_days=older_than_days)
