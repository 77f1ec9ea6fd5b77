"""What was read stands in the manifest of each result, and on its page."""

import json

import thresher as th
from thresher.artifacts.manifest import Manifest
from thresher.cli.options import list_side_notes
from thresher.dataset.provenance import describe_sides
from thresher.reporting.pages.reproduce import build_reproduction

ROWS = [{"prompt": f"question {i}", "completion": f"answer {i}", "topic": "x", "note": "|"} for i in range(12)]
POOL = {
    "kind": "sft",
    "schema": "prompt-completion",
    "columns": {"prompt": ["prompt"], "response": ["completion"]},
    "not_read": ["topic", "note"],
    "summary": "prompt-completion: prompt=prompt, response=completion; other columns: topic, note",
}


def drop_columns(*names):
    return [{name: value for name, value in row.items() if name not in names} for row in ROWS[:3]]


def test_a_selection_says_it_of_all_sides(tmp_path):
    subset = th.select(
        ROWS, "facility-location", budget=4, encoder="static", existing=drop_columns("topic"), out=tmp_path / "a"
    )
    reading = json.loads((tmp_path / "a" / "manifest.json").read_bytes())["reading"]
    assert subset.manifest.content["reading"] == reading
    assert reading["pool"] == POOL
    assert reading["existing"]["not_read"] == ["note"]


def test_a_curation_says_it_of_all_sides():
    curated = th.curate(ROWS, ["exact-duplicates"], eval=[{"prompt": "other", "completion": "b"}])
    assert curated.manifest.content["reading"]["pool"] == POOL
    assert curated.manifest.content["reading"]["eval"]["not_read"] == []


def test_a_score_table_says_it_of_the_rows(tmp_path):
    th.score(ROWS, "length", out=tmp_path / "scores.parquet")
    manifest = Manifest.read_file(tmp_path / "scores.parquet.manifest.json")
    assert manifest.content["reading"] == {"pool": POOL}


def test_every_page_has_a_table_of_it(tmp_path):
    th.select(ROWS, "random", budget=4, out=tmp_path / "a")
    section = build_reproduction(Manifest.read(tmp_path / "a"), tmp_path / "a")
    table = next(block for block in section.blocks if getattr(block, "caption", "") == "How the rows were read")
    assert list(table.rows) == [
        ("pool", "sft", "prompt-completion", "prompt=prompt, response=completion", "topic, note")
    ]


def test_notes_of_each_side_are_the_last_lines_of_a_summary():
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    rows = th.load([{"messages": turns, "image": "a.png"}])
    reading = describe_sides({"pool": rows, "eval": rows, "control": None})
    (line,) = list_side_notes({"reading": reading})
    assert line.startswith("note: pool: column 'image' is not empty but not read")
    assert list_side_notes({}) == []
