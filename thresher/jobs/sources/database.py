"""Rows from a database: SQLite by the standard library, others by polars with connectorx."""

from __future__ import annotations

import contextlib
import re
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import polars as pl

from thresher.errors import InputError, MissingExtraError, SettingsError
from thresher.jobs.sources.addresses import Addresses, redact_address

SQLITE = "sqlite"
SINCE = ":since"
BEGINNING = "0001-01-01T00:00:00+00:00"
BATCH_ROWS = 10_000
_WAIT_S = 0.2  # between two looks whether a signal came
_COMMENT = re.compile(r"--[^\n]*(?:\n|$)|/\*.*?\*/", re.DOTALL)
_READING = re.compile(r"\s*\(*\s*(?:select|with|values|table)\b", re.IGNORECASE)
_READ_ONLY = {  # what a session says first, by the scheme of the address
    "postgres": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "postgresql": "SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY",
    "mysql": "SET SESSION TRANSACTION READ ONLY",
}
_ALLOWED = {  # of what a statement of SQLite may do
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
_REFUSALS = ("not authorized", "authorization denied", "prohibited", "readonly database")
_Result = TypeVar("_Result")


def read_query(
    url: str, query: str, *, since: datetime | None, addresses: Addresses, where: str, base: Path
) -> pl.DataFrame:
    """Return the result of a query, which cannot change the database.

    Args:
        url: of the database, with `${NAME}` for environment variables.
        query: SQL that reads.
        since: for `:since` in the query, as text; None for the beginning of time.
        addresses: resolves the address, and remembers its secrets.
        where: name of the source, for messages.
        base: folder from which the path of a SQLite file starts.

    Raises:
        InputError: the database cannot be read, the query does not only read, or the result has no
            rows' columns.
    """
    resolved = addresses.resolve(url, where=where)
    start = BEGINNING if since is None else since.isoformat()
    try:
        if urlsplit(resolved).scheme == SQLITE:
            return _query_sqlite(resolved, query, start, base)
        return _query_other(resolved, query, start)
    except (sqlite3.Error, OSError, RuntimeError, ValueError, pl.exceptions.PolarsError) as error:
        if isinstance(error, InputError | SettingsError):
            raise
        first_line = addresses.redact(str(error)).split("\n")[0].rstrip(".")
        raise InputError(
            f"{where}: the query must be readable at {redact_address(url)}, got '{first_line}'; "
            "check address, rights and query"
        ) from None


def _query_sqlite(url: str, query: str, start: str, base: Path) -> pl.DataFrame:
    """Read a SQLite file, which is opened for reading only, in batches."""
    path = unquote(urlsplit(url).path)
    path = path[1:] if path.startswith("//") else path.removeprefix("/")  # sqlite:///pool.db and sqlite:////srv/pool.db
    if not path:
        raise InputError(f"sqlite: the address must name a file such as sqlite:///pool.db, got '{redact_address(url)}'")
    place = f"{(base / path).absolute().as_uri()}?mode=ro"
    database = sqlite3.connect(place, uri=True, timeout=30.0, check_same_thread=False)

    def read() -> pl.DataFrame:
        with contextlib.closing(database):
            # A file that is opened for reading still lets ATTACH and VACUUM INTO write others.
            database.set_authorizer(_authorize)
            cursor = database.execute(query, {"since": start} if SINCE in query else {})
            names = [column[0] for column in cursor.description or ()]
            if not names:
                raise InputError("sqlite: the query must return rows, it is no SELECT; give one")
            _check_names(names)
            return _join_batches(names, iter(lambda: cursor.fetchmany(BATCH_ROWS), []))

    try:
        return _call_in_thread(read, database.interrupt)
    except sqlite3.DatabaseError as error:
        if any(words in str(error) for words in _REFUSALS):
            raise InputError("sqlite: the query must only read, it would change something; give a SELECT") from None
        raise


def _authorize(action: int, *_: str | None) -> int:
    return sqlite3.SQLITE_OK if action in _ALLOWED else sqlite3.SQLITE_DENY


def _check_names(names: Sequence[str]) -> None:
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the columns of a query must differ, found '{repeated}' twice; rename one with AS")


def _join_batches(names: Sequence[str], batches: Iterator[list[tuple[Any, ...]]]) -> pl.DataFrame:
    """Return rows as a frame; a column of mixed types, which SQLite allows, becomes text."""
    parts: list[list[pl.Series]] = [[] for _ in names]
    kinds: list[set[type]] = [set() for _ in names]
    for rows in batches:
        for number, values in enumerate(zip(*rows, strict=True)):
            kinds[number] |= {type(value) for value in values if value is not None}
            parts[number].append(_build_series(values))
    return pl.DataFrame([_join_parts(*column) for column in zip(names, parts, kinds, strict=True)])


def _build_series(values: Sequence[Any]) -> pl.Series:
    """Return values as whole numbers, as numbers, or as the text of each."""
    kinds = {type(value) for value in values if value is not None}
    if kinds <= {int}:
        return pl.Series(values, dtype=pl.Int64 if kinds else pl.Null)
    if kinds == {float}:
        return pl.Series(values, dtype=pl.Float64)
    return pl.Series([_to_text(value) for value in values], dtype=pl.String)


def _join_parts(name: str, parts: Sequence[pl.Series], kinds: set[type]) -> pl.Series:
    """Join the batches of a column; its type is that of all values, whatever batch they are in."""
    if kinds == {int}:
        kind: Any = pl.Int64
    elif kinds and kinds <= {int, float}:
        kind, parts = pl.Float64, [_read_numbers(part) for part in parts]
    else:
        kind, parts = pl.String, [_write_texts(part) for part in parts]
    return pl.concat([pl.Series(name, [], dtype=kind), *(part.alias(name).cast(kind) for part in parts)])


def _read_numbers(part: pl.Series) -> pl.Series:
    """Return a batch of numbers, which are texts where it mixed whole ones with others."""
    if part.dtype != pl.String:
        return part
    return pl.Series([None if value is None else float(value) for value in part.to_list()], dtype=pl.Float64)


def _write_texts(part: pl.Series) -> pl.Series:
    if part.dtype == pl.String:
        return part
    return pl.Series([_to_text(value) for value in part.to_list()], dtype=pl.String)


def _to_text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)


def _query_other(url: str, query: str, start: str) -> pl.DataFrame:
    import importlib.util

    scheme = urlsplit(url).scheme.partition("+")[0]
    if importlib.util.find_spec("connectorx") is None:
        raise MissingExtraError("connectorx", f"a database of {scheme}", "sql")
    if _READING.match(_COMMENT.sub(" ", query)) is None:
        raise InputError(f"{scheme}: the query must only read, it does not begin with SELECT or WITH; give a SELECT")
    # The start is an ISO time of ours, and holds nothing that could end the quotes.
    filled = query.replace(SINCE, f"'{start}'")
    first = _READ_ONLY.get(scheme)
    return _call_in_thread(lambda: pl.read_database_uri(filled, url, pre_execution_query=first))


def _call_in_thread(call: Callable[[], _Result], interrupt: Callable[[], None] = lambda: None) -> _Result:
    """Call in another thread, so that a signal can end this one: in a driver no handler runs.

    Args:
        call: what to do.
        interrupt: called when this thread leaves before the other.
    """
    results: list[_Result] = []
    errors: list[Exception] = []

    def run() -> None:
        try:
            results.append(call())
        except Exception as error:  # noqa: BLE001 - raised again below
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        while thread.is_alive():
            thread.join(_WAIT_S)
    except BaseException:
        interrupt()
        raise
    if errors:
        raise errors[0]
    return results[0]
