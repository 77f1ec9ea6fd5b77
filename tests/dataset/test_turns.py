"""Turns that are not learned, tool calls and tools: what a conversation takes from its row."""

import json

import polars as pl
import pytest

from thresher.dataset import load

NONE_LEARNED = "every assistant turn is empty or marked as not to be learned, so there is nothing to learn"


def talk(*flags, user=None):
    """Return a row with one answer per set of flags."""
    turns = []
    for number, flag in enumerate(flags):
        turns.append({"role": "user", "content": f"q{number}", **(user or {})})
        turns.append({"role": "assistant", "content": f"a{number}", **flag})
    return {"messages": turns}


def learned(row):
    """Return the answers of a row that are learned, or why it is rejected."""
    rows = load([talk({}), row])
    if rows.n_rejected:
        return rows.rejected["reason"][0]
    messages = rows.messages([1])[0].messages
    return [turn["content"] for turn in messages if turn["role"] == "assistant" and "weight" not in turn]


@pytest.mark.parametrize("flag", ["train", "training", "loss", "loss_mask", "weight"])
@pytest.mark.parametrize(("no", "yes"), [(False, True), (0, 1), (0.0, None), ("false", "True"), ("0", "1")])
def test_a_flag_says_which_answers_are_learned(flag, no, yes):
    assert learned(talk({flag: no}, {flag: yes}, {})) == ["a1", "a2"]
    assert learned(talk({flag: yes}, {flag: no})) == ["a0"]
    assert learned(talk({flag: no})) == NONE_LEARNED


def test_a_flag_reads_the_same_in_sharegpt_with_nulls():
    turns = [
        {"from": "human", "value": "q", "loss": None},
        {"from": "gpt", "value": "draft", "loss": False},
        {"from": "human", "value": "again", "loss": None},
        {"from": "gpt", "value": "answer", "loss": True},
    ]
    [conversation] = load([{"conversations": turns}]).messages([0])
    assert [turn.get("weight") for turn in conversation.messages] == [None, 0, None, None]


def test_a_mask_hides_what_it_hides_in_turns_that_are_never_learned():
    assert learned(talk({"mask": True}, {"mask": False})) == ["a1"]
    assert learned(talk({"masked": True}, {"masked": False})) == ["a1"]
    assert learned(talk({"mask": 0}, {"mask": 1})) == ["a1"]
    assert learned(talk({"mask": False}, {"mask": True}, user={"mask": False})) == ["a1"]
    assert learned(talk({"mask": 1}, {"mask": 0}, user={"mask": 1})) == ["a1"]
    assert learned(talk({"mask": False}, user={"mask": True})) == ["a0"]


def test_flags_that_cannot_be_obeyed_reject_the_row():
    assert learned(talk({"train": True, "weight": 0})) == (
        "the flags train, weight of a message of 'messages' disagree on whether it is learned"
    )
    assert learned(talk({"weight": 0.5})) == (
        "'weight' of a message of 'messages' must be true, false, 0 or 1, found another number"
    )
    assert learned(talk({"loss": "later"})).endswith("must be true, false, 0 or 1, found text")
    part = {"train_detail": [{"begin_offset": 0, "end_offset": 1, "train": False}]}
    assert learned(talk(part)).startswith("a message of 'messages' says which parts of it are learned")


def test_flags_of_other_turns_and_flags_that_say_yes_change_nothing():
    plain = talk({}, {})
    for row in (talk({"train": True}, {"weight": 1}), talk({}, {}, user={"weight": 0, "loss": False})):
        assert load([row]).frame["row_id"].to_list() == load([plain]).frame["row_id"].to_list()


def test_an_empty_earlier_answer_is_never_learned():
    for words in ("", " \n", "\u200b"):
        row = talk({}, {})
        row["messages"][1]["content"] = words
        assert learned(row) == ["a1"]
    [conversation] = load([{"instruction": "q", "output": "a", "history": [["p", ""]]}]).messages([0])
    assert [turn.get("weight") for turn in conversation.messages] == [None, 0, None, None]


def test_a_prompt_of_messages_may_hold_answers_that_are_not_learned():
    row = talk({"train": False}, {})
    prompt = {"prompt": row["messages"][:3], "completion": row["messages"][3:]}
    [conversation] = load([prompt]).messages([0])
    assert [turn.get("weight") for turn in conversation.messages] == [None, 0, None, None]


def call(arguments, **more):
    return {
        "role": "assistant",
        "content": None,
        "tool_calls": [{"id": "c", "type": "function", "function": {"name": "look", "arguments": arguments}, **more}],
    }


def calling(arguments, tools=None):
    result = {"role": "tool", "tool_call_id": "c", "content": "22"}
    turns = [{"role": "user", "content": "q"}, call(arguments), result, {"role": "assistant", "content": "a"}]
    return {"messages": turns, "tools": tools}


def read_arguments(rows):
    return [each.messages[1]["tool_calls"][0]["function"]["arguments"] for each in rows.messages(range(len(rows)))]


@pytest.mark.parametrize(
    ("text", "decoded"),
    [
        ('{"city": "Bonn", "unit": null, "n": [1, null]}', {"city": "Bonn", "unit": None, "n": [1, None]}),
        ("", {}),
        ("{}", {}),
        *((text, text) for text in ("not JSON", '"text"', "[1]", '{"n": NaN}', '{"n": 123456789012345678901234}')),
    ],
)
def test_arguments_that_are_json_text_of_an_object_are_decoded(text, decoded):
    assert read_arguments(load([calling(text)])) == [decoded]


def test_nulls_of_json_stay_and_those_that_tables_add_do_not(tmp_path):
    tool = {"type": "function", "function": {"name": "look", "parameters": {"city": {"default": None}}}}
    rows = [calling({"city": "Bonn", "unit": None}, [tool]), calling({"when": 3}, [tool])]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    written = load(tmp_path / "a.jsonl")
    assert read_arguments(written) == [{"city": "Bonn", "unit": None}, {"when": 3}]
    assert written.messages([0])[0].tools == [tool]
    pl.DataFrame(rows, strict=False).write_parquet(tmp_path / "a.parquet")
    typed = load(tmp_path / "a.parquet")
    assert read_arguments(typed) == [{"city": "Bonn"}, {"when": 3}]
    assert "default" not in str(typed.messages([0])[0].tools)
    assert [set(turn) for turn in typed.messages([0])[0].messages] == [
        {"role", "content"},
        {"role", "content", "tool_calls"},
        {"role", "content", "tool_call_id"},
        {"role", "content"},
    ]
    # JSON text in a table is read as it stands
    text = [{**row, "messages": json.dumps(row["messages"]), "tools": json.dumps(row["tools"])} for row in rows]
    pl.DataFrame(text).write_parquet(tmp_path / "b.parquet")
    assert load(tmp_path / "b.parquet").frame["row_id"].to_list() == written.frame["row_id"].to_list()


def test_rows_of_a_table_are_read_alike_at_first_and_later(tmp_path):
    rows = [calling({"city": "Bonn", "unit": None}), calling({"when": 3})]
    rows = [{"messages": row["messages"][:2]} for row in rows]
    pl.DataFrame(rows, strict=False).write_parquet(tmp_path / "a.parquet")
    typed = load(tmp_path / "a.parquet")
    for response, each in zip(typed.frame["response"], typed.messages([0, 1]), strict=True):
        assert json.loads(response) == each.messages[1]["tool_calls"]


def test_tools_beside_prompt_and_completion_are_read():
    tools = [{"type": "function", "function": {"name": "look", "parameters": {}}}]
    user, answer = [{"role": "user", "content": "q"}], [{"role": "assistant", "content": "a"}]
    rows = [
        {"prompt": user, "completion": answer, "tools": tools},
        {"prompt": user, "completion": answer, "tools": json.dumps(tools)},
        {"prompt": user, "completion": answer, "tools": None},
    ]
    dataset = load(rows)
    assert [each.tools for each in dataset.messages([0, 1, 2])] == [tools, tools, None]
    assert dataset.frame["row_id"][2] == load([{"prompt": "q", "completion": "a"}]).frame["row_id"][0]
    assert dataset.frame["row_id"][0] != dataset.frame["row_id"][2]


@pytest.mark.parametrize("is_table", [False, True])
@pytest.mark.parametrize("names", [("prompt", "completion"), ("instruction", "output"), ("question", "answer")])
def test_tools_beside_texts_are_read_and_other_columns_of_that_name_are_not(names, is_table):
    tools = [{"type": "function", "function": {"name": "look"}}]
    rows = [{names[0]: "q", names[1]: "a", "tools": json.dumps(tools)}]
    rows += [{names[0]: f"q{i}", names[1]: "a", "tools": other} for i, other in enumerate((None, "saw, drill", "[]"))]
    dataset = load(pl.DataFrame(rows) if is_table else rows)
    assert [each.tools for each in dataset.messages(range(4))] == [tools, None, None, None]
    without = load([{name: row[name] for name in names} for row in rows])
    assert dataset.frame["row_id"].to_list()[1:] == without.frame["row_id"].to_list()[1:]
    assert dataset.frame["row_id"][0] != without.frame["row_id"][0]
    assert load([{names[0]: "q", names[1]: "a", "tools": tools}]).frame["row_id"][0] == dataset.frame["row_id"][0]


@pytest.mark.parametrize("call", ["get_weather(Bonn)", 5, None])
def test_a_tool_call_that_is_no_object_rejects_its_row(call):
    good = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]
    bad = [good[0], {"role": "assistant", "content": None, "tool_calls": [call]}]
    rows = load([{"messages": good}, {"messages": bad}])
    assert len(rows) == 1
    assert "a tool call of a message of 'messages' must be an object" in next(iter(rows.rejected_by_reason))


def test_an_empty_system_turn_leaves_its_place_to_the_column():
    turns = [{"role": role, "content": text} for role, text in (("system", ""), ("user", "q"), ("assistant", "a"))]
    row = load([{"system": "S", "messages": turns}]).frame["prompt"][0]
    assert row.startswith("system: S")
