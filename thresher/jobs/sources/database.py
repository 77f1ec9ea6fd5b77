"""Rows from a database: SQLite by the standard library, others by polars with connectorx."""

from __future__ import annotations

import sqlite3
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import polars as pl

from thresher.errors import InputError, MissingExtraError, SettingsError
from thresher.jobs.sources.addresses import Addresses, redact_address

SQLITE = "sqlite"
SINCE = ":since"
BEGINNING = "0001-01-01T00:00:00+00:00"


def read_query(
    url: str, query: str, *, since: datetime | None, addresses: Addresses, where: str, base: Path
) -> pl.DataFrame:
    """Return the result of a query.

    Args:
        url: of the database, with `${NAME}` for environment variables.
        query: SQL that reads.
        since: for `:since` in the query, as text; None for the beginning of time.
        addresses: resolves the address, and remembers its secrets.
        where: name of the source, for messages.
        base: folder from which the path of a SQLite file starts.

    Raises:
        InputError: the database cannot be read, or the result has no rows' columns.
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
    """Read a SQLite file, which is opened for reading only."""
    path = unquote(urlsplit(url).path)
    path = path[1:] if path.startswith("//") else path.removeprefix("/")  # sqlite:///pool.db and sqlite:////srv/pool.db
    if not path:
        raise InputError(f"sqlite: the address must name a file such as sqlite:///pool.db, got '{redact_address(url)}'")
    database = sqlite3.connect(f"{(base / path).absolute().as_uri()}?mode=ro", uri=True, timeout=30.0)
    try:
        cursor = database.execute(query, {"since": start} if SINCE in query else {})
        names = [column[0] for column in cursor.description or ()]
        rows = cursor.fetchall()
    finally:
        database.close()
    if not names:
        raise InputError("sqlite: the query must return rows, it is no SELECT; give one")
    return _build_frame(names, rows)


def _build_frame(names: list[str], rows: list[tuple[Any, ...]]) -> pl.DataFrame:
    """Return rows as a frame; a column of mixed types, which SQLite allows, becomes text."""
    if len(set(names)) < len(names):
        repeated = next(name for name in names if names.count(name) > 1)
        raise InputError(f"the columns of a query must differ, found '{repeated}' twice; rename one with AS")
    columns: dict[str, pl.Series] = {}
    for number, name in enumerate(names):
        values = [row[number] for row in rows]
        kinds = {type(value) for value in values if value is not None}
        if kinds == {int, float}:
            values = [None if value is None else float(value) for value in values]
        elif len(kinds) > 1 or kinds == {bytes}:
            values = [_to_text(value) for value in values]
        columns[name] = pl.Series(name, values, dtype=None if kinds else pl.String, strict=True)
    return pl.DataFrame(columns)


def _to_text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return None if value is None else str(value)


def _query_other(url: str, query: str, start: str) -> pl.DataFrame:
    import importlib.util

    if importlib.util.find_spec("connectorx") is None:
        raise MissingExtraError("connectorx", f"a database of {urlsplit(url).scheme}", "sql")
    # The start is an ISO time of ours, and holds nothing that could end the quotes.
    return pl.read_database_uri(query.replace(SINCE, f"'{start}'"), url)
