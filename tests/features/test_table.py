"""`score`: the features alone, as a table in the order of the file."""

from __future__ import annotations

import inspect
import json
import os

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.cli.main import main
from thresher.features import compute, make_context

ROWS = [
    {"prompt": f"question {i}", "completion": f"answer number {i} " * (i % 4 + 1), "grade": i / 10} for i in range(12)
]


@pytest.fixture
def pool(tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*ROWS, {"prompt": "no answer"}]))
    return path


def test_values_are_those_that_the_selectors_see_in_the_order_of_the_file(pool):
    dataset = th.load(pool)
    made = th.score(dataset, "length, number:grade,embedding", encoder="static")
    expected = compute(dataset, {"length", "embedding"}, make_context(encoder="static"))
    assert made.frame.columns == ["row_id", "length", "number:grade", "number:grade_missing", "embedding"]
    assert made.frame["row_id"].equals(dataset.frame["row_id"])
    np.testing.assert_array_equal(made.frame["length"].to_numpy(), expected["length"])
    np.testing.assert_array_equal(made.frame["embedding"].to_numpy(), expected["embedding"])
    assert made.frame["number:grade"].to_list() == [row["grade"] for row in ROWS]
    assert made.manifest.content["counts"]["rejected_by_reason"] == {"field 'completion' is missing": 1}


def test_a_row_without_a_value_is_null_and_has_its_reason(tmp_path):
    rows = [{"prompt": "a", "completion": "b", "grade": 1.5}, {"prompt": "c", "completion": "d", "grade": None}]
    frame = th.score(rows, ["number:grade"]).frame
    assert frame["number:grade"].to_list() == [1.5, None]
    assert frame["number:grade_missing"].to_list() == [None, "its column 'grade' holds no number"]


def test_a_feature_of_named_parts_has_a_column_for_each(pool):
    frame = th.score(pool, "ngram").frame
    assert frame.columns == ["row_id", "ngram_bucket", "ngram_count", "ngram_missing"]
    assert frame["ngram_count"].dtype.is_nested()


@pytest.mark.parametrize("name", ["table.parquet", "table.csv", "table.jsonl"])
def test_a_written_table_is_read_back_and_the_same_work_is_not_done_again(pool, tmp_path, name):
    out = tmp_path / "deep" / name
    made = th.score(pool, "length,number:grade", out=out)
    before = out.stat().st_mtime_ns
    again = th.score(pool, "length,number:grade", out=out)
    assert out.stat().st_mtime_ns == before
    assert again.frame.equals(made.frame.with_columns(pl.col("number:grade_missing").cast(pl.String)))
    assert again.manifest.identity == made.manifest.identity
    assert sorted(path.name for path in out.parent.iterdir()) == [name, f"{name}.manifest.json"]


def test_other_work_replaces_a_table_only_by_force_and_a_file_of_the_user_never(pool, tmp_path):
    out = tmp_path / "table.csv"
    th.score(pool, "length", out=out)
    with pytest.raises(th.ThresherError, match=r"must be a new file.*--force"):
        th.score(pool, "number:grade", out=out)
    assert "number:grade" in th.score(pool, "number:grade", out=out, force=True).frame.columns
    assert out.read_text().startswith("row_id,number:grade")
    mine = tmp_path / "mine.csv"
    mine.write_text("my own file")
    with pytest.raises(th.ThresherError, match="choose another --out"):
        th.score(pool, "length", out=mine, force=True)
    assert mine.read_text() == "my own file"


def test_what_cannot_be_written_is_refused(pool, tmp_path, monkeypatch):
    with pytest.raises(th.ThresherError, match=r"must end in one of \.parquet, \.csv"):
        th.score(pool, "length", out=tmp_path / "table.xlsx")
    with pytest.raises(th.ThresherError, match="its parent folder must be writable, got 'File exists'"):
        th.score(pool, "length", out=pool / "table.csv")
    with monkeypatch.context() as patch:
        # as of a folder that only others may write
        patch.setattr(os, "access", lambda _path, _mode: False)
        with pytest.raises(th.ThresherError, match="its parent folder must be writable, got 'Permission denied'"):
            th.score(pool, "length", out=tmp_path / "table.csv")
    with pytest.raises(th.ThresherError, match="'embedding' has several; choose .parquet"):
        th.score(pool, "embedding", encoder="static", out=tmp_path / "table.csv")
    with pytest.raises(th.ThresherError, match="must name at least one"):
        th.score(pool, " , ")
    assert [path.name for path in tmp_path.iterdir()] == ["pool.jsonl"]


def test_the_command_writes_json_lines_to_stdout_and_counts_to_stderr(pool, capsys):
    assert main(["score", str(pool), "--features", "length"]) == 0
    streams = capsys.readouterr()
    lines = [json.loads(line) for line in streams.out.splitlines()]
    assert len(lines) == len(ROWS)
    assert set(lines[0]) == {"row_id", "length"}
    assert "12 rows, 1 rejected" in streams.err
    assert "  1 field 'completion' is missing\n" in streams.err


def test_an_unknown_feature_ends_with_one_sentence(pool, capsys):
    assert main(["score", str(pool), "--features", "lenght"]) == 2
    assert "did you mean 'length'?" in capsys.readouterr().err


def test_the_command_has_the_names_and_defaults_of_the_function():
    from thresher.cli.score import score as command

    told = {**inspect.signature(th.load).parameters, **inspect.signature(th.score).parameters}
    for name, parameter in inspect.signature(command).parameters.items():
        # --source may stand for the pool
        if name not in {"as_json", "quiet", "sources", "pool", "dry_run"}:
            assert name in told, name
            assert parameter.default == told[name].default, name
