"""The copies of what was read at addresses: how large they are, and making room.

What waits in `out` to be uploaded is no copy, and stays.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from thresher.artifacts.remote.places import IN, find_root

DAY_S = 86_400


def measure_copies() -> tuple[int, int]:
    """Return the number of copied files and their bytes."""
    sizes = [stat.st_size for _, stat in _list_copies()]
    return len(sizes), sum(sizes)


def prune_copies(*, max_bytes: int | None = None, older_than_days: float | None = None) -> int:
    """Delete copies, those first that were not read for longest, and return the bytes freed.

    They are fetched again when they are needed.

    Args:
        max_bytes: that may stay; None for any number.
        older_than_days: copies that were not read or made for so long go; None for none.
    """
    copies = sorted((max(stat.st_atime, stat.st_ctime), path, stat.st_size) for path, stat in _list_copies())
    bytes_left, freed = sum(size for _, _, size in copies), 0
    expired = -1.0 if older_than_days is None else time.time() - older_than_days * DAY_S
    for used, path, size in copies:
        if used < expired or (max_bytes is not None and bytes_left > max_bytes):
            path.unlink(missing_ok=True)
            bytes_left, freed = bytes_left - size, freed + size
    return freed


def _list_copies() -> Iterator[tuple[Path, os.stat_result]]:
    for folder, _, names in os.walk(find_root() / IN):
        for name in names:
            path = Path(folder, name)
            yield path, path.lstat()
