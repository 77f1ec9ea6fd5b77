"""Output folders that appear whole or not at all, and survive a kill.

Work happens in a hidden sibling, `.NAME.partial`, on the same file system. It is renamed to NAME
when everything is written and synced; an older result exchanges places with it in one step, where
the system can do that (Linux). A second run of the same work (same `identity`) continues where the
first stopped, and only finishes the publication where that had begun; other work starts over. A
folder at an address is made in the cache and uploaded (`remote/result.py`). A result whose manifest
says `"is_complete": false` is replaced by the same work without `force`. Hidden folders in the work
folder hold what a killed run continues from, and are not published. A lock keeps two runs apart;
the operating system frees it when a run dies.
"""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, NamedTuple

from filelock import FileLock, Timeout

from thresher.artifacts import seal
from thresher.artifacts.disk_errors import delete_folder, name_path, naming_path
from thresher.artifacts.exchange import exchange_folders
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.remote.result import RemoteResult, find_result, stage
from thresher.errors import OutputError, describe_os_error, is_temporary

if TYPE_CHECKING:
    import polars as pl
    import pyarrow as pa
    from numpy.typing import NDArray

MANIFEST, IDENTITY = seal.MANIFEST, seal.IDENTITY
_COPIED_BYTES = 1 << 20


_UNFINISHED = re.compile(r"\..+\.tmp[0-9a-f]{32}")  # of `atomic_file`, in a run that was killed


class OutputFolder:
    """An output folder while it is written. Use it as a context manager.

    Attributes:
        path: where the result will be; where a link leads, if it was given as one.
        work: the hidden folder to write into; it may hold files of an earlier, killed run of the
            same work.
        is_done: whether `path` already holds the finished result of the same work.

    Raises:
        OutputError: on entry, when `path` holds something else, or its own result with a damaged
            file, and `force` is not set, when another run is writing the same folder, or when its
            parent is not writable.
    """

    def __init__(self, path: str | Path, *, identity: str, force: bool = False) -> None:
        self.path = Path(os.path.abspath(expand_path(stage(path))))
        if self.path.is_symlink():  # what it leads to is written, and the link stays
            self.path = Path(os.path.realpath(self.path))
        if not self.path.name:
            raise OutputError(f"{self.path}: the output must be a folder of its own; choose another --out")
        self.work = self._sibling("partial")
        self.is_done = False
        self._old = self._sibling("old")
        self._identity = identity
        self._force = force
        self._lock = FileLock(self._sibling("lock"))
        self._remote = find_result(self.path)
        self._is_locked_there = False

    def _sibling(self, suffix: str) -> Path:
        return self.path.with_name(f".{self.path.name}.{suffix}")

    def __enter__(self) -> OutputFolder:
        """Take the lock, clear up after killed runs, and open the work folder."""
        take_lock(self._lock, self.path)
        try:
            self._open() if self._remote is None else self._open_remote(self._remote)
        except BaseException:
            self._release()
            raise
        return self

    def _open(self) -> None:
        marker = self.work / IDENTITY
        is_synced = not marker.exists() and self._is_result(self.work) and seal.find_damage(self.work) is None
        if self._old.exists():  # killed between the two renames of publish()
            if self.path.exists():
                delete_folder(self._old)
            elif not is_synced:
                self._old.rename(self.path)
        if self._is_result(self.path):
            damage = seal.find_damage(self.path)
            if damage is None:
                self._delete_replaced()
                self.is_done = True
                return
            if not self._force:
                raise OutputError(f"{damage}; write the folder again with --force, or choose another --out")
        if read_identity(self.path) != self._identity:  # else incomplete or damaged
            check_free(self.path, force=self._force)
        if is_synced:  # killed in publish(), after all was on the disk
            self._move_into_place()
            self.is_done = True
            return
        if self.work.exists() and not (marker.is_file() and marker.read_text() == self._identity):
            delete_folder(self.work)
        self.work.mkdir(exist_ok=True)
        self._delete_unfinished()
        write_atomic(marker, self._identity.encode())

    def _delete_unfinished(self) -> None:
        """Delete the files that a killed run was writing; what it had written stays."""
        for path in self.work.rglob(".*.tmp*"):
            if _UNFINISHED.fullmatch(path.name):
                path.unlink()

    def _open_remote(self, remote: RemoteResult) -> None:
        """Open an output at an address: what is here is ours, what is there decides."""
        remote.lock.__enter__()
        self._is_locked_there = True
        is_there = remote.open(self._identity, force=self._force)
        self._force = True
        self._open()
        if self.is_done and not is_there:  # killed before or while it was uploaded
            remote.publish()

    def _delete_replaced(self) -> None:
        """Delete an older result that a kill right after the exchange left in the work folder."""
        if self.work.exists() and not (self.work / IDENTITY).exists():
            delete_folder(self.work)

    def _is_result(self, folder: Path) -> bool:
        """Tell whether a folder holds the complete result of this work."""
        content = _read_content(folder)
        return content.get("identity") == self._identity and content.get("is_complete") is not False

    def publish(self) -> None:
        """Seal the work folder and rename it to `path`. Its manifest must have this identity."""
        if read_identity(self.work) != self._identity:
            raise AssertionError(f"{self.work} has no {MANIFEST} with the identity of this run")
        write_atomic(self.work / MANIFEST, seal.seal_manifest(self.work))
        for folder, inside, names in os.walk(self.work):
            if Path(folder) == self.work:
                inside[:] = [name for name in inside if not name.startswith(".")]
            for name in names:
                sync(Path(folder, name))
            sync(Path(folder))
        (self.work / IDENTITY).unlink()  # from here on, the next run has only to move it into place
        sync(self.work)
        self._move_into_place()
        if self._remote is not None:
            self._remote.publish()

    def _move_into_place(self) -> None:
        for entry in self.work.iterdir():
            if entry.name.startswith(".") and entry.is_dir():
                delete_folder(entry)
        if self.path.exists():
            self._replace()
        else:
            self.work.rename(self.path)
        sync(self.path.parent)
        shutil.rmtree(self._old, ignore_errors=True)

    def _replace(self) -> None:
        """Put the work folder in the place of an older result; where that fails, that one stays."""
        if exchange_folders(self.work, self.path):
            self.work.rename(self._old)  # a name that is never taken for a finished result
            return
        self.path.rename(self._old)
        try:
            self.work.rename(self.path)
        except OSError:
            self._old.rename(self.path)
            raise

    def publish_files(self, write_files: Callable[[Path], object]) -> None:
        """Let a function write its files into the work folder, and publish them.

        What a killed run left there is deleted first. On a full disk the files are deleted: what
        was expensive to compute is cached elsewhere.
        """
        try:
            self.empty()
            write_files(self.work)
            self.publish()
        except OSError:
            self.discard()
            raise

    def empty(self) -> None:
        """Delete what a killed run left in the work folder, for results that are not continued."""
        for entry in self.work.iterdir():
            if entry.is_dir():
                delete_folder(entry)
            elif entry.name != IDENTITY:
                entry.unlink()

    def discard(self) -> None:
        """Delete the work folder, for results that are cheaper to compute again than to keep."""
        shutil.rmtree(self.work, ignore_errors=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Free the lock. Work survives an error, so that the next run can continue."""
        with suppress(OSError):
            if error is not None and [entry.name for entry in self.work.iterdir()] == [IDENTITY]:
                self.discard()
        if isinstance(error, OSError):
            name_path(error, self.path)
        self._release()

    def _release(self) -> None:
        """Free the lock; its file only tells people that somebody is at work, and may stay."""
        if self._remote is not None and self._is_locked_there:
            self._is_locked_there = False
            self._remote.lock.__exit__(None, None, None)
        with suppress(OSError):
            Path(self._lock.lock_file).unlink(missing_ok=True)
        self._lock.release()


def take_lock(lock: FileLock, path: Path) -> None:
    """Take the lock of an output folder at once, and make the folder that it lies in.

    Raises:
        OutputError: another run has it, or its parent cannot be written.
    """
    try:
        Path(lock.lock_file).parent.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        if Path(lock.lock_file).exists():
            raise OutputError(
                f"{path}: another run is writing this folder; wait for it or choose another --out"
            ) from None
        raise OutputError(f"{path}: its parent folder cannot take new files; choose another --out") from None
    except OSError as error:
        raise OutputError(
            f"{path}: its parent folder must be writable, got '{describe_os_error(error)}'; choose another --out"
        ) from None


def read_identity(folder: Path) -> str | None:
    """Return the identity in the folder's manifest, or None when it has no readable manifest.

    Raises:
        OSError: the storage is away for a time.
    """
    identity = _read_content(folder).get("identity")
    return identity if isinstance(identity, str) else None


def _read_content(folder: Path) -> dict[str, Any]:
    """Return the content of the folder's manifest, empty when it has no readable manifest."""
    try:
        content: Any = json.loads((folder / MANIFEST).read_bytes())
    except (OSError, ValueError) as error:
        if is_temporary(error):
            raise
        return {}
    return content if isinstance(content, dict) else {}


def check_free(path: Path, *, force: bool) -> None:
    """Refuse a path that holds anything, unless `force` is set and thresher wrote it.

    Raises:
        OutputError: the path is a file, or a folder that is not empty.
    """
    if not path.exists():
        return
    if not path.is_dir():
        raise OutputError(f"{path}: the output must be a folder, found a file; choose another --out")
    held = sorted(entry.name for entry in path.iterdir())
    if not held and _delete_empty(path):
        return
    if not held or os.path.ismount(path):
        raise OutputError(
            f"{path}: the output must be a folder that can be replaced, found a place where a file system is mounted; "
            f"choose a new folder in it, such as {path / 'result'}"
        )
    if not force:
        raise OutputError(
            f"{path}: the output folder must be new or empty, it holds {held[0]}"
            f"{f' and {len(held) - 1} more' if len(held) > 1 else ''}; choose another --out, or replace it with --force"
        )
    if read_identity(path) is None:
        raise OutputError(
            f"{path}: --force replaces only a folder that thresher wrote, and this one has no readable {MANIFEST} "
            f"(it holds {held[0]}); choose another --out"
        )


def _delete_empty(path: Path) -> bool:
    """Delete an empty folder; tell whether that was possible: a mounted one stays."""
    try:
        path.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path, unique among hosts; sync and rename it, or delete it on error."""
    temporary = path.with_name(f".{path.name}.tmp{uuid.uuid4().hex}")
    try:
        with naming_path(path):
            yield temporary
            sync(temporary)
            temporary.replace(path)
    except BaseException:
        with suppress(OSError):  # the first error is the one to tell of
            temporary.unlink(missing_ok=True)
        raise


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file so that it is either complete or absent: temporary name, sync, rename."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(content)


def copy_folder(source: Path, target: Path) -> None:
    """Copy the files of a folder; the first error ends it, where shutil.copytree collects them."""
    for folder, _, names in os.walk(source):
        inside = target / os.path.relpath(folder, source)
        inside.mkdir(parents=True, exist_ok=True)
        for name in names:
            _copy_file(Path(folder, name), inside / name)


def _copy_file(source: Path, target: Path) -> None:
    with open(source, "rb") as read, naming_path(target), open(target, "wb") as written:
        while True:
            with naming_path(source):
                chunk = read.read(_COPIED_BYTES)
            if not chunk:
                return
            written.write(chunk)


def sync(path: Path) -> None:
    """Flush a file or folder to disk."""
    with naming_path(path):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_parquet(table: pl.DataFrame | pa.Table, path: Path) -> None:
    """Write a table through pyarrow, whose OSError keeps the errno; that of polars loses it."""
    import pyarrow.parquet

    arrow = table if isinstance(table, pyarrow.Table) else table.to_arrow()
    with naming_path(path):
        pyarrow.parquet.write_table(arrow, path, compression="zstd")


def write_array(array: NDArray[Any], path: Path) -> None:
    """Write an array as .npy through Python, whose OSError keeps the errno; numpy's has none."""
    import numpy as np

    with naming_path(path), open(path, "wb") as file:
        np.save(_PlainWriter(file.write), array, allow_pickle=False)


class _PlainWriter(NamedTuple):
    """Something to write to that numpy does not take for a file of the C library."""

    write: Callable[[bytes], object]


def write_csv(frame: pl.DataFrame, path: Path) -> None:
    """Write a table as text, through Python, whose OSError keeps the errno."""
    with naming_path(path):
        path.write_text(frame.write_csv(), encoding="utf-8", newline="")


def write_ndjson(frame: pl.DataFrame, path: Path) -> None:
    """Write a table as JSON lines, as `write_csv` does."""
    with naming_path(path):
        path.write_text(frame.write_ndjson(), encoding="utf-8")
