"""Finished cells, kept by content, so that any command finds what an earlier one has done.

    ROOT/cells/v1/KEY/{outcomes.parquet, manifest.json}

A cell appears whole or not at all; while it runs, its checkpoints lie in a hidden folder beside it.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import polars as pl

from thresher.errors import OutputError
from thresher.experiments.cell import Outcome
from thresher.features.cache import default_root
from thresher.manifest import FORMAT, Manifest
from thresher.output import MANIFEST, OutputFolder, write_whole

VERSION = "v1"
OUTCOMES = "outcomes.parquet"
WAIT_S = 1.0  # between two looks at a cell that another process is working on


class CellStore:
    """Finished cells below one folder."""

    def __init__(self, root: str | Path | None = None) -> None:
        """Point to a store; None for the folder of the feature cache."""
        self.root = (default_root() if root is None else Path(root).absolute()) / "cells" / VERSION

    def find(self, key: str) -> Outcome | None:
        """Return a finished cell, or None. A cell that cannot be read counts as not done, and is deleted."""
        folder = self.root / key
        if not (folder / MANIFEST).is_file():
            return None
        try:
            content = Manifest.read(folder).content
            outcomes = pl.read_parquet(folder / OUTCOMES)
        except (OSError, ValueError, pl.exceptions.PolarsError):
            shutil.rmtree(folder, ignore_errors=True)
            return None
        with suppress(OSError):  # a cache that cannot be written can be read
            os.utime(folder / MANIFEST)  # the time of last use, for pruning
        return Outcome(key=key, outcomes=outcomes, facts=content["facts"], is_reused=True)

    def make(self, key: str, run: Callable[[Path], tuple[pl.DataFrame, Mapping[str, Any]]]) -> Outcome:
        """Run a cell and keep it. Where another process is at the same cell, wait for its result.

        Args:
            key: of the cell.
            run: gets a folder for checkpoints, returns outcomes and facts.
        """
        n_refused = 0
        while True:
            found = self.find(key)
            if found is not None:
                return found
            folder = OutputFolder(self.root / key, identity=key)
            try:
                folder.__enter__()
            except OutputError:
                n_refused = 0 if (self.root / f".{key}.lock").exists() else n_refused + 1
                if n_refused > 1:  # nobody holds it: it is the disk; once may be a lock that was freed meanwhile
                    raise
                time.sleep(WAIT_S)
                continue
            with _leaving(folder):
                if folder.is_done:
                    continue
                outcomes, facts = run(folder.work)
                outcomes.write_parquet(folder.work / OUTCOMES)
                content = {"format": FORMAT, "kind": "cell", "identity": key, "facts": dict(facts)}
                write_whole(folder.work / MANIFEST, Manifest(content).to_json())
                folder.publish()
                return Outcome(key=key, outcomes=outcomes, facts=facts)

    def discard(self, key: str) -> None:
        """Delete what a failed cell left, unless another process is at it."""
        folder = OutputFolder(self.root / key, identity=key)
        with suppress(OutputError), folder:
            if not folder.is_done:
                folder.discard()

    def size(self) -> tuple[int, int]:
        """Return the number of cells and their bytes."""
        cells = list(self._cells())
        return len(cells), sum(_bytes(cell) for cell in cells)

    def prune(self, *, max_bytes: int | None = None, older_than_days: float | None = None) -> int:
        """Delete the cells that were used longest ago, and return the bytes freed.

        Args:
            max_bytes: that may stay; None for any number.
            older_than_days: cells not used for so long go; None for none.
        """
        freed = self._discard_left()
        cells = sorted(self._cells(), key=lambda cell: (cell / MANIFEST).stat().st_mtime)
        left = sum(_bytes(cell) for cell in cells)
        expired = -1.0 if older_than_days is None else time.time() - older_than_days * 86_400
        for cell in cells:
            if (cell / MANIFEST).stat().st_mtime < expired or (max_bytes is not None and left > max_bytes):
                size = _bytes(cell)
                shutil.rmtree(cell)
                left, freed = left - size, freed + size
        return freed

    def _discard_left(self) -> int:
        """Delete what killed runs left and no process is at, and return the bytes freed."""
        freed = 0
        for work in self.root.glob(".*.partial"):
            size = sum(path.stat().st_size for path in work.rglob("*") if path.is_file())
            self.discard(work.name[1:].removesuffix(".partial"))
            freed += 0 if work.exists() else size
        return freed

    def _cells(self) -> Iterator[Path]:
        return (path.parent for path in self.root.glob(f"[!.]*/{MANIFEST}"))


class _leaving:
    """Close an entered folder at the end of a `with` block."""

    def __init__(self, folder: OutputFolder) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        """Do nothing: the folder is open."""

    def __exit__(self, *error: Any) -> None:
        self._folder.__exit__(*error)


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.iterdir())
