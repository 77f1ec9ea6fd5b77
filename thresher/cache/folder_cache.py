"""Finished folders, cached under the hash of what determines them, so that nothing is done twice.

    ROOT/KIND/v1/KEY/manifest.json and what belongs to it

A folder appears whole or not at all, and one that is not as it was written is deleted and made
again; while it is made, what a killed run can continue from lies in a hidden folder beside it. The
time its manifest was last changed is when it was last used. Who needs a folder for longer holds a
lock of their own beside it, `.KEY.ID.reader`, and a folder that is held is not pruned.
"""

from __future__ import annotations

import os
import shutil
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from thresher.artifacts.disk_errors import delete_folder
from thresher.artifacts.folder import MANIFEST, OutputFolder
from thresher.artifacts.local_path import expand_path
from thresher.artifacts.seal import find_damage
from thresher.cache.feature_cache import default_root
from thresher.errors import OutputError

VERSION = "v1"  # of the layout above
WAIT_S = 1.0  # between two looks at a folder that another process is working on
LOOK_S = 0.05  # between two tries of a lock that is held for moments
DAY_S = 86_400
READER = ".reader"
GONE = ".gone"  # of a folder that is being deleted


class FolderCache:
    """Finished folders of one kind below one root.

    Attributes:
        root: folder that they lie in.
        notes: a sentence for each damaged folder that was deleted, until somebody reports it.
    """

    def __init__(self, kind: str, root: str | Path | None = None) -> None:
        """Point to a store; a root of None is the folder of the feature cache."""
        self.root = (default_root() if root is None else expand_path(root).absolute()) / kind / VERSION
        self.notes: list[str] = []

    def folder(self, key: str) -> Path:
        """Return where the folder of that key is or will be."""
        return self.root / key

    def has(self, key: str) -> bool:
        """Tell whether the folder is there and as it was written, and note that it was used.

        Raises:
            OutputError: it is damaged, and cannot be deleted.
        """
        folder = self.root / key
        manifest = folder / MANIFEST
        if not manifest.is_file():
            return False
        damage = find_damage(folder)
        if damage is not None:
            self.discard_damaged(key, damage)
            return False
        with suppress(OSError):  # a cache that cannot be written can be read
            os.utime(manifest)
        return True

    def make(self, key: str, write: Callable[[Path], None]) -> Path:
        """Return the folder of that key, made here or by the process that is already making it.

        Args:
            key: of the folder, the identity in its manifest.
            write: fills the folder it is given, the manifest last; what an earlier, killed call
                wrote lies in it.

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
                # nobody holds it: it is the disk; once may be a lock that was freed meanwhile
                if n_refused > 1:
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

    @contextmanager
    def hold(self, key: str, write: Callable[[Path], None]) -> Iterator[Path]:
        """Give the folder of that key, made if it is not there, and keep it from being pruned.

        Args:
            key: as for `make`.
            write: as for `make`.
        """
        reader = FileLock(self.root / f".{key}.{uuid.uuid4().hex}{READER}")
        while True:
            folder = self.make(key, write)
            try:
                with self._lock_key(key, timeout=-1):
                    reader.acquire(timeout=0)
            except OSError:  # a cache that cannot be written is not pruned either
                break
            if self.has(key):
                break
            _free(reader)  # pruned between the two
        try:
            yield folder
        finally:
            _free(reader)

    @contextmanager
    def _lock_key(self, key: str, *, timeout: float) -> Iterator[None]:
        """Hold the lock under which a folder is made, registered as read, or pruned."""
        lock = FileLock(self.root / f".{key}.lock", poll_interval=LOOK_S)
        lock.acquire(timeout=timeout)
        try:
            yield
        finally:
            _free(lock)

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
        """Delete the folders that nobody holds, longest unused first, and return the bytes freed.

        Args:
            max_bytes: that may stay; None for any number.
            older_than_days: folders not used for so long go; None for none.
        """
        freed = self._discard_left()
        listed = ((_last_used(folder), folder, _bytes(folder)) for folder in self._folders())
        folders = sorted((used, folder, size) for used, folder, size in listed if used is not None)
        bytes_left = sum(size for _, _, size in folders)
        expired = -1.0 if older_than_days is None else time.time() - older_than_days * DAY_S
        for used, folder, size in folders:
            is_beyond = used < expired or (max_bytes is not None and bytes_left > max_bytes)
            if is_beyond and self._delete(folder):
                bytes_left, freed = bytes_left - size, freed + size
        return freed

    def discard_damaged(self, key: str, damage: str) -> None:
        """Delete a damaged folder, whoever holds it, and note why.

        Raises:
            OutputError: it cannot be deleted.
        """
        folder = self.root / key
        gone = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}{GONE}")
        try:
            folder.rename(gone)
        except FileNotFoundError:  # pruned by another process meanwhile
            return
        except OSError as error:
            raise OutputError(
                f"{damage}, and its folder cannot be deleted ({error.strerror}); delete it yourself or set another "
                f"THRESHER_CACHE"
            ) from None
        shutil.rmtree(gone, ignore_errors=True)
        self.notes.append(f"{damage}; it was deleted, and is computed again")

    def take_notes(self) -> list[str]:
        """Return the sentences that nobody has reported yet."""
        notes, self.notes = self.notes, []
        return notes

    def _delete(self, folder: Path) -> bool:
        """Delete a folder unless somebody makes or holds it; it disappears at once."""
        try:
            with self._lock_key(folder.name, timeout=0):
                if any(_is_locked(path) for path in self.root.glob(f".{folder.name}.*{READER}")):
                    return False
                gone = folder.with_name(f".{folder.name}{GONE}")
                folder.rename(gone)
        except (Timeout, FileNotFoundError):  # in use, or pruned by another process
            return False
        with suppress(FileNotFoundError):  # another process that prunes deletes it at the same time
            delete_folder(gone)
        return True

    def _discard_left(self) -> int:
        """Delete what killed runs left and no process is at, and return the bytes freed."""
        freed = 0
        for gone in self.root.glob(f".*{GONE}"):
            freed += _bytes(gone)
            shutil.rmtree(gone, ignore_errors=True)
        for work in self.root.glob(".*.partial"):
            size = _bytes(work)
            self.discard(work.name[1:].removesuffix(".partial"))
            freed += 0 if work.exists() else size
        return freed

    def _folders(self) -> Iterator[Path]:
        return (path.parent for path in self.root.glob(f"[!.]*/{MANIFEST}"))


def _free(lock: FileLock) -> None:
    """Delete a lock's file, then free it: who waits for it sees that, and makes it anew."""
    if lock.is_locked:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _is_locked(path: Path) -> bool:
    """Tell whether a process holds this lock; delete what a killed one left."""
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    _free(lock)
    return False


def _last_used(folder: Path) -> float | None:
    try:
        return (folder / MANIFEST).stat().st_mtime
    except FileNotFoundError:
        return None  # pruned by another process since it was listed


def _bytes(folder: Path) -> int:
    """Return the bytes of the files in a folder that other processes may change."""
    total = 0
    for inside, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(os.path.join(inside, name), follow_symlinks=False).st_size
    return total
