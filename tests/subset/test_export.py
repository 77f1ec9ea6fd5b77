"""Kept rows in the form of other trainers, read back by what those trainers read with."""

from __future__ import annotations

import json
import runpy

import pytest

import thresher as th
from thresher.cli.main import main
from thresher.errors import InputError
from thresher.subset.export import export_rows

yaml = pytest.importorskip("yaml")
ROWS = {
    "sft": [{"instruction": f"Say {i} <é>", "input": "", "output": f"{i}"} for i in range(20)],
    "labels": [{"text": f"row {i}", "label": f"class {i % 2}"} for i in range(20)],
    "text": [{"text": f"only text {i}"} for i in range(20)],
}


@pytest.fixture(params=ROWS)
def chosen(request, tmp_path):
    path = tmp_path / "pool.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS[request.param]))
    th.select(str(path), "random", budget=6, out=tmp_path / "chosen")
    return request.param, tmp_path


def _expect(kind, folder):
    rows = [json.loads(line) for line in (folder / "chosen" / "subset.jsonl").read_text().splitlines()]
    if kind == "text":
        return rows
    pairs = [(r["instruction"], r["output"]) if kind == "sft" else (r["text"], r["label"]) for r in rows]
    return [{"messages": [{"role": "user", "content": p}, {"role": "assistant", "content": a}]} for p, a in pairs]


@pytest.mark.parametrize("to", ["trl", "llama-factory", "axolotl", "openai"])
def test_every_trainer_gets_the_kept_rows(chosen, to, capsys):
    kind, folder = chosen
    code = main(["export", str(folder / "chosen"), "--to", to, "--out", str(folder / "out")])
    if (kind, to) == ("text", "openai"):
        assert code == 2
        assert "rows that are text" in capsys.readouterr().err
        assert not (folder / "out").exists()
        return
    assert code == 0
    told = [json.loads(line) for line in (folder / "out" / "train.jsonl").read_text().splitlines()]
    assert told == _expect(kind, folder)
    if to == "trl":
        loaded = runpy.run_path(str(folder / "out" / "trl.py"))["load"]()
        assert list(loaded) == told
    if to == "llama-factory":
        (entry,) = json.loads((folder / "out" / "dataset_info.json").read_text()).values()
        assert (folder / "out" / entry["file_name"]).is_file()
        assert set(entry["columns"].values()) == set(told[0])
    if to == "axolotl":
        (entry,) = yaml.safe_load((folder / "out" / "axolotl.yaml").read_text())["datasets"]
        assert entry["path"] == "train.jsonl"
        assert (entry.get("field") or entry["field_messages"]) in told[0]


def test_what_a_form_has_no_room_for_is_refused(tmp_path, capsys):
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "3", "tool_call_id": "1"},
        {"role": "assistant", "content": "three"},
    ]
    path = tmp_path / "pool.jsonl"
    path.write_text(json.dumps({"messages": turns}) + "\n")
    th.select(str(path), "random", budget=1, out=tmp_path / "chosen")
    assert main(["export", str(tmp_path / "chosen"), "--to", "trl", "--out", str(tmp_path / "out")]) == 2
    assert "leave out rows with calls" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_folder_of_others_is_refused(tmp_path, capsys):
    assert main(["export", str(tmp_path), "--to", "trl", "--out", str(tmp_path / "out")]) == 2
    assert "must be a folder that thresher wrote" in capsys.readouterr().err


def test_tools_go_where_there_is_room_and_are_refused_elsewhere(tmp_path):
    tools = [{"type": "function", "function": {"name": "f"}}]
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "which?"}]
    rows = th.load([{"messages": turns, "tools": tools}, {"messages": turns}])
    lines = export_rows(rows, "openai", tmp_path / "openai").joinpath("train.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [{"messages": turns, "tools": tools}, {"messages": turns}]
    for to in ("trl", "llama-factory", "axolotl"):
        with pytest.raises(InputError, match=f"row 0: rows without tools are required for {to}"):
            export_rows(rows, to, tmp_path / to)
