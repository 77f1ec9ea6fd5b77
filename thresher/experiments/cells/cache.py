"""Finished cells, kept by content, so that any command finds what an earlier one has done.

    ROOT/cells/v1/KEY/{outcomes.parquet, manifest.json}

A cell appears whole or not at all; while it runs, its checkpoints lie in a hidden folder beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest
from thresher.artifacts.stored import read_table
from thresher.cache.folder_cache import FolderCache
from thresher.errors import ManifestError, is_temporary
from thresher.experiments.cells.cell import Outcome

OUTCOMES = "outcomes.parquet"


class CellCache(FolderCache):
    """Finished cells below one folder."""

    def __init__(self, root: str | Path | None = None) -> None:
        """Point to a cache; None for the folder of the feature cache."""
        super().__init__("cells", root)

    def load(self, key: str) -> Outcome | None:
        """Return a finished cell, or None; one that cannot be read counts as not done, and goes.

        Raises:
            OutputError: it cannot be deleted either.
        """
        if not self.has(key):
            return None
        folder = self.folder(key)
        try:
            content = Manifest.read(folder).content
            outcomes, facts = read_table(folder / OUTCOMES), content["facts"]
        except (OSError, ManifestError) as error:  # of a cell without a seal, or deleted meanwhile
            if is_temporary(error):
                raise
            self.discard_damaged(key, str(error))
            return None
        except KeyError:
            self.discard_damaged(key, f"{folder / MANIFEST}: must have 'facts', found none")
            return None
        return Outcome(key=key, outcomes=outcomes, facts=facts, is_reused=True)

    def load_or_run(self, key: str, run: Callable[[Path], tuple[pl.DataFrame, Mapping[str, Any]]]) -> Outcome:
        """Return a finished cell, or run and keep it; wait where another process is running it.

        Args:
            key: of the cell.
            run: gets a folder for checkpoints, returns outcomes and facts.
        """
        fresh: list[Outcome] = []

        def write(work: Path) -> None:
            outcomes, facts = run(work)
            write_parquet(outcomes, work / OUTCOMES)
            content = {"format": FORMAT, "kind": "cell", "identity": key, "facts": dict(facts)}
            write_atomic(work / MANIFEST, Manifest(content).to_json())
            fresh.append(Outcome(key=key, outcomes=outcomes, facts=facts))

        while True:
            cached = self.load(key)
            if cached is not None:
                return cached
            self.make(key, write)
            if fresh:
                return fresh[-1]
