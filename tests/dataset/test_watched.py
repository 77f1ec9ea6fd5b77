"""Columns that are not read are looked at in all rows, whatever the file and the place."""

import json

import polars as pl
import pytest

from thresher.dataset import load
from thresher.dataset.read_shards import read_rows
from thresher.errors import InputError

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
ROWS = {"prompt-completion": {"prompt": "q", "completion": "a"}, "messages": {"messages": CHAT}, "text": {"text": "t"}}
N_BEFORE = 700


def write(path, rows):
    if path.suffix == ".csv":
        pl.DataFrame(rows).write_csv(path)
    elif path.suffix == ".parquet":
        pl.DataFrame(rows, infer_schema_length=None).write_parquet(path)
    elif path.suffix == ".json":
        path.write_text(json.dumps(rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def rows_with_late_value(row, name, value):
    """Return many rows without a column, and one that has it."""
    return [{**row, "n": i} for i in range(N_BEFORE)] + [{**row, "n": N_BEFORE, name: value}]


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_a_mark_of_one_late_row_refuses_the_file(tmp_path, suffix, row):
    path = write(tmp_path / f"rows{suffix}", rows_with_late_value(row, "kto_tag", False))
    with pytest.raises(InputError, match=f"rows{suffix}: .* with the mark 'kto_tag'"):
        load(path)


@pytest.mark.parametrize("name", ["rejected", "rejected_response", "Rejected_Answer"])
def test_a_rejected_answer_of_one_late_row_refuses_the_file(tmp_path, name):
    for suffix in (".jsonl", ".csv", ".parquet"):
        rows = rows_with_late_value(ROWS["prompt-completion"], name, "a worse answer")
        rows = [{name: "", **row} for row in rows] if suffix == ".csv" else rows
        with pytest.raises(InputError, match=f"rows with '{name}' are preference data"):
            load(write(tmp_path / f"rows{suffix}", rows))


def test_numbers_that_are_marks_in_the_first_rows_alone_are_no_marks(tmp_path):
    rows = [{"prompt": "q", "completion": "a", "label": i % 2 if i < N_BEFORE else i} for i in range(N_BEFORE + 3)]
    for suffix in (".jsonl", ".csv", ".parquet"):
        assert len(load(write(tmp_path / f"rows{suffix}", rows))) == len(rows)
        with pytest.raises(InputError, match="with the mark 'label'"):
            load(write(tmp_path / f"few{suffix}", rows[:N_BEFORE]))


def test_a_mark_of_rows_that_cannot_be_used_refuses_nothing(tmp_path):
    rows = [{"prompt": "q", "completion": "a"}, {"prompt": "q", "completion": "", "kto_tag": False}]
    assert len(load(write(tmp_path / "rows.jsonl", rows))) == 1


def test_words_of_texts_are_no_columns(tmp_path):
    rows = [{"prompt": 'What is {"kto_tag": false}?', "completion": "kto_tag", "note": "label"}] * 3
    assert load(write(tmp_path / "rows.jsonl", rows)).notes == ()


@pytest.mark.parametrize("suffix", [".jsonl", ".json", ".parquet"])
@pytest.mark.parametrize(("name", "value"), [("images", ["a.png"]), ("image", "a.png"), ("audio", {"path": "a.wav"})])
def test_a_picture_of_one_late_row_is_reported(tmp_path, suffix, name, value):
    row = ROWS["messages"]
    (note,) = load(write(tmp_path / f"rows{suffix}", rows_with_late_value(row, name, value))).notes
    assert note.startswith(f"column '{name}' is not empty but not read")
    empty = rows_with_late_value(row, name, [] if isinstance(value, list) else None)
    assert load(write(tmp_path / f"empty{suffix}", empty)).notes == ()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_answers_that_a_column_calls_wrong_are_counted(tmp_path, suffix):
    rows = [{"question": f"q{i}", "answer": "a", "correct": i % 3 != 0} for i in range(30)]
    path = write(tmp_path / f"rows{suffix}", rows)
    (note,) = load(path).notes
    assert note.startswith("column 'correct' is false in 10 rows, whose answers are read like the others")
    assert len(load(path, wanted="correct")) == 20
    assert load(write(tmp_path / f"all{suffix}", [row for row in rows if row["correct"]])).notes == ()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_test_rows_beside_rows_to_train_on_are_reported(tmp_path, suffix):
    rows = [{"text": f"t{i}", "label": "ab"[i % 2], "split": ["train", "test"][i > 15]} for i in range(20)]
    (note,) = load(write(tmp_path / f"rows{suffix}", rows)).notes
    assert note.startswith("column 'split' marks rows as 'test' (4)")
    assert load(write(tmp_path / f"test{suffix}", rows[16:])).notes == ()


@pytest.mark.parametrize("suffix", [".jsonl", ".csv", ".parquet"])
def test_rows_read_by_column_and_singly_are_watched_alike(tmp_path, suffix):
    rows = [{"prompt": f"q{i}", "completion": "a" if i % 5 else " ", "correct": bool(i % 3)} for i in range(40)]
    dataset = load(write(tmp_path / f"rows{suffix}", rows))
    counts = [
        read_rows(dataset.shards, dataset.schema, by_column=by_column).unread[0]["correct"].counts
        for by_column in (True, False)
    ]
    assert counts[0] == counts[1]
    assert sum(counts[0].values()) == 32
