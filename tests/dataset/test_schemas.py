"""Schemas are recognized, named and mapped; conversations keep what they hold."""

import json

import pytest

from thresher.dataset import load
from thresher.dataset.loading import load_unlabeled
from thresher.dataset.schema import recognize_schema
from thresher.dataset.settings import ReadSettings
from thresher.errors import InputError, SettingsError


@pytest.mark.parametrize(
    ("row", "name", "prompt", "response"),
    [
        ({"instruction": "add", "input": "1 2", "output": "3"}, "alpaca", "add\n1 2", "3"),
        ({"instruction": "add", "output": "3"}, "alpaca", "add", "3"),
        ({"instruction": "add", "context": "1 2", "response": "3"}, "alpaca", "add\n1 2", "3"),
        (
            {"instruction": "add", "input": "", "output": "3", "system": "calc"},
            "alpaca",
            "system: calc\nuser: add",
            "3",
        ),
        (
            {"instruction": "b", "output": "c", "history": [["q", "a"]]},
            "alpaca",
            "user: q\nassistant: a\nuser: b",
            "c",
        ),
        ({"prompt": "p", "completion": "c"}, "prompt-completion", "p", "c"),
        ({"system": "s", "prompt": "p", "completion": "c"}, "prompt-completion", "system: s\nuser: p", "c"),
        ({"system_prompt": "s", "question": "p", "response": "c"}, "query-response", "system: s\nuser: p", "c"),
        ({"system_prompt": " ", "question": "p", "response": "c"}, "query-response", "p", "c"),
        ({"context": "x", "question": "p", "answer": "c"}, "query-response", "p\nx", "c"),
        ({"prompt": "p", "response": "c"}, "prompt-completion", "p", "c"),
        ({"query": "p", "response": "c"}, "query-response", "p", "c"),
        ({"question": "p", "answer": "c"}, "query-response", "p", "c"),
        ({"messages": [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]}, "messages", "p", "c"),
        ({"conversations": [{"from": "human", "value": "p"}, {"from": "gpt", "value": "c"}]}, "sharegpt", "p", "c"),
        ({"text": "t", "label": "l"}, "text-label", "t", "l"),
        (
            {"system_prompt": "s", "conversations": [{"from": "Human", "value": "p"}, {"from": "GPT", "value": "c"}]},
            "sharegpt",
            "system: s\nuser: p",
            "c",
        ),
        ({"text": "t", "label": 3}, "text-label", "t", "3"),
        ({"text": "t", "labels": 3}, "text-label", "t", "3"),
        ({"text": "t", "label": True}, "text-label", "t", "true"),
        ({"sentence": "t", "intent": "l"}, "text-label", "t", "l"),
        ({"input": "t", "category": "l"}, "text-label", "t", "l"),
        ({"premise": "t", "hypothesis": "u", "label": 1}, "text-label", "t\nu", "1"),
        ({"sentence1": "t", "sentence2": "u", "label": 1, "idx": 0}, "text-label", "t\nu", "1"),
        ({"question1": "t", "question2": "u", "label": 1}, "text-label", "t\nu", "1"),
        ({"text1": "t", "text2": "u", "label": 1}, "text-label", "t\nu", "1"),
        ({"question": "t", "sentence": "u", "label": 1}, "text-label", "t\nu", "1"),
        ({"question": "no part of it", "text": "t", "label": 1}, "text-label", "t", "1"),
        ({"input": "p", "output": "c"}, "query-response", "p", "c"),
        ({"text": "t"}, "text", "", "t"),
    ],
)
def test_a_schema_is_recognized_from_the_rows(row, name, prompt, response):
    dataset = load([row])
    assert dataset.schema.name == name
    assert dataset.frame.select("prompt", "response").rows() == [(prompt, response)]


def test_the_schema_that_half_of_the_rows_have_is_taken():
    alpaca, other = {"instruction": "a", "output": "b"}, {"text": "x", "label": "y"}
    dataset = load([other, alpaca, alpaca, alpaca])
    assert dataset.schema.name == "alpaca"
    assert dataset.rejected["reason"].to_list() == ["fields 'instruction', 'output' of schema alpaca are missing"]
    assert load([other, other, alpaca]).schema.name == "text-label"


def test_a_schema_can_be_named():
    row = {"text": "t", "label": "l"}
    assert load([row], schema="text").kind == "text"
    with pytest.raises(SettingsError, match="did you mean 'alpaca'"):
        load([row], schema="alpacca")
    with pytest.raises(InputError, match=r"'alpaca' \(instruction; output or response\) are required, found .*'text'"):
        load([row], schema="alpaca")


def test_unknown_columns_are_listed_with_the_syntax_of_the_map():
    with pytest.raises(InputError, match=r"found the columns 'ask', 'tell'; name them with --map prompt=COLUMN"):
        load([{"ask": "a", "tell": "b"}])


def test_preference_data_is_refused():
    with pytest.raises(InputError, match="preference data"):
        load([{"prompt": "a", "chosen": "b", "rejected": "c"}])
    marked = [{"prompt": "a", "completion": "b", "label": True}, {"prompt": "a", "completion": "c", "label": False}]
    for named in (None, "prompt-completion"):
        with pytest.raises(InputError, match="give --wanted label to keep the rows that it marks as wanted"):
            load(marked, schema=named)


@pytest.mark.parametrize(
    ("columns", "kind", "prompt", "response"),
    [
        ({"prompt": "ask+more", "response": "tell"}, "sft", "a\nm", "t"),
        ({"prompt": "ask", "response": "tell", "system": "more"}, "sft", "system: m\nuser: a", "t"),
        ({"text": "ask + more", "label": "tell"}, "classification", "a\nm", "t"),
        ({"prompt": "ask", "label": "n"}, "classification", "a", "4"),
        ({"text": "tell"}, "text", "", "t"),
        ({"messages": "chat"}, "sft", "p", "c"),
    ],
)
def test_columns_can_be_mapped(columns, kind, prompt, response):
    chat = [{"role": "user", "content": "p"}, {"role": "assistant", "content": "c"}]
    dataset = load([{"ask": "a", "more": "m", "tell": "t", "n": 4, "chat": chat}], columns=columns)
    assert (dataset.schema.name, dataset.kind) == ("mapped", kind)
    assert dataset.frame.select("prompt", "response").rows() == [(prompt, response)]


@pytest.mark.parametrize(
    ("columns", "error", "message"),
    [
        ({"promt": "ask"}, SettingsError, "did you mean 'prompt'"),
        ({"prompt": "ask"}, SettingsError, "do not fit together"),
        ({"text": "ask", "system": "more"}, SettingsError, "do not fit together"),
        ({"text": "ask", "label": "a+b"}, SettingsError, "takes one column"),
        ({"text": ""}, SettingsError, "must be a name"),
        ({"text": "asks"}, InputError, "did you mean 'ask'"),
    ],
)
def test_a_faulty_map_is_refused(columns, error, message):
    with pytest.raises(error, match=message):
        load([{"ask": "a", "more": "m"}], columns=columns)


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_labels_that_are_decimals_in_text_count_as_numbers(tmp_path, suffix):
    labels = ["1.0", "0.0", "", "-1.0", "0.5", "n/a", " 2.0"]
    rows = [{"text": f"t{i}", "label": label} for i, label in enumerate(["1.0"] * 1000 + labels)]
    path = tmp_path / f"rows{suffix}"
    if suffix == ".csv":
        path.write_text("text,label\n" + "".join(f"{row['text']},{row['label']}\n" for row in rows))
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    dataset = load(path)
    assert dataset.frame["response"].to_list() == ["1"] * 1001 + ["0", "-1", "n/a", "2"]
    assert dataset.rejected["reason"].to_list() == [
        "field 'label' is empty",
        "field 'label' must be text or a whole number, found a fraction",
    ]


def test_names_that_look_like_decimals_among_others_stay_names():
    assert load([{"text": "t", "label": "3.0"}, {"text": "u", "label": "beta"}]).frame["response"].to_list() == [
        "3.0",
        "beta",
    ]


def test_rows_of_another_schema_say_that_none_of_its_columns_was_found():
    with pytest.raises(InputError, match="read as text-label: none of its columns; other columns: prompt, completion"):
        load([{"prompt": "p", "completion": "c"}], schema=load([{"text": "t", "label": "l"}]).schema)


def test_map_and_schema_exclude_each_other():
    with pytest.raises(SettingsError, match="exclude each other"):
        load([{"text": "a"}], schema="text", columns={"text": "text"})


def test_class_names_replace_class_numbers():
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])})
    data = datasets.Dataset.from_dict({"text": ["a", "b", "c"], "label": [1, 0, -1]}, features=features)
    dataset = load(data)
    assert dataset.frame["response"].to_list() == ["yes", "no"]
    assert dataset.rejected["reason"].to_list() == ["field 'label' is -1, which stands for no class"]
    texts, labeled = load_unlabeled(data, ReadSettings())
    assert (len(texts), len(labeled)) == (3, 2)


CHAT = {
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": [{"type": "text", "text": "weather"}, {"type": "text", "text": "in Bonn"}]},
        {"role": "assistant", "content": None, "tool_calls": [{"id": "1", "function": {"name": "w"}}]},
        {"role": "tool", "content": "rain", "tool_call_id": "1", "name": "w"},
        {"role": "assistant", "content": "It rains."},
        {"role": "user", "content": "thanks"},
    ],
    "tools": [{"type": "function", "function": {"name": "w"}}],
}


def test_a_conversation_keeps_reasoning_and_the_first_form_of_calls():
    messages = [
        {"role": "user", "content": "q"},
        {"role": "assistant", "content": None, "function_call": {"name": "w", "arguments": "{}"}},
        {"role": "function", "name": "w", "content": "rain"},
        {"role": "assistant", "content": "a", "reasoning_content": "since it rains"},
    ]
    [_, call, result, answer] = load([{"messages": messages}]).messages([0])[0].messages
    assert call["tool_calls"] == [{"type": "function", "function": {"name": "w", "arguments": {}}}]
    assert result == {"role": "tool", "name": "w", "content": "rain"}
    assert answer["reasoning_content"] == "since it rains"


def test_an_assistant_turn_of_weight_0_is_context_and_never_the_response():
    turns = _turns(("user", "q"), ("assistant", "a"), ("user", "r"), ("assistant", "b"), ("user", "s"))
    weighted = [{**turn, "weight": 0} if turn["content"] == "a" else turn for turn in turns[:4]]
    [first, last, none] = (
        load([{"messages": _turns(("user", "q"), ("assistant", "a"))}, {"messages": messages}])
        for messages in (
            weighted,
            [turns[0], {**turns[1], "weight": 1}, turns[2], {**turns[3], "weight": 0}, turns[4]],
            [turns[0], {**turns[1], "weight": 0.0}],
        )
    )
    assert first.frame.row(1)[1:3] == ("user: q\nassistant: a\nuser: r", "b")
    assert first.messages([1])[0].messages == weighted
    assert last.frame.row(1)[1:3] == ("q", "a")
    assert last.messages([1])[0].messages == turns[:2]
    assert none.rejected["reason"].to_list() == [
        "every assistant turn is empty or marked as not to be learned, so there is nothing to learn"
    ]


def test_a_conversation_keeps_system_tools_and_later_turns():
    dataset = load([CHAT])
    [conversation] = dataset.messages([0])
    assert [m["role"] for m in conversation.messages] == ["system", "user", "assistant", "tool", "assistant", "user"]
    assert conversation.messages[1]["content"] == "weather\nin Bonn"
    assert conversation.messages[2] == CHAT["messages"][2]
    assert conversation.messages[3] == CHAT["messages"][3]
    assert conversation.tools == CHAT["tools"]
    [(prompt, response)] = dataset.frame.select("prompt", "response").rows()
    assert response == "It rains."
    assert prompt.startswith("system: be brief\nuser: weather\nin Bonn\nassistant: [{")
    assert prompt.endswith("tool: rain")


def test_conversations_of_a_table_equal_those_of_json(tmp_path):
    pl = pytest.importorskip("polars")
    rows = [CHAT, {"messages": CHAT["messages"][1:2] + CHAT["messages"][4:5], "tools": None}]
    rows = [{**row, "messages": [{**m, "content": _plain(m["content"])} for m in row["messages"]]} for row in rows]
    pl.DataFrame(rows).write_parquet(tmp_path / "rows.parquet")
    as_text = [{name: json.dumps(value) for name, value in row.items()} for row in rows]
    pl.DataFrame(as_text).write_csv(tmp_path / "rows.csv")
    expected = load(rows)
    for path in (tmp_path / "rows.parquet", tmp_path / "rows.csv"):
        dataset = load(path)
        assert dataset.messages([0, 1]) == expected.messages([0, 1])
        assert dataset.frame["row_id"].equals(expected.frame["row_id"])


def _plain(content):
    return "\n".join(part["text"] for part in content) if isinstance(content, list) else content


def test_sharegpt_roles_are_named_as_chat_templates_name_them():
    said = ("q", '{"name": "w"}', "rain", "{}", "sun", "a")
    speakers = ("human", "function_call", "observation", "tool_call", "tool_response", "gpt")
    turns = [{"from": speaker, "value": text} for speaker, text in zip(speakers, said, strict=True)]
    [conversation] = load([{"conversations": turns, "system": "s"}]).messages([0])
    roles = ["system", "user", "assistant", "tool", "assistant", "tool", "assistant"]
    assert [m["role"] for m in conversation.messages] == roles
    assert [m["content"] for m in conversation.messages] == ["s", "q", '{"name": "w"}', "rain", "{}", "sun", "a"]


def _turns(*pairs):
    return [{"role": role, "content": content} for role, content in pairs]


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        (_turns(("user", "q")), "no assistant turn"),
        (_turns(("assistant", "a")), "nothing precedes the last assistant turn"),
        (_turns(("user", ""), ("assistant", "a")), "nothing precedes the last assistant turn"),
        (_turns(("user", "q"), ("assistant", " ")), "the last assistant turn is empty"),
        (_turns(("user", "q"), ("assistant", None)), "a message of 'messages' has neither content nor tool_calls"),
        (_turns(("user", "q"), ("judge", "a")), "a message of 'messages' has an unknown role"),
        (_turns(("user", 5), ("assistant", "a")), "the content of a message of 'messages' must be text, found a num"),
        (_turns(("user", [{"type": "image_url"}]), ("assistant", "a")), "a message of 'messages' has a part that is"),
        (_turns(("user", "q\0"), ("assistant", "a")), "a message of 'messages' holds a NUL character"),
        ([{"content": "q"}], "a message of 'messages' has no role"),
        (["q"], "field 'messages' must hold objects, found text"),
        ([], "field 'messages' is empty"),
        (None, "field 'messages' is null"),
        ("hello", "field 'messages' must be a list, found text that is not JSON"),
        (5, "field 'messages' must be a list of messages, found a number"),
    ],
)
def test_a_bad_conversation_is_rejected_with_its_reason(messages, reason):
    good = _turns(("user", "q"), ("assistant", "a"))
    dataset = load([{"messages": good}, {"messages": messages}])
    assert len(dataset) == 1
    assert dataset.rejected["reason"][0].startswith(reason)


def test_alpaca_rows_become_messages():
    row = {"instruction": "b", "input": "x", "output": "c", "history": [["q", "a"]], "system": "s"}
    [conversation] = load([row]).messages([0])
    assert conversation.messages == _turns(
        ("system", "s"), ("user", "q"), ("assistant", "a"), ("user", "b\nx"), ("assistant", "c")
    )
    assert conversation.tools is None


def test_messages_of_classification_rows_are_refused():
    with pytest.raises(InputError, match="kind 'sft' are required, got 'classification'"):
        load([{"text": "a", "label": "b"}]).messages([0])


def test_recognize_prefers_the_alternative_that_more_rows_have():
    rows = [{"text": "a", "label": "x"}, {"text": "a", "category": "x"}, {"text": "a", "category": "x"}]
    assert recognize_schema(rows, name=None, where="rows").columns["label"] == ("category",)


def test_prompt_and_completion_may_be_lists_of_messages():
    row = {"prompt": _turns(("user", "q")), "completion": _turns(("assistant", "a"))}
    dataset = load([row, {"prompt": "q", "completion": "b"}])
    assert dataset.schema.name == "prompt-completion"
    assert dataset.frame.select("prompt", "response").rows() == [("q", "a"), ("q", "b")]
    assert dataset.messages([0])[0].messages == _turns(("user", "q"), ("assistant", "a"))
    [conversation] = load([{**row, "system": "s"}]).messages([0])
    assert conversation.messages == _turns(("system", "s"), ("user", "q"), ("assistant", "a"))


def test_an_unknown_role_is_named():
    rows = load([{"messages": _turns(("user", "q"), (role, "a"))} for role in ("assistant", "Judge " * 20)])
    assert rows.rejected["reason"][0].startswith(
        "a message of 'messages' has an unknown role 'Judge Judge Judge Judge Judge Judge Judg'; known: human, user"
    )


def test_turns_of_either_form_are_read_where_a_table_holds_both():
    both = {"role": None, "content": None, "from": None, "value": None}
    turns = _turns(("user", "q"), ("assistant", "a"))
    other = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    dataset = load([{"conversations": [{**both, **turn} for turn in form]} for form in (turns, other)])
    assert dataset.frame.select("prompt", "response").rows() == [("q", "a"), ("q", "a")]


@pytest.mark.parametrize("name", ["target", "Sentiment", "y", "Label"])
def test_a_column_beside_text_that_may_be_its_label_is_asked_about(name):
    rows = [{"id": i, "text": f"text {i}", name: i % 2} for i in range(20)]
    with pytest.raises(InputError, match=f"give --map text=text,label={name} to learn the label, or --schema text"):
        load(rows)
    assert load(rows, schema="text").kind == "text"
    assert load(rows, columns={"text": "text", "label": name}).kind == "classification"
    assert load([{"text": f"text {i}", name: f"prose {i}"} for i in range(20)]).kind == "text"
    assert load([{"text": f"text {i}", "lang": "en", name: None} for i in range(20)]).kind == "text"
