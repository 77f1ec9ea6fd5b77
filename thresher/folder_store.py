"""Finished folders kept in the cache under the hash of what determines them, so that nothing is done twice.

    ROOT/KIND/v1/KEY/manifest.json and what belongs to it

A folder appears whole or not at all; while it is made, what a killed run can continue from lies in a hidden folder
beside it. The time its manifest was last changed is when it was last used.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

from thresher.errors import OutputError
from thresher.features.cache import default_root
from thresher.output import MANIFEST, OutputFolder

VERSION = "v1"  # of the layout above
WAIT_S = 1.0  # between two looks at a folder that another process is working on
DAY_S = 86_400


class FolderStore:
    """Finished folders of one kind below one root."""

    def __init__(self, kind: str, root: str | Path | None = None) -> None:
        """Point to a store; a root of None is the folder of the feature cache."""
        self.root = (default_root() if root is None else Path(root).absolute()) / kind / VERSION

    def folder(self, key: str) -> Path:
        """Return where the folder of that key is or will be."""
        return self.root / key

    def has(self, key: str) -> bool:
        """Tell whether the folder is there, and note that it was used."""
        manifest = self.root / key / MANIFEST
        if not manifest.is_file():
            return False
        with suppress(OSError):  # a cache that cannot be written can be read
            os.utime(manifest)
        return True

    def make(self, key: str, write: Callable[[Path], None]) -> Path:
        """Return the folder of that key, made if it is not there. Where another process is at it, wait for it.

        Args:
            key: of the folder, the identity in its manifest.
            write: fills the folder it is given, the manifest last; what an earlier, killed call wrote lies in it.

        Raises:
            OutputError: the store cannot be written.
        """
        n_refused = 0
        while not self.has(key):
            folder = OutputFolder(self.root / key, identity=key)
            try:
                folder.__enter__()
            except OutputError:
                n_refused = 0 if (self.root / f".{key}.lock").exists() else n_refused + 1
                if n_refused > 1:  # nobody holds it: it is the disk; once may be a lock that was freed meanwhile
                    raise
                time.sleep(WAIT_S)
                continue
            try:
                if not folder.is_done:
                    write(folder.work)
                    folder.publish()
            finally:
                folder.__exit__(None, None, None)
        return self.root / key

    def discard(self, key: str) -> None:
        """Delete what a failed or killed run left, unless another process is at it."""
        folder = OutputFolder(self.root / key, identity=key)
        with suppress(OutputError), folder:
            if not folder.is_done:
                folder.discard()

    def size(self) -> tuple[int, int]:
        """Return the number of folders and their bytes."""
        folders = list(self._folders())
        return len(folders), sum(_bytes(folder) for folder in folders)

    def prune(self, *, max_bytes: int | None = None, older_than_days: float | None = None) -> int:
        """Delete the folders that were used longest ago, and return the bytes freed.

        Args:
            max_bytes: that may stay; None for any number.
            older_than_days: folders not used for so long go; None for none.
        """
        freed = self._discard_left()
        folders = sorted(self._folders(), key=lambda folder: (folder / MANIFEST).stat().st_mtime)
        left = sum(_bytes(folder) for folder in folders)
        expired = -1.0 if older_than_days is None else time.time() - older_than_days * DAY_S
        for folder in folders:
            if (folder / MANIFEST).stat().st_mtime < expired or (max_bytes is not None and left > max_bytes):
                size = _bytes(folder)
                shutil.rmtree(folder)
                left, freed = left - size, freed + size
        return freed

    def _discard_left(self) -> int:
        """Delete what killed runs left and no process is at, and return the bytes freed."""
        freed = 0
        for work in self.root.glob(".*.partial"):
            size = _bytes(work)
            self.discard(work.name[1:].removesuffix(".partial"))
            freed += 0 if work.exists() else size
        return freed

    def _folders(self) -> Iterator[Path]:
        return (path.parent for path in self.root.glob(f"[!.]*/{MANIFEST}"))


def _bytes(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
