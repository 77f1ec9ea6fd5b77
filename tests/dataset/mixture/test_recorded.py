"""A folder of results is read as its rows were, wherever nothing else is said."""

import json

import pytest

import thresher as th
from thresher.cli.main import main

WORDS = ["apple", "river", "stone", "cloud", "lamp", "horse", "paper", "green", "silver", "music"]
ROWS = [
    {"key": f"k{i}", "text": f"{word} product {i}", "label": "ab"[i % 2], "attributes": f"color {word}"}
    for i, word in enumerate(WORDS)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("recorded")
    (path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    columns = {"prompt": "text", "response": "attributes"}
    rows = th.load(path / "pool.jsonl", columns=columns, id_column="key")
    th.curate(rows, ["exact-duplicates"], out=path / "clean")
    th.select(rows, "random", budget=4, out=path / "chosen")
    return path


@pytest.mark.parametrize("name", ["clean", "chosen"])
def test_a_folder_remembers_columns_and_ids(folder, name):
    rows = th.load(folder / name)
    assert rows.kind == "sft"
    assert set(rows.frame["response"]) <= {row["attributes"] for row in ROWS}
    assert set(rows.frame["row_id"]) <= {row["key"] for row in ROWS}
    named = th.load(folder / name, schema="text-label")
    assert named.kind == "classification"


def test_a_folder_whose_rows_lost_the_columns_is_recognized_anew(folder, tmp_path):
    content = json.loads((folder / "clean/manifest.json").read_bytes())
    del content["run"]["seal"]
    (tmp_path / "manifest.json").write_text(json.dumps(content))
    (tmp_path / "rows.jsonl").write_text('{"text": "one", "label": "a"}\n{"text": "two", "label": "b"}\n')
    assert th.load(tmp_path).kind == "classification"


def test_the_next_commands_read_it_alike_and_other_rows_as_it(folder, tmp_path, capsys):
    others = [row | {"text": f"other {row['text']} here"} for row in ROWS[:3]]
    (tmp_path / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in others))
    place = str(folder / "clean")
    main(["select", place, "--budget", "3", "--method", "random", "--out", str(tmp_path / "next")])
    main(["curate", "clean", place, "--eval", str(tmp_path / "test.jsonl"), "--out", str(tmp_path / "again")])
    said = capsys.readouterr().err
    assert said.count("mapped: prompt=text, response=attributes") == 3
    assert "text-label" not in said
    main(["export", place, "--to", "trl", "--out", str(tmp_path / "trl"), "--quiet"])
    first = json.loads((tmp_path / "trl/train.jsonl").read_text().splitlines()[0])
    assert first["messages"][1]["content"] == "color apple"


def test_long_rows_that_were_allowed_are_read_again(tmp_path):
    rows = [{"text": "y" * 5_000_000, "label": "a"}, *({"text": f"g{i}", "label": "b"} for i in range(3))]
    (tmp_path / "pool.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    th.select(th.load(tmp_path / "pool.jsonl", max_row_bytes=8_000_000), "random", budget=4, out=tmp_path / "long")
    th.select(tmp_path / "pool.jsonl", "random", budget=2, out=tmp_path / "short")
    assert len(th.load(tmp_path / "long")) == len(th.open(tmp_path / "long")) == 4
    assert len(th.load(tmp_path / "long", max_row_bytes=1000)) == 3
    assert len(th.open(tmp_path / "short").pool) == 3
