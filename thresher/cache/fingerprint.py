"""Fingerprints of model folders: equal just when everything that shapes the values is equal."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

import xxhash

from thresher.artifacts.seal import check_file, hash_file
from thresher.errors import InputError


def fingerprint(files: Iterable[tuple[str, Path]], *, recipe: str) -> str:
    """Return 32 hex digits over the names and contents of the files and the recipe of our own code.

    Args:
        files: (name, path) of each file; the name counts, where it lies does not.
        recipe: changes whenever our code would give other values from the same files.

    Raises:
        ManifestError: a file of a folder that thresher wrote is not as it was written.
    """
    total = xxhash.xxh3_128(recipe.encode())
    for name, path in sorted(files):
        status = path.stat()
        digest = _file_hash(path, status.st_size, status.st_mtime_ns, status.st_ctime_ns, status.st_ino)
        check_file(path, digest)
        total.update(f"\0{name}\0{digest}".encode())
    return total.hexdigest()


def combine_fingerprints(*parts: str) -> str:
    """Return 32 hex digits over texts in their order, such as a fingerprint and settings."""
    return xxhash.xxh3_128_hexdigest("\0".join(parts).encode())


def check_unchanged(owner: str, folder: Path, before: str, now: str) -> None:
    """Refuse a model whose files were replaced while it was loaded: old and new values would mix.

    Args:
        owner: the model, for messages.
        folder: its files.
        before: fingerprint that its values are kept under.
        now: fingerprint of the files after the weights were read.

    Raises:
        InputError: the two differ.
    """
    if now != before:
        raise InputError(
            f"{owner}: its files in {folder} must stay as they are while it is used, and they were changed since this "
            f"run began; run the same command again"
        )


@lru_cache(maxsize=256)
def _file_hash(path: Path, *_status: int) -> str:
    """Hash a file; its status is part of the key, since a copy may keep another's time."""
    return hash_file(path)
