"""Rows of a database: read in batches, by a query that can change nothing, until a signal."""

import os
import signal
import sqlite3
import threading
import time

import polars as pl
import pytest

from thresher.errors import InputError
from thresher.jobs.sources import database as module
from thresher.jobs.sources.addresses import Addresses
from thresher.jobs.sources.database import read_query


@pytest.fixture
def base(tmp_path):
    with sqlite3.connect(tmp_path / "pool.db") as database:
        database.execute("CREATE TABLE t (n INTEGER, mixed, late, numbers, bytes BLOB, empty)")
        rows = [(i, 1, 1, 1 if i % 2 else 1.5, b"\xff", None) for i in range(4)] + [(4, "x", 1.5, 2, b"a", None)]
        rows += [(5, 2.0, "text", 3, None, None)]
        database.executemany("INSERT INTO t VALUES (?, ?, ?, ?, ?, ?)", rows)
    database.close()
    return tmp_path


def read(base, query, url="sqlite:///pool.db"):
    return read_query(url, query, since=None, addresses=Addresses(), where="sql-1", base=base)


@pytest.mark.parametrize("batch", [1, 2, 3, 100])
def test_the_result_does_not_depend_on_the_batches(base, batch, monkeypatch):
    monkeypatch.setattr(module, "BATCH_ROWS", batch)
    frame = read(base, "SELECT * FROM t ORDER BY n")
    assert frame.to_dict(as_series=False) == {
        "n": [0, 1, 2, 3, 4, 5],
        "mixed": ["1", "1", "1", "1", "x", "2.0"],
        "late": ["1", "1", "1", "1", "1.5", "text"],
        "numbers": [1.5, 1.0, 1.5, 1.0, 2.0, 3.0],
        "bytes": ["\ufffd"] * 4 + ["a", None],
        "empty": [None] * 6,
    }
    kinds = (pl.Int64, pl.String, pl.String, pl.Float64, pl.String, pl.String)
    assert frame.dtypes == list(kinds)
    assert read(base, "SELECT n FROM t WHERE n > 9").schema == {"n": pl.String}


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM t",
        "INSERT INTO t (n) VALUES (9)",
        "DELETE FROM t RETURNING n",
        "WITH x AS (SELECT 1) UPDATE t SET n = 2 RETURNING n",
        "ATTACH DATABASE 'other.db' AS other",
        "VACUUM INTO 'copy.db'",
        "CREATE TABLE u (n)",
        "CREATE TEMP TABLE u AS SELECT 1",
        "DROP TABLE t",
        "PRAGMA user_version = 5",
        "PRAGMA journal_mode = WAL",
    ],
)
def test_a_query_that_would_change_something_is_refused(base, query, monkeypatch):
    monkeypatch.chdir(base)
    before = {path.name: path.read_bytes() for path in base.iterdir()}
    with pytest.raises(InputError, match="must only read"):
        read(base, query)
    assert {path.name: path.read_bytes() for path in base.iterdir()} == before


def test_what_only_reads_is_read(base):
    numbers = "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c WHERE x < 5) "
    joined = "SELECT upper(t.mixed) AS a, count(*) AS n FROM t JOIN c ON c.x = t.n GROUP BY a ORDER BY a"
    assert read(base, numbers + joined).rows() == [("1", 3), ("2.0", 1), ("X", 1)]


@pytest.mark.parametrize("query", ["DROP TABLE t", "/* SELECT */ UPDATE t SET n = 1", "-- SELECT\nCALL drop_all()"])
def test_another_database_is_asked_only_what_reads(base, query, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    with pytest.raises(InputError, match="must only read"):
        read(base, query, url="postgresql://host/db")


@pytest.mark.parametrize(("scheme", "first"), [("postgresql", "READ ONLY"), ("mysql", "READ ONLY")])
def test_another_database_is_told_that_the_session_only_reads(base, scheme, first, monkeypatch):
    asked = {}
    monkeypatch.setattr("importlib.util.find_spec", lambda name: name)
    monkeypatch.setattr(
        pl, "read_database_uri", lambda query, url, **more: asked.update(more) or pl.DataFrame({"a": [1]})
    )
    assert read(base, "-- rows\nSELECT 1 AS a", url=f"{scheme}://host/db").height == 1
    assert first in asked["pre_execution_query"]


class Stopped(BaseException):
    pass


def test_a_signal_ends_a_query_that_would_run_for_ever(base, monkeypatch):
    def stop(*_):
        raise Stopped

    before = signal.signal(signal.SIGTERM, stop)
    try:
        threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
        began = time.monotonic()
        with pytest.raises(Stopped):
            read(base, "WITH RECURSIVE c(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM c) SELECT count(*) AS n FROM c")
        assert time.monotonic() - began < 60
    finally:
        signal.signal(signal.SIGTERM, before)
