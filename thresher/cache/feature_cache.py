"""A bounded, content-addressed store of feature values, safe against kill -9 and other processes.

    ROOT/v1/FEATURE/FINGERPRINT/chunk-ROWS-UNIQUE.safetensors

A chunk holds `keys` (m, 16) uint8, the xxh3-128 of each text, and `values` (m, ...). It is written
under a temporary name, synced and renamed, so it is there whole or not at all; its name is unique,
so writers need no lock; two chunks may hold the same key. Both tensors carry a checksum. The time a
file was last changed is when it was last used.
"""

from __future__ import annotations

import fnmatch
import os
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import xxhash
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from thresher.artifacts.cache_root import default_root as default_root
from thresher.artifacts.disk_errors import naming_path
from thresher.artifacts.local_path import expand_path
from thresher.cache.keys import KEY_BYTES
from thresher.errors import OutputError, SettingsError

VERSION = "v1"  # of the layout above
GB = 10**9
DAY_S = 86_400
STALE_S = 3_600  # a temporary file this old belongs to a process that was killed
CHUNK = "chunk-*-*.safetensors"
TEMPORARY = ".writing-*"
DEFAULT_MAX_GB = 20.0


@dataclass(frozen=True, kw_only=True)
class CacheEntry:
    """All chunks of one feature under one model.

    Attributes:
        feature: for example "embedding".
        model: its name, for people.
        fingerprint: of weights, tokenizer and recipe.
        n_rows: rows stored; a row that two processes wrote counts twice.
        bytes: on disk.
        last_used: UTC.
    """

    feature: str
    model: str
    fingerprint: str
    n_rows: int
    bytes: int
    last_used: datetime


@dataclass(frozen=True)
class _Chunk:
    path: Path
    bytes: int
    last_used: float

    @property
    def n_rows(self) -> int:
        return int(self.path.name.split("-")[1])


class FeatureCache:
    """The feature store below one folder. Opening it touches no disk."""

    def __init__(self, root: str | Path | None = None, *, max_bytes: int | None = None) -> None:
        """Point to a store.

        Args:
            root: its folder; None for THRESHER_CACHE or the platform's cache folder.
            max_bytes: least recently used chunks beyond this are deleted; None for
                THRESHER_CACHE_MAX_GB or 20 GB.
        """
        self.root = default_root() if root is None else expand_path(root).absolute()
        self.max_bytes = _max_bytes_from_environment() if max_bytes is None else max_bytes

    def partition(self, feature: str, model: str, fingerprint: str) -> CachePartition:
        """Return the part of the store that belongs to one feature under one model."""
        return CachePartition(self, feature=feature, model=model, fingerprint=fingerprint)

    def entries(self) -> list[CacheEntry]:
        """Return what is stored, by feature and model, most recently used first."""
        folders: dict[Path, list[_Chunk]] = {}
        for chunk in _chunks(self.root / VERSION):
            folders.setdefault(chunk.path.parent, []).append(chunk)
        entries = [
            CacheEntry(
                feature=folder.parent.name,
                model=_read_model_name(chunks),
                fingerprint=folder.name,
                n_rows=sum(chunk.n_rows for chunk in chunks),
                bytes=sum(chunk.bytes for chunk in chunks),
                last_used=datetime.fromtimestamp(max(chunk.last_used for chunk in chunks), UTC),
            )
            for folder, chunks in sorted(folders.items())
        ]
        return sorted(entries, key=lambda entry: entry.last_used, reverse=True)

    def prune(self, *, max_bytes: int | None = None, older_than_days: float | None = None) -> int:
        """Delete chunks and return the bytes freed.

        Args:
            max_bytes: delete least recently used chunks until no more than this is left; 0 deletes
                everything.
            older_than_days: delete chunks that were not used for so long.

        Raises:
            SettingsError: neither was given, or one is negative.
            OutputError: a chunk cannot be deleted.
        """
        limits = [limit for limit in (max_bytes, older_than_days) if limit is not None]
        if not limits or min(limits) < 0:
            raise SettingsError(
                f"cache: prune needs max_bytes or older_than_days, 0 or more, got {max_bytes} and {older_than_days}"
            )
        chunks = sorted(_chunks(self.root / VERSION), key=lambda chunk: chunk.last_used)
        bytes_left = sum(chunk.bytes for chunk in chunks)
        expired = -np.inf if older_than_days is None else time.time() - older_than_days * DAY_S
        freed = self._delete_stale_temporaries()
        for chunk in chunks:
            if chunk.last_used < expired or (max_bytes is not None and bytes_left > max_bytes):
                _delete(chunk.path)
                bytes_left -= chunk.bytes
                freed += chunk.bytes
        return freed

    def enforce_limit(self) -> int:
        """Delete least recently used chunks beyond `max_bytes` and return the bytes freed."""
        return self.prune(max_bytes=self.max_bytes)

    def _delete_stale_temporaries(self) -> int:
        freed = 0
        for path in _find_files(self.root / VERSION, TEMPORARY):
            status = _status(path)
            if status is not None and time.time() - status.st_mtime > STALE_S:
                _delete(path)
                freed += status.st_size
        return freed


class CachePartition:
    """The chunks of one feature under one model."""

    def __init__(self, cache: FeatureCache, *, feature: str, model: str, fingerprint: str) -> None:
        self.cache = cache
        self.folder = cache.root / VERSION / feature / fingerprint
        self._model = model

    def read(
        self, keys_sought: NDArray[np.bytes_], *, on_damage: Callable[[Path], None], marks_used: bool = True
    ) -> Iterator[tuple[NDArray[np.int64], NDArray[Any]]]:
        """Yield, chunk by chunk, positions in `keys_sought` and their values, each key once.

        Cost: O(c log n) for c stored and n keys_sought keys. Only the keys of a chunk are read
        unless it has a keys_sought one.

        Args:
            keys_sought: (n,) S16, sorted, distinct.
            on_damage: told of each chunk that was found damaged and was deleted.
            marks_used: whether to note the time as that of the last use.

        Raises:
            OutputError: a chunk cannot be read or, when it is damaged, deleted.
        """
        is_missing = np.ones(len(keys_sought), dtype=bool)
        for chunk in _chunks(self.folder):
            if not is_missing.any():
                return
            try:
                hit = _read_chunk(chunk.path, keys_sought, is_missing)
            except FileNotFoundError:
                continue  # pruned by another process since it was listed
            except _DamagedChunkError:
                _delete(chunk.path)
                on_damage(chunk.path)
                continue
            except OSError as error:
                raise OutputError(
                    f"{chunk.path}: a chunk of the feature cache must be readable, got '{error}'; "
                    "make it readable or point THRESHER_CACHE to another folder"
                ) from None
            if hit is not None:
                is_missing[hit[0]] = False
                if marks_used:
                    _touch(chunk.path)
                yield hit

    def write(self, keys: NDArray[np.bytes_], values: NDArray[Any]) -> Path:
        """Store one chunk: (m,) S16 keys and (m, ...) values.

        Raises:
            OutputError: the folder cannot be written, or the disk is full.
        """
        key_bytes = np.frombuffer(keys.tobytes(), dtype=np.uint8).reshape(len(keys), KEY_BYTES)
        values = np.ascontiguousarray(values)
        checks = {"model": self._model, "keys_xxh3": _checksum(key_bytes), "values_xxh3": _checksum(values)}
        content = save({"keys": key_bytes, "values": values}, metadata=checks)
        unique = uuid.uuid4().hex
        path = self.folder / f"chunk-{len(keys)}-{unique}.safetensors"
        temporary = self.folder / f"{TEMPORARY[:-1]}{unique}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with temporary.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            temporary.rename(path)
        except OSError as error:
            with suppress(OSError):
                temporary.unlink()
            raise OutputError(
                f"{self.cache.root}: the feature cache must be writable, got '{error.strerror}'; free space there, "
                "or point THRESHER_CACHE to another folder"
            ) from None
        return path


class _DamagedChunkError(Exception):
    """A chunk is not what was written."""


def _max_bytes_from_environment() -> int:
    text = os.environ.get("THRESHER_CACHE_MAX_GB", str(DEFAULT_MAX_GB))
    try:
        limit = float(text)
    except ValueError:
        limit = -1
    if not 0 <= limit < np.inf:
        raise SettingsError(f"THRESHER_CACHE_MAX_GB must be a number of GB, 0 or more, got '{text}'")
    return int(limit * GB)


def _read_chunk(
    path: Path, keys_sought: NDArray[np.bytes_], is_missing: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[Any]] | None:
    """Return the positions in `keys_sought` that this chunk fills, and their values, or None."""
    try:
        with naming_path(path), safe_open(path, framework="numpy") as file:
            checks = file.metadata() or {}
            key_bytes = file.get_tensor("keys")
            _require(checks.get("keys_xxh3") == _checksum(key_bytes) and key_bytes.shape[1:] == (KEY_BYTES,))
            keys = np.frombuffer(key_bytes.tobytes(), dtype=keys_sought.dtype)
            at = np.minimum(
                np.searchsorted(keys_sought, keys), len(keys_sought) - 1
            )  # where each stored key would stand
            rows = np.flatnonzero((keys_sought[at] == keys) & is_missing[at])
            # a key may stand in a chunk twice
            rows = rows[np.unique(at[rows], return_index=True)[1]]
            if len(rows) == 0:
                return None
            values = file.get_tensor("values")
            _require(checks.get("values_xxh3") == _checksum(values) and len(values) == len(keys))
    except SafetensorError as error:
        raise _DamagedChunkError(path) from error
    return at[rows], values[rows]


def _require(is_whole: bool) -> None:
    if not is_whole:
        raise _DamagedChunkError


def _checksum(array: NDArray[Any]) -> str:
    return xxhash.xxh3_64_hexdigest(np.ascontiguousarray(array).data)


def _chunks(folder: Path) -> Iterator[_Chunk]:
    """Yield the chunks anywhere below the folder, by name."""
    for path in sorted(_find_files(folder, CHUNK)):
        status = _status(path)
        if status is not None:
            yield _Chunk(path, status.st_size, status.st_mtime)


def _find_files(folder: Path, pattern: str) -> Iterator[Path]:
    """Yield the files anywhere below a folder, whose folders others may delete meanwhile."""
    for inside, folders, names in os.walk(folder):
        yield from (Path(inside, name) for name in fnmatch.filter([*names, *folders], pattern))


def _read_model_name(chunks: list[_Chunk]) -> str:
    for chunk in chunks:
        try:
            with safe_open(chunk.path, framework="numpy") as file:
                return str((file.metadata() or {}).get("model", ""))
        except (SafetensorError, FileNotFoundError):
            continue
    return ""


def _status(path: Path) -> os.stat_result | None:
    try:
        return path.stat()
    except FileNotFoundError:
        return None  # another process deleted or renamed it


def _touch(path: Path) -> None:
    try:
        os.utime(path)
    except OSError:
        return  # gone, or a read-only cache: its order of use is then not ours to keep


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise OutputError(
            f"{path}: a chunk of the feature cache must be deletable, got '{error.strerror}'; "
            "make it writable or point THRESHER_CACHE to another folder"
        ) from None
