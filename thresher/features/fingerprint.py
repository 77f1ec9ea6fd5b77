"""Fingerprints of model folders: equal when, and only when, everything that shapes the values is equal."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import xxhash

BLOCK = 1 << 22


def fingerprint(files: Iterable[tuple[str, Path]], *, recipe: str) -> str:
    """Return 32 hex digits over the names and contents of the files and the recipe of our own code.

    Args:
        files: (name, path) of each file; the name counts, where it lies does not.
        recipe: changes whenever our code would give other values from the same files.
    """
    total = xxhash.xxh3_128(recipe.encode())
    for name, path in sorted(files):
        status = path.stat()
        digest = _file_hash(path, status.st_size, status.st_mtime_ns)
        total.update(f"\0{name}\0{digest}".encode())
    return total.hexdigest()


def joined_fingerprint(*parts: str) -> str:
    """Return 32 hex digits over texts in their order, such as a fingerprint and the settings beside it."""
    return xxhash.xxh3_128_hexdigest("\0".join(parts).encode())


@lru_cache(maxsize=256)
def _file_hash(path: Path, size: int, mtime_ns: int) -> str:  # size and time are part of the key
    total = xxhash.xxh3_128()
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            total.update(block)
    return total.hexdigest()
