"""Answers of servers, each stored as soon as it is there, so that none is paid for twice."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from thresher.errors import OutputError

FILE = Path("answers-v1") / "answers.sqlite"
WAIT_S = 60.0  # for another process that writes
PER_LOOKUP = 500  # keys in one query


class AnswerCache:
    """One SQLite file below the cache's folder, safe against kills, threads and other processes.

    What is there was paid for, so the size limit of the feature cache does not touch it. It holds
    no key.
    """

    def __init__(self, root: Path | None) -> None:
        """Open the store.

        Args:
            root: folder of the cache; None keeps answers in memory.

        Raises:
            OutputError: the file cannot be opened.
        """
        self._path = None if root is None else root / FILE
        self._lock = threading.Lock()
        with self._explain_errors():
            if self._path is not None:
                self._path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(self._path or ":memory:", timeout=WAIT_S, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute(
                "CREATE TABLE IF NOT EXISTS answers (key TEXT PRIMARY KEY, model TEXT, answer BLOB, stored REAL)"
            )
            self._db.commit()

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
        """Return the answers that are there."""
        answers: dict[str, dict[str, Any]] = {}
        with self._lock, self._explain_errors():
            for start in range(0, len(keys), PER_LOOKUP):
                part = list(keys[start : start + PER_LOOKUP])
                query = f"SELECT key, answer FROM answers WHERE key IN ({','.join('?' * len(part))})"
                answers |= {key: orjson.loads(answer) for key, answer in self._db.execute(query, part)}
        return answers

    def put(self, key: str, model: str, answer: dict[str, Any]) -> None:
        """Store an answer; it is on the disk when this returns."""
        with self._lock, self._explain_errors():
            row = (key, model, orjson.dumps(answer), time.time())
            self._db.execute("INSERT OR REPLACE INTO answers VALUES (?, ?, ?, ?)", row)
            self._db.commit()

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _explain_errors(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"{self._path}: the answers of servers must be kept in a file that can be read and written, got "
                f"'{error}'; fix that, or point THRESHER_CACHE to another folder"
            ) from None
