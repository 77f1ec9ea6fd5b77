"""Whole numbers beyond 64 bits survive reading and writing, wherever they stand in a row."""

import datetime
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pytest

import thresher as th
from thresher.artifacts.json_text import encode_json, parse_json
from thresher.dataset.formats.table_shard import wrap_table
from thresher.errors import InputError
from thresher.models.causal_lm.tokenized_rows import row_texts

BIG = 123456789012345678901234567890


@pytest.mark.parametrize("value", [BIG, [BIG, -BIG], {"a": {"b": [1, {"c": BIG}]}, "d": 1.5, "e": None}, {"x": 2**64}])
def test_long_numbers_are_exact(value: Any) -> None:
    assert json.loads(encode_json(value)) == value
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value).encode()) == value
    assert parse_json(encode_json(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)) == value


def _wrap(value: Any, n_levels: int) -> Any:
    for _ in range(n_levels):
        value = {"a": [value]}
    return value


def _unwrap(value: Any, n_levels: int) -> Any:
    for _ in range(n_levels):
        (value,) = value["a"]
    return value


@pytest.mark.parametrize("option", [0, orjson.OPT_INDENT_2, orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE])
@pytest.mark.parametrize("n_levels", [0, 49, 50, 51, 110])
def test_what_orjson_cannot_write_is_written_as_orjson_writes_the_rest(n_levels: int, option: int) -> None:
    value = {"n": BIG, "at": datetime.datetime(2020, 1, 2), "no": math.nan, "e": [], 5: {}, "é": [1, {"b": True}]}
    short = _wrap({**value, "n": 12345}, n_levels)
    expected = orjson.dumps(short, option=option | orjson.OPT_NON_STR_KEYS)
    assert encode_json(_wrap(value, n_levels), option=option) == expected.replace(b"12345", str(BIG).encode())


def test_rows_of_any_depth_are_exact() -> None:
    text = encode_json(_wrap(BIG, 500))
    assert _unwrap(parse_json(text), 500) == BIG
    assert encode_json(_wrap(BIG, 3000)).count(b"[") == 3000
    around: list[Any] = []
    around.append([around])
    with pytest.raises(ValueError, match="holds itself"):
        encode_json(around)


def test_only_long_whole_numbers_are_read_anew() -> None:
    rest = f'1.{BIG},{BIG}.5,{BIG}e-3,"a\\"{BIG}","{BIG}"'
    first, *others = parse_json(f"[-{BIG},{rest}]")
    assert first == -BIG
    assert others == orjson.loads(f"[{rest}]")
    assert parse_json("9" * 308) == 10**308 - 1
    with pytest.raises(orjson.JSONDecodeError, match="infinity"):
        parse_json("9" * 310)


def test_other_values_are_as_orjson_writes_and_reads_them() -> None:
    value = {"b": [1, 2.5, -3, 1e300, 2**63, "1234567890123456789012"], "a": {"é": True}}
    for option in (0, orjson.OPT_SORT_KEYS, orjson.OPT_INDENT_2):
        assert encode_json(value, option=option) == orjson.dumps(value, option=option)
    assert parse_json(orjson.dumps(value)) == value
    assert encode_json({"at": Path("x"), "n": BIG}) == b'{"at":"x","n":%d}' % BIG
    with pytest.raises(orjson.JSONDecodeError):
        parse_json("{")


def test_a_value_nested_deeper_than_orjson_goes_is_written() -> None:
    deep: Any = BIG
    for _ in range(300):
        deep = [deep]
    assert json.loads(encode_json(deep)) == deep


def _select(rows: Path, out: Path) -> None:
    th.select(rows, "length", budget=5, out=out)


def _curate(rows: Path, out: Path) -> None:
    th.curate(rows, rules=["pii"], out=out)


def _ask(rows: Path, out: Path) -> None:
    th.ask_labels(rows, out=out, batch=5, encoder="static", columns={"text": "output"})


@pytest.mark.parametrize("command", [_select, _curate, _ask])
def test_commands_keep_long_numbers_in_nested_columns(command: Callable[[Path, Path], None], tmp_path: Path) -> None:
    rows = [{"instruction": f"q {i}", "output": f"it is {i}, ask a@b.com", "meta": {"id": BIG + i}} for i in range(12)]
    source = tmp_path / "rows.jsonl"
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command(source, tmp_path / "out")
    written = "".join(path.read_text() for path in (tmp_path / "out").glob("*.jsonl"))
    assert sum(str(row["meta"]["id"]) in written for row in rows) >= 5
    assert "e+29" not in written
    pool = th.load(source)
    assert json.loads(pool.column("meta")[3]) == {"id": BIG + 3}
    with pytest.raises(InputError, match="at most 64 bits are required, found longer ones"):
        pool.to_datasets()


def test_arguments_of_calls_keep_long_numbers() -> None:
    call = {"function": {"name": "find", "arguments": {"id": BIG}}}
    turns = [{"role": "user", "content": "find it"}, {"role": "assistant", "content": "", "tool_calls": [call]}]
    for form in (turns, json.dumps(turns)):
        pool = th.load([{"messages": form}])
        assert str(BIG) in pool.frame["response"][0]
        assert pool.messages([0])[0].messages[1]["tool_calls"][0]["function"]["arguments"] == {"id": BIG}
        assert str(BIG) in row_texts(pool)[0]


def test_tools_as_json_text_keep_long_numbers() -> None:
    turns = [{"role": "user", "content": "find"}, {"role": "assistant", "content": "it"}]
    tools = [{"type": "function", "function": {"name": "f", "parameters": {"max": BIG}}}]
    pool = th.load([{"messages": json.dumps(turns), "tools": json.dumps(tools)}])
    assert pool.messages([0])[0].tools == tools


@pytest.mark.parametrize("ending", ["csv", "parquet", "json"])
def test_rows_that_differ_in_a_long_number_alone_are_no_duplicates(ending: str, tmp_path: Path) -> None:
    def write_turns(n: int) -> str:
        call = {"function": {"name": "find", "arguments": {"id": n}}}
        answer = {"role": "assistant", "content": "", "tool_calls": [call]}
        return json.dumps([{"role": "user", "content": "q"}, answer])

    frame = pl.DataFrame({"messages": [write_turns(BIG + i) for i in range(3)], "n": [1, 2, 3]})
    path = tmp_path / f"rows.{ending}"
    if ending == "json":  # a table by column
        path.write_text(json.dumps({name: dict(enumerate(frame[name])) for name in frame.columns}))
    else:
        frame.write_csv(path) if ending == "csv" else frame.write_parquet(path)
    pool = th.load(path)
    assert pool.frame["row_id"].n_unique() == 3
    assert len(th.curate(pool, rules=["exact-duplicates"]).dataset) == 3


def test_what_json_has_no_form_for_is_null_in_a_column_of_a_table_that_is_written_as_text() -> None:
    table = pa.table({"scores": [[1.0, float("nan")], [float("inf")], None], "n": [1, 2, 3]})
    shard = wrap_table(table, "<table>").write_as_text(["scores"])
    texts = shard.take_rows(np.arange(3))["scores"].to_pylist()
    assert texts == ["[1.0,null]", "[null]", None]


def test_a_table_by_column_keeps_long_numbers(tmp_path: Path) -> None:
    columns = {"text": ["a", "b"], "label": ["x", "y"], "id": [BIG, BIG + 1]}
    (tmp_path / "t.json").write_text(json.dumps({name: dict(enumerate(each)) for name, each in columns.items()}))
    assert [row["id"] for row in th.load(tmp_path / "t.json").rows([0, 1])] == [BIG, BIG + 1]
