"""Temporary folders that a kill does not leave behind for ever.

All of a process lie in one folder, TMPDIR/thresher-RANDOM, with a lock that the operating system
frees when the process dies. The next process that needs such a folder deletes those whose lock is
free.
"""

from __future__ import annotations

import atexit
import importlib.util
import os
import shutil
import tempfile
import weakref
from contextlib import suppress
from pathlib import Path

PREFIX = "thresher-scratch-"
LOCK = ".lock"
_HAS_LOCKS = importlib.util.find_spec("fcntl") is not None  # not on Windows
_own: dict[int, tuple[Path, int]] = {}  # by process: a fork has another


def make_scratch_folder(owner: object = None) -> Path:
    """Return a new temporary folder, which is deleted with its owner, or when the process ends.

    Raises:
        OSError: the folder for temporary files cannot be written.
    """
    folder = Path(tempfile.mkdtemp(dir=_find_own_folder()))
    if owner is not None:
        weakref.finalize(owner, shutil.rmtree, folder, ignore_errors=True)
    return folder


def _find_own_folder() -> Path:
    held = _own.get(os.getpid())
    if held is None or not held[0].is_dir():  # a cleaner of /tmp may have been here
        _delete_abandoned()
        held = _own[os.getpid()] = _create_own_folder()
        atexit.register(_delete_own, os.getpid())
    return held[0]


def _create_own_folder() -> tuple[Path, int]:
    folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        lock = os.open(folder / LOCK, os.O_CREAT | os.O_RDWR, 0o600)
        if _take(lock) and not (folder / LOCK).exists():
            raise FileNotFoundError
    except FileNotFoundError:  # another process took it, still unlocked, for an abandoned one
        return _create_own_folder()
    return folder, lock


def _delete_own(process: int) -> None:
    if process == os.getpid() and process in _own:
        folder, lock = _own.pop(process)
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _delete_abandoned() -> None:
    """Delete the folders of processes of this user that are dead."""
    for entry in os.scandir(tempfile.gettempdir()):
        with suppress(OSError):  # another process is deleting it, too
            if not entry.name.startswith(PREFIX) or not entry.is_dir(follow_symlinks=False):
                continue
            if not hasattr(os, "getuid") or entry.stat(follow_symlinks=False).st_uid != os.getuid():
                continue
            if not os.listdir(entry.path):  # killed before it had a lock
                os.rmdir(entry.path)
                continue
            with open(Path(entry.path, LOCK), "rb") as lock:
                if _take(lock.fileno()):
                    shutil.rmtree(entry.path, ignore_errors=True)


def _take(lock: int) -> bool:
    """Lock an open file; tell whether it was free. Where there are no such locks, it never is."""
    if not _HAS_LOCKS:
        return False
    import fcntl

    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
