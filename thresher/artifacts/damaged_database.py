"""SQLite files of our own that are damaged: how that is told, and where they go."""

from __future__ import annotations

import itertools
import os
import sqlite3
from contextlib import suppress
from pathlib import Path

# What SQLite says where other programs hold a file, or the disk does not take it. Whatever else it
# says of our statements, which are correct, comes from a damaged file.
_BLAMELESS = frozenset(
    (
        sqlite3.SQLITE_BUSY,
        sqlite3.SQLITE_LOCKED,
        sqlite3.SQLITE_PERM,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_FULL,
        sqlite3.SQLITE_NOMEM,
        sqlite3.SQLITE_AUTH,
        sqlite3.SQLITE_INTERRUPT,
        sqlite3.SQLITE_NOLFS,
    )
)
_BESIDE = ("-journal", "-wal", "-shm")  # files of SQLite that go with one


def is_damaged_database(path: Path, error: sqlite3.Error) -> bool:
    """Tell whether an error is the file's own, and not one of rights, locks or the disk."""
    if not path.is_file():
        return False
    # Python itself raises without a code, where a text is not UTF-8
    code = error.sqlite_errorcode if hasattr(error, "sqlite_errorcode") else sqlite3.SQLITE_CORRUPT
    may_write = os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK)
    is_short = code == sqlite3.SQLITE_IOERR_SHORT_READ
    return may_write and (is_short or code & 0xFF not in _BLAMELESS)


def move_aside(path: Path) -> Path:
    """Rename a damaged database to NAME.damaged-1 and so on, and return its new path."""
    names = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    aside = next(name for name in names if not name.exists())
    for suffix in _BESIDE:
        with suppress(FileNotFoundError):
            path.with_name(path.name + suffix).rename(aside.with_name(aside.name + suffix))
    path.rename(aside)
    return aside
