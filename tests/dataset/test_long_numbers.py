"""Whole numbers beyond 64 bits survive reading and writing, wherever they stand in a row."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson
import pytest

import thresher as th
from thresher.artifacts.json_text import encode_json, parse_json
from thresher.errors import InputError
from thresher.models.causal_lm.tokenized_rows import row_texts

BIG = 123456789012345678901234567890


@pytest.mark.parametrize("value", [BIG, [BIG, -BIG], {"a": {"b": [1, {"c": BIG}]}, "d": 1.5, "e": None}, {"x": 2**64}])
def test_long_numbers_are_exact(value: Any) -> None:
    assert json.loads(encode_json(value)) == value
    assert parse_json(json.dumps(value)) == parse_json(json.dumps(value).encode()) == value
    assert parse_json(encode_json(value, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE)) == value


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
    pool = th.load([{"messages": turns}])
    assert str(BIG) in pool.frame["response"][0]
    assert pool.messages([0])[0].messages[1]["tool_calls"][0]["function"]["arguments"] == {"id": BIG}
    assert str(BIG) in row_texts(pool)[0]
