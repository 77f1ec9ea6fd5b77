"""Groups of large arrays, kept as folders: neighbor graphs and rankings of pools.

ROOT/graphs/v1/KEY/{NAME.npy ..., manifest.json}
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from thresher.artifacts.folder import MANIFEST, write_array, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest
from thresher.cache.folder_cache import FolderCache
from thresher.numeric.array_store import StoredArrays
from thresher.progress import OnProgress, Progress

KIND = "graphs"


class ArrayFolders(FolderCache):
    """Arrays below one folder, each group under what determines it."""

    def __init__(self, root: str | Path | None = None, on_progress: OnProgress | None = None) -> None:
        """Point to a cache; None for the folder of the feature cache.

        Args:
            root: folder of the cache.
            on_progress: told when arrays are read instead of computed, and when some were damaged.
        """
        super().__init__(KIND, root)
        self._on_progress = on_progress

    def load_or_compute(self, key: Mapping[str, Any], compute: Callable[[], StoredArrays]) -> StoredArrays:
        """Return the arrays of that key, computed here or by the process that is at it.

        Args:
            key: JSON values, everything that determines the arrays.
            compute: gives them.

        Raises:
            OutputError: the cache cannot be written.
        """
        name = digest(key)
        computed: list[StoredArrays] = []

        def write(work: Path) -> None:
            fresh = compute()
            for array_name, array in fresh.arrays.items():
                write_array(array, work / f"{array_name}.npy")
            content = {"format": FORMAT, "kind": "arrays", "identity": name, "facts": dict(fresh.facts)}
            content |= {"arrays": list(fresh.arrays), "key": dict(key)}
            write_atomic(work / MANIFEST, Manifest(content).to_json())
            computed.append(fresh)

        with self.hold(name, write) as folder:
            for note in self.take_notes():
                self._report(note)
            if computed:
                return computed[-1]
            self._report(f"{key.get('what', 'arrays')}: read from the cache")
            content = Manifest.read(folder).content
            arrays = {each: np.load(folder / f"{each}.npy", allow_pickle=False) for each in content["arrays"]}
        return StoredArrays(arrays, content["facts"])

    def has_arrays(self, key: Mapping[str, Any]) -> bool:
        """Tell whether arrays of this key are there, undamaged as far as one look can tell."""
        return self.has(digest(key))

    def _report(self, note: str) -> None:
        if self._on_progress is not None:
            self._on_progress(Progress(stage="select", done=0, total=1, note=note))


def get_graph_cache() -> FolderCache:
    """Return where the neighbor graphs and rankings of pools are kept."""
    return FolderCache(KIND)
