"""The history of a job: one row per run, in SQLite. It is for people; no run depends on it.

Each row carries a checksum; a history in which one does not fit is damaged. The journal mode is
DELETE: WAL needs memory that processes share, which network shares do not have.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import xxhash

from thresher.artifacts.damaged_database import is_damaged_database, move_aside

FILE = "history.sqlite"
FORMAT = 1
RUNNING, KILLED = "running", "killed"
_TABLE = """
CREATE TABLE IF NOT EXISTS run (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    started TEXT NOT NULL,
    seconds REAL,
    outcome TEXT NOT NULL,
    exit_code INTEGER,
    version INTEGER,
    parent INTEGER,
    owner TEXT NOT NULL,
    message TEXT,
    report TEXT NOT NULL,
    checksum TEXT
)"""


@dataclass(frozen=True, kw_only=True)
class HistoryEntry:
    """One run.

    Attributes:
        number: a counter; runs are ordered by it.
        started: UTC, ISO 8601, by the clock of the machine it ran on.
        seconds: how long it took; this and the exit code are None while it runs or when it was
            killed.
        outcome: a key of `EXIT_CODES`, "running" or "killed".
        exit_code: of the command.
        version: of the snapshot it published, or None.
        parent: version of the snapshot it started from, or None.
        owner: the process.
        message: what went wrong, or None.
        report: counts, changes, drift, warnings and notifications, in JSON values.
    """

    number: int
    started: str
    seconds: float | None
    outcome: str
    exit_code: int | None
    version: int | None
    parent: int | None
    owner: str
    message: str | None
    report: Mapping[str, Any]


_COLUMNS = ", ".join(one.name for one in fields(HistoryEntry))


class History:
    """The runs of one job."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def start_run(self, *, started: str, owner: str, parent: int | None, recovered: int | None = None) -> int:
        """Note that a run starts and that unfinished ones were killed; return its number.

        `recovered` is the version that the last run had published when it was killed; for the rest
        see `HistoryEntry`.
        """
        with self._open(write=True) as database:
            _check_rows(database)
            changed = [number for (number,) in database.execute("SELECT number FROM run WHERE outcome = ?", (RUNNING,))]
            if recovered is not None:
                changed += [number for (number,) in database.execute("SELECT max(number) FROM run") if number]
                database.execute(
                    "UPDATE run SET version = :version WHERE NOT EXISTS (SELECT 1 FROM run WHERE version = :version) "
                    "AND number = (SELECT max(number) FROM run)",
                    {"version": recovered},
                )
            database.execute("UPDATE run SET outcome = ? WHERE outcome = ?", (KILLED, RUNNING))
            cursor = database.execute(
                "INSERT INTO run (started, outcome, parent, owner, report) VALUES (?, ?, ?, ?, '{}')",
                (started, RUNNING, parent, owner),
            )
            number = int(cursor.lastrowid or 0)
            _seal_rows(database, [*changed, number])
            return number

    def finish_run(self, number: int, ending: Mapping[str, Any], report: Mapping[str, Any]) -> None:
        """Note how a run ended; `ending` holds fields of `HistoryEntry` known at the end."""
        with self._open(write=True) as database:
            database.execute(
                "UPDATE run SET seconds = :seconds, outcome = :outcome, exit_code = :exit_code, version = :version, "
                "message = :message, report = :report WHERE number = :number",
                {**ending, "number": number, "report": json.dumps(report, ensure_ascii=False)},
            )
            _seal_rows(database, [number])

    def list_runs(
        self, *, limit: int | None = None, number: int | None = None, version: int | None = None
    ) -> list[HistoryEntry]:
        """Return the runs, newest first."""
        if not self._path.is_file():
            return []
        with self._open(write=False) as database:
            _check_rows(database)
            rows = database.execute(
                f"SELECT {_COLUMNS} FROM run WHERE number = coalesce(:number, number) "
                "AND version IS coalesce(:version, version) ORDER BY number DESC LIMIT :limit",
                {"limit": -1 if limit is None else limit, "number": number, "version": version},
            ).fetchall()
        return [_read_entry(row) for row in rows]

    def find_number_range(self) -> tuple[int, int] | None:
        """Return the numbers of the first and the last run, or None when there are none."""
        if not self._path.is_file():
            return None
        with self._open(write=False) as database:
            first, last = database.execute("SELECT min(number), max(number) FROM run").fetchone()
        return None if first is None else (int(first), int(last))

    def move_damaged(self) -> Path:
        """Rename a history that cannot be read, so that a new one starts; return its new path."""
        return move_aside(self._path)

    def is_damaged(self, error: sqlite3.Error) -> bool:
        """Tell whether an error comes from a damaged file."""
        return is_damaged_database(self._path, error)

    @contextmanager
    def _open(self, *, write: bool) -> Iterator[sqlite3.Connection]:
        if write:
            database = sqlite3.connect(self._path, timeout=10.0)
        else:
            # "rw", which SQLite turns into "ro" where it must: what a killed run left half
            # written has to be rolled back.
            database = sqlite3.connect(f"{self._path.absolute().as_uri()}?mode=rw", uri=True, timeout=10.0)
        with contextlib.closing(database), database:
            if write:
                database.execute("PRAGMA journal_mode = DELETE")
                database.execute(_TABLE)
                if "checksum" not in {column[1] for column in database.execute("PRAGMA table_info(run)")}:
                    database.execute("ALTER TABLE run ADD COLUMN checksum TEXT")
                database.execute(f"PRAGMA user_version = {FORMAT}")
            yield database


def _seal_rows(database: sqlite3.Connection, numbers: Iterable[int]) -> None:
    """Write the checksum of rows that were changed."""
    for number in numbers:
        for row in database.execute(f"SELECT {_COLUMNS} FROM run WHERE number = ?", (number,)).fetchall():
            database.execute("UPDATE run SET checksum = ? WHERE number = ?", (_hash_row(row), number))


def _check_rows(database: sqlite3.Connection) -> None:
    """Refuse a history in which a row is not as it was written; earlier ones have no checksum.

    Raises:
        sqlite3.DatabaseError: there is one.
    """
    has_checksums = "checksum" in {column[1] for column in database.execute("PRAGMA table_info(run)")}
    for *row, checksum in database.execute(f"SELECT {_COLUMNS}, {'checksum' if has_checksums else 'NULL'} FROM run"):
        if checksum is not None and checksum != _hash_row(row):
            raise sqlite3.DatabaseError(f"run {row[0]} is not as it was written")


def _hash_row(row: Sequence[Any]) -> str:
    return xxhash.xxh3_64_hexdigest(json.dumps(row, default=repr).encode())


def _read_entry(row: tuple[Any, ...]) -> HistoryEntry:
    values = dict(zip((one.name for one in fields(HistoryEntry)), row, strict=True))
    try:
        return HistoryEntry(**values | {"report": json.loads(values["report"])})
    except (TypeError, ValueError) as error:
        raise sqlite3.DatabaseError(f"the report of run {values['number']} is no JSON: {error}") from None
