"""The shipped instructions are what their generator makes, and their answers are right."""

import importlib.util
import json
from collections import Counter
from datetime import date
from pathlib import Path

import pytest

DATA = Path(__file__).parents[2] / "data"
NAMES = ("pool", "target", "test")


@pytest.fixture(scope="module")
def generator():
    spec = importlib.util.spec_from_file_location("make_instructions", DATA / "make_instructions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def files():
    folder = DATA / "instructions"
    texts = {name: (folder / f"{name}.jsonl").read_text(encoding="utf-8") for name in NAMES}
    return {name: [json.loads(line) for line in text.splitlines()] for name, text in texts.items()}


def test_the_shipped_files_are_those_that_the_generator_makes(generator, files):
    assert generator.make() == files


def test_the_pool_holds_thirty_rows_of_each_task_and_no_row_twice(files):
    assert set(Counter(row["task"] for row in files["pool"]).values()) == {30}
    every = [(row["instruction"], row["input"]) for name in NAMES for row in files[name]]
    assert len(set(every)) == len(every) == 380


def test_attributes_are_json_and_occur_in_their_listing(files):
    rows = [row for name in NAMES for row in files[name] if row["task"] == "extract-attributes"]
    assert len(rows) == 110
    for row in rows:
        attributes = json.loads(row["output"])
        assert list(attributes) == sorted(attributes)
        assert all(attributes.values())


def test_answers_to_what_can_be_computed_are_right(files):
    seen = Counter()
    for row in files["pool"]:
        seen[row["task"]] += 1
        words = row["input"].split(", ")
        if row["task"] == "sort-words":
            assert row["output"].split(", ") == sorted(words)
        elif row["task"] == "reverse-words":
            assert row["output"].split(", ") == list(reversed(words))
        elif row["task"] == "solve-sum":
            left, right = row["output"].split(". ")[0].split(" = ")
            assert eval(left, {"__builtins__": {}}) == int(right)
            assert f" has {right} " in row["output"]
        elif row["task"] == "write-date":
            day = date.fromisoformat(row["input"])
            weekday = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")[day.weekday()]
            assert row["output"].startswith(f"{weekday}, ")
            assert row["output"].endswith(f" {day.day}, {day.year}")
        elif row["task"] == "tell-opening-hours" and row["output"].startswith("It closes"):
            assert f"to {row['output'].split()[-2]} p.m." in row["input"]
    assert len(seen) == 10
