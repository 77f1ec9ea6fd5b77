"""Preference data is refused in any form, or read with `--wanted`."""

import json

import pytest

from thresher.dataset import load
from thresher.errors import InputError

CHAT = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
TURNS = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
ROWS = {
    "alpaca": {"instruction": "q", "output": "a"},
    "prompt-completion": {"prompt": "q", "completion": "a"},
    "with a response": {"prompt": "q", "response": "a"},
    "query-response": {"question": "q", "answer": "a"},
    "messages": {"messages": CHAT},
    "sharegpt": {"conversations": TURNS},
}
MARKS = {
    "booleans": [True, False, True],
    "text": ["True", "False", "True"],
    "numbers": [0, 1, 1],
    "decimals": [0.0, 1.0, 1.0],
    "some null": [None, True, False],
    "one kind alone": [True, True, True],
    "words": ["desirable", "undesirable", "desirable"],
}


def mark(row, name, values):
    return [{**row, "n": i, name: value} for i, value in enumerate(values)]


@pytest.mark.parametrize("values", MARKS.values(), ids=MARKS)
@pytest.mark.parametrize("name", ["label", "kto_tag", "KTO_Tag"])
@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_marked_rows_are_refused_beside_any_schema(row, name, values):
    with pytest.raises(InputError, match=f"are preference data.*; give --wanted {name} to keep"):
        load(mark(row, name, values))
    rows = load(mark(row, name, values), wanted=name)
    wanted = [value in (True, 1, "True", "desirable") for value in values]
    assert [line - 1 for line in rows.frame["line"]] == [i for i, is_wanted in enumerate(wanted) if is_wanted]
    for reason in rows.rejected["reason"]:
        assert reason in {
            f"the row is not wanted: field '{name}' is false",
            f"field '{name}' is null, so the row is not marked as wanted",
        }


def test_marks_in_a_csv_file_are_seen(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text("prompt,completion,label\np,c,True\nq,d,False\n")
    with pytest.raises(InputError, match="--wanted label"):
        load(path)
    rows = load(path, wanted="label")
    assert rows.frame["prompt"].to_list() == ["p"]
    assert (
        rows.schema.describe(rows.column_names) == "prompt-completion: prompt=prompt, response=completion, wanted=label"
    )


def test_marks_in_a_later_file_are_seen(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "p", "completion": "c"}) + "\n")
    (tmp_path / "b.jsonl").write_text(json.dumps({"prompt": "q", "completion": "c", "kto_tag": False}) + "\n")
    with pytest.raises(InputError, match=r"b.jsonl: rows of schema 'prompt-completion' with the mark 'kto_tag'"):
        load(tmp_path)


def test_other_labels_beside_answers_are_columns_like_others():
    for values in (["easy", "hard"], [0, 1, 2], [None, None], [0.3, 1.0]):
        assert len(load(mark(ROWS["alpaca"], "label", values))) == len(values)
    assert load(mark({"text": "t"}, "label", [True, False])).kind == "classification"
    numbers = mark(ROWS["prompt-completion"], "label", [0, 1])
    with pytest.raises(InputError, match="with --map prompt=prompt,response=completion$"):
        load(numbers)
    assert len(load(numbers, columns={"prompt": "prompt", "response": "completion"})) == 2
    with pytest.raises(InputError, match="--wanted label"):
        load(mark(ROWS["messages"], "label", [True, False]), columns={"messages": "messages"})


@pytest.mark.parametrize("name", ["rejected", "rejected_response", "rejected_messages"])
def test_a_rejected_answer_beside_the_others_is_refused(name):
    answer = CHAT if name == "rejected_messages" else "b"
    with pytest.raises(InputError, match=f"rows with '{name}' are preference data.* --map messages=messages$"):
        load([{"messages": CHAT, name: answer}])
    assert len(load([{"messages": CHAT, name: answer}], columns={"messages": "messages"})) == 1
    assert len(load([{"messages": CHAT, name: None}])) == 1


def test_rows_that_are_marked_as_unwanted_are_refused_with_other_advice():
    with pytest.raises(InputError, match="leave out the rows that it marks"):
        load(mark(ROWS["messages"], "rejected", [True, False]))


def test_a_mark_that_is_none_is_rejected_and_a_missing_column_is_an_error():
    rows = load(mark(ROWS["alpaca"], "good", [True, "maybe", 3, ""]), wanted="good")
    assert rows.rejected["reason"].to_list() == [
        "field 'good' must be true or false, or 1 or 0, found text",
        "field 'good' must be true or false, or 1 or 0, found a number",
        "field 'good' is empty, so the row is not marked as wanted",
    ]
    with pytest.raises(InputError, match="column 'god' is required, found .*did you mean 'good'"):
        load(mark(ROWS["alpaca"], "good", [True]), wanted="god")


def test_wanted_rows_have_the_ids_they_have_alone():
    marked = mark(ROWS["prompt-completion"], "label", [True, False])
    alone = load([ROWS["prompt-completion"]])
    assert load(marked, wanted="label").frame["row_id"].to_list() == alone.frame["row_id"].to_list()


def test_wanted_rows_are_those_of_one_machine_on_many(tmp_path):
    import thresher as th
    from thresher.selection.distributed import InProcess, select_distributed, shards
    from thresher.selection.request import SelectCall

    folder = tmp_path / "pool"
    folder.mkdir()
    for part in range(2):
        rows = [{"prompt": f"p {part} {i}", "completion": "c", "label": i % 3 > 0} for i in range(12)]
        (folder / f"{part}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    here = th.select(load(folder, wanted="label"), "random", budget=5, out=tmp_path / "here")
    call = SelectCall.of_options(shards(folder, wanted="label"), "random", {"budget": 5}, None)
    there = select_distributed(InProcess(), call, tmp_path / "there")
    assert there.manifest.hash == here.manifest.hash
    assert there.manifest.content["schema"]["wanted"] == "label"
    assert there.manifest.content["counts"]["rejected"] == 8
    assert there.rows == here.rows
    for out in (tmp_path / "here", tmp_path / "there"):
        assert len(load(out)) == len(th.select(out, "random", budget=5)) == 5, "the wanted rows are read back as such"
    with pytest.raises(InputError, match="--wanted label"):
        select_distributed(
            InProcess(), SelectCall.of_options(str(folder), "random", {"budget": 5}, None), tmp_path / "no"
        )
