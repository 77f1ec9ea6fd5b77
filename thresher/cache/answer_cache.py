"""Answers of servers, each stored as soon as it is there, so that none is paid for twice."""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import orjson
import xxhash

from thresher.artifacts.damaged_database import is_damaged_database, move_aside
from thresher.errors import OutputError

FILE = Path("answers-v1") / "answers.sqlite"
WAIT_S = 60.0  # for another process that writes
PER_LOOKUP = 500  # keys in one query
TABLE = "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, model TEXT, answer BLOB, stored REAL, checksum TEXT)"
PAGE = 4096  # bytes of a page of the file


class AnswerCache:
    """One SQLite file below the cache's folder, safe against kills, threads and other processes.

    What is there was paid for, so the size limit of the feature cache does not touch it. It holds
    no key. Each answer carries a checksum; one that does not fit is asked for again. A file that
    is damaged is put aside, and what can be read of it goes into a new one.
    """

    def __init__(self, root: Path | None, *, on_damage: Callable[[str], None] | None = None) -> None:
        """Open the store.

        Args:
            root: folder of the cache; None keeps answers in memory.
            on_damage: told in a sentence of what was found damaged.

        Raises:
            OutputError: the file cannot be opened.
        """
        self._path = None if root is None else root / FILE
        self._on_damage = on_damage
        self._lock = threading.RLock()
        self._inode: int | None = None  # of the file that is open
        with self._explain_errors():
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._open()

    @classmethod
    def read_stored(cls, root: Path, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the stored ones of some answers; nothing is created where there is no store."""
        if not (root / FILE).is_file():
            return {}
        store = cls(root)
        try:
            return store.get(keys)
        finally:
            store.close()

    def get(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """Return the answers that are there, as they were stored."""
        with self._explain_errors():
            answers = self._find(keys)
            if len(answers) < len(set(keys)) and self._has_damaged_index():
                answers = self._find(keys)
        return answers

    def _find(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        answers: dict[str, dict[str, Any]] = {}
        n_damaged = 0
        for start in range(0, len(keys), PER_LOOKUP):
            part = list(keys[start : start + PER_LOOKUP])
            query = f"SELECT key, answer, checksum FROM answers WHERE key IN ({','.join('?' * len(part))})"
            for key, answer, checksum in self._run(query, part):
                if _is_whole(key, answer, checksum):
                    answers[key] = orjson.loads(answer)
                else:
                    n_damaged += 1
        if n_damaged:
            self._report(f"{self._path}: stored answers that are damaged, and are asked for again: {n_damaged:,}")
        return answers

    def _has_damaged_index(self) -> bool:
        """Replace a file that does not find what it holds, and tell whether it was replaced."""
        with self._lock:
            if self._path is None or self._run("PRAGMA integrity_check(1)", ()) == [("ok",)]:
                return False
            self._db.close()
            self._replace()
            self._connect()
        return True

    def put(self, key: str, model: str, answer: dict[str, Any]) -> None:
        """Store an answer; it is on the disk when this returns."""
        with self._explain_errors():
            content = orjson.dumps(answer)
            row = (key, model, content, time.time(), _hash_answer(key, content))
            self._run("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", row)

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    def _run(self, statement: str, values: Sequence[Any]) -> list[Any]:
        """Run a statement, once more where the file had to be replaced."""
        with self._lock:
            try:
                return self._execute(statement, values)
            except sqlite3.Error as error:
                if not self._is_damage(error):
                    raise
                self._db.close()
                self._replace()
                self._connect()
                return self._execute(statement, values)

    def _execute(self, statement: str, values: Sequence[Any]) -> list[Any]:
        rows = self._db.execute(statement, values).fetchall()
        self._db.commit()
        return rows

    def _open(self) -> None:
        try:
            self._connect()
        except sqlite3.Error as error:
            if not self._is_damage(error):
                raise
            self._replace()
            self._connect()

    def _connect(self) -> None:
        self._db = sqlite3.connect(self._path or ":memory:", timeout=WAIT_S, check_same_thread=False)
        try:
            self._db.execute(f"PRAGMA page_size={PAGE}")
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("BEGIN IMMEDIATE")
            self._db.execute(TABLE)
            if "checksum" not in {column[1] for column in self._db.execute("PRAGMA table_info(answers)")}:
                self._db.execute("ALTER TABLE answers ADD COLUMN checksum TEXT")
            self._db.commit()
        except BaseException:
            self._db.close()
            raise
        self._inode = None if self._path is None else self._path.stat().st_ino

    def _is_damage(self, error: sqlite3.Error) -> bool:
        return self._path is not None and is_damaged_database(self._path, error)

    def _replace(self) -> None:
        """Put the damaged file aside, and store what can be read of it anew."""
        path = self._path
        if path is None or self._inode not in (None, path.stat().st_ino):
            return  # another process has replaced it
        aside = move_aside(path)
        rows = _salvage(aside)
        self._connect()
        self._db.executemany("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?, ?)", rows.values())
        self._db.commit()
        self._db.close()
        self._report(
            f"{path}: the stored answers of servers were damaged; {len(rows):,} could be read and are kept, the file "
            f"is now {aside.name}"
        )

    def _report(self, sentence: str) -> None:
        if self._on_damage is not None:
            self._on_damage(sentence)

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"{self._path}: the answers of servers must be kept in a file that can be read and written, got "
                f"'{error}'; fix that, or point THRESHER_CACHE to another folder"
            ) from None


def _hash_answer(key: str, answer: bytes) -> str:
    return xxhash.xxh3_64_hexdigest(key.encode() + b"\0" + answer)


def _is_whole(key: Any, answer: Any, checksum: Any) -> bool:
    """Tell whether an answer is what was stored under its key; earlier ones have no checksum."""
    if not isinstance(key, str) or not isinstance(answer, bytes):
        return False
    if checksum is not None:
        return bool(checksum == _hash_answer(key, answer))
    try:
        return isinstance(orjson.loads(answer), dict)
    except orjson.JSONDecodeError:
        return False


def _build_first_page() -> bytearray:
    """Return the first page of an empty store, with a write-ahead log."""
    with closing(sqlite3.connect(":memory:")) as database:
        database.execute(f"PRAGMA page_size={PAGE}")
        database.execute(TABLE)
        page = bytearray(database.serialize()[:PAGE])
    page[18:20] = b"\2\2"
    return page


def _salvage(path: Path) -> dict[str, tuple[Any, ...]]:
    """Return the whole rows of a damaged file by key, from both ends up to what cannot be read.

    The first page says what the others are, and is that of a fresh file but for their number.
    """
    with suppress(OSError), path.open("r+b") as file:
        n_pages = file.seek(0, os.SEEK_END) // PAGE
        first = _build_first_page()
        first[28:32] = n_pages.to_bytes(4)
        file.seek(0)
        file.write(first)
    rows: dict[str, tuple[Any, ...]] = {}
    query = "SELECT key, model, answer, stored, checksum FROM answers NOT INDEXED ORDER BY rowid"
    for order in ("ASC", "DESC"):
        with suppress(sqlite3.Error), closing(sqlite3.connect(path, timeout=WAIT_S)) as database:
            for key, model, answer, stored, checksum in database.execute(f"{query} {order}"):
                if _is_whole(key, answer, checksum):
                    rows[key] = (key, model, answer, stored, checksum)
    return rows
