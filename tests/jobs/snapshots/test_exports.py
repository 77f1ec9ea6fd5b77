"""A snapshot as other tools read it: the Hub, LLaMA-Factory, axolotl, TRL."""

import ast
import importlib.util
import json
import runpy

import polars as pl
import pyarrow as pa
import pytest

from thresher.dataset import Schema, load
from thresher.jobs.snapshots.exports import CHAT_TAGS, SHAREGPT_TAGS, build_trl, find_chat_tags, to_yaml

SHAPES = {
    "alpaca": {"instruction": "add", "input": "1 and 2", "output": "3"},
    "prompt-completion": {"prompt": "add 1 and 2", "completion": "3"},
    "messages": {"messages": [{"role": "user", "content": "add"}, {"role": "assistant", "content": "3"}]},
    "sharegpt": {"conversations": [{"from": "human", "value": "add"}, {"from": "gpt", "value": "3"}]},
    "text-label": {"text": "add", "label": "sum"},
    "text": {"text": "once upon a time"},
}


def varied(row, n):
    """Return the row with a number in its first text, so that rows differ."""
    text = json.dumps(row)
    for word in ("add", "once"):
        text = text.replace(word, f"{word} {n}", 1)
    return json.loads(text)


@pytest.fixture(params=list(SHAPES))
def snapshot(request, kit):
    kit.write(
        steps="",
        more="[gates]\nn_topics = 0\n",
        output='title = "A <b>pool</b>"\nlicense = "cc0-1.0"\nlanguage = ["en"]',
    )
    kit.add("a", [varied(SHAPES[request.param], n) for n in range(5)])
    kit.run()
    return request.param, kit.out / "latest"


def test_stanzas_name_columns_that_the_shards_have(snapshot):
    pyyaml = pytest.importorskip("yaml")
    shape, folder = snapshot
    columns = set(SHAPES[shape])
    entry = json.loads((folder / "dataset_info.json").read_bytes())["job"]
    assert (folder / entry["file_name"]).is_dir()
    assert set(entry["columns"].values()) <= columns
    stanza = pyyaml.safe_load((folder / "axolotl.yaml").read_text())["datasets"][0]
    assert list(folder.glob(stanza["data_files"][0]))
    if isinstance(stanza["type"], dict):
        assert {stanza["type"]["field_instruction"], stanza["type"]["field_output"]} <= columns
    else:
        assert stanza.get("field_messages", stanza.get("field")) in columns


def test_the_card_has_front_matter_that_the_hub_reads(snapshot):
    pyyaml = pytest.importorskip("yaml")
    _, folder = snapshot
    _, front, body = (folder / "README.md").read_text().split("---\n", 2)
    card = pyyaml.safe_load(front)
    assert (card["license"], card["language"], card["size_categories"]) == ("cc0-1.0", ["en"], ["n<1K"])
    assert list(folder.glob(card["configs"][0]["data_files"][0]["path"]))
    assert "<b>" not in body


@pytest.mark.filterwarnings("ignore")  # what `datasets` warns of is not ours
def test_trl_gets_rows_in_its_own_form(snapshot):
    pytest.importorskip("datasets")
    shape, folder = snapshot
    spec = importlib.util.spec_from_file_location("trl_stanza", folder / "trl.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    rows = module.load()
    assert len(rows) == 5
    expected = {"messages": ["messages"], "sharegpt": ["messages"], "text": ["text"]}.get(
        shape, ["completion", "prompt"]
    )
    assert sorted(rows.column_names) == expected
    if expected == ["messages"]:
        assert [turn["role"] for turn in rows[0]["messages"]] == ["user", "assistant"]
    if shape == "alpaca":
        assert rows[0] == {"prompt": "add 0\n1 and 2", "completion": "3"}


def test_the_shards_are_rows_for_everything_else_here(snapshot):
    shape, folder = snapshot
    assert load(folder / "data").schema.name == shape
    assert load(folder).fingerprint == load(folder / "data").fingerprint


def test_a_column_of_any_name_is_found_by_the_code_for_trl():
    """JSON writes what lies beyond 16 bits as two halves, which Python reads as another name."""
    name = "so\U0001f600'\""
    schema = Schema(name="mapped", kind="sft", columns={"prompt": (name,), "response": ("b",)})
    code = build_trl(schema, CHAT_TAGS).decode()
    lists = [ast.literal_eval(node) for node in ast.walk(ast.parse(code)) if isinstance(node, ast.List)]
    assert lists == [[name]]


@pytest.mark.filterwarnings("ignore")  # what `datasets` warns of is not ours
@pytest.mark.parametrize(
    ("row", "schema", "expected"),
    [
        (
            {"question": "q", "context": "x", "answer": "a", "system_prompt": "s"},
            Schema(
                name="query-response",
                kind="sft",
                columns={"prompt": ("question", "context"), "response": ("answer",), "system": ("system_prompt",)},
            ),
            {"prompt": [("system", "s"), ("user", "q\nx")], "completion": [("assistant", "a")]},
        ),
        (
            {"conversations": [{"from": "Human", "value": "q"}, {"from": "gpt", "value": "a"}], "system": "s"},
            Schema(name="sharegpt", kind="sft", columns={"messages": ("conversations",), "system": ("system",)}),
            {"messages": [("system", "s"), ("user", "q"), ("assistant", "a")]},
        ),
    ],
)
def test_trl_gets_the_system_prompt_of_a_column_and_the_roles_of_a_template(tmp_path, row, schema, expected):
    pytest.importorskip("datasets")
    (tmp_path / "data").mkdir()
    pl.DataFrame([row]).write_parquet(tmp_path / "data" / "rows-0.parquet")
    (tmp_path / "trl.py").write_bytes(build_trl(schema, SHAREGPT_TAGS))
    spec = importlib.util.spec_from_file_location("trl_stanza", tmp_path / "trl.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    [example] = module.load().to_list()
    assert {name: [(turn["role"], turn["content"]) for turn in turns] for name, turns in example.items()} == expected


def test_yaml_is_what_a_yaml_reader_reads():
    pyyaml = pytest.importorskip("yaml")
    value = {"a": 'x: "y" #z', "b": [1, "two", {"c": None, "d": [True]}], "e": {"f": 1.5, "g": "ünï\n"}, "h": []}
    assert pyyaml.safe_load(to_yaml(value)) == value


@pytest.mark.parametrize(
    ("turn", "more"),
    [
        ({"tool_calls": [{"function": {"name": "f", "arguments": "{}"}}]}, {}),
        ({"train": False}, {}),
        ({"masked": True}, {}),
        ({"mask": True}, {}),
        ({"mask": 0}, {}),
        ({}, {"tools": '[{"type": "function", "function": {"name": "f"}}]'}),
    ],
)
def test_what_texts_alone_cannot_say_is_refused_by_trl(tmp_path, turn, more):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "draft"} | turn]
    (tmp_path / "data").mkdir()
    pl.DataFrame([{"messages": turns, "tools": None, **more}]).write_parquet(tmp_path / "data/rows.parquet")
    columns = {"messages": ("messages",), "tools": ("tools",)}
    (tmp_path / "trl.py").write_bytes(build_trl(Schema(name="messages", kind="sft", columns=columns), CHAT_TAGS))
    with pytest.raises(ValueError, match="rows of texts alone are required"):
        runpy.run_path(tmp_path / "trl.py")["load"]()


@pytest.mark.parametrize(
    ("user", "assistant", "more"),
    [
        ({"mask": 0}, {"mask": 1}, {}),
        ({"mask": True}, {"mask": False}, {}),
        ({"train": False}, {"train": True}, {}),
        ({"masked": True}, {"masked": False}, {}),
        ({}, {}, {"tools": "[]"}),
        ({}, {"function_call": {"name": None}}, {}),
    ],
)
def test_flags_of_other_turns_and_empty_tools_are_taken_by_trl(tmp_path, user, assistant, more):
    pytest.importorskip("datasets")
    turns = [
        {"role": "system", "content": ""},
        {"role": "user", "content": "q"} | user,
        {"role": "assistant", "content": "a"} | assistant,
    ]
    (tmp_path / "data").mkdir()
    row = {"messages": json.dumps(turns), "tools": None, "system": "s", **more}
    pl.DataFrame([row]).write_parquet(tmp_path / "data/rows.parquet")
    columns = {"messages": ("messages",), "tools": ("tools",), "system": ("system",)}
    (tmp_path / "trl.py").write_bytes(build_trl(Schema(name="messages", kind="sft", columns=columns), CHAT_TAGS))
    (row,) = runpy.run_path(tmp_path / "trl.py")["load"]().to_list()
    assert [turn["content"] for turn in row["messages"]] == ["s", "q", "a"]


def _say(*turns, **flags):
    named = [{"role": role, "content": text} for role, text in turns]
    return {"messages": [*named[:-1], named[-1] | flags]}


CALL = {"function": {"name": "f", "arguments": "{}"}}
BOTH = {"dataset_info.json", "axolotl.yaml"}


@pytest.mark.parametrize(
    ("row", "missing", "reason"),
    [
        (_say(("user", "q"), ("assistant", "a")), set(), ""),
        (_say(("user", "q"), ("assistant", "a"), tool_calls=[CALL]), BOTH, "calls of tools"),
        (_say(("user", "q"), ("assistant", "a")) | {"tools": '[{"type": "function"}]'}, BOTH, "tools"),
        (_say(("user", "q"), ("assistant", "b"), ("user", "q"), ("assistant", "a"), weight=1.0), set(), ""),
        (
            {"messages": [{"role": "user", "content": "q"}, {"role": "bot", "content": "a"}]},
            BOTH,
            "turns of 'bot'",
        ),
        (_say(("user", "q"), ("assistant", "a")) | {"system": "be brief"}, {"axolotl.yaml"}, "the column system"),
        (
            {"messages": json.dumps([{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}])},
            BOTH,
            "conversations that are JSON text",
        ),
        (
            {"messages": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]},
            set(),
            "",
        ),
        (
            {"conversations": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]},
            set(),
            "",
        ),
        (
            {"messages": [{"role": "user", "content": "q"}, {"from": "assistant", "value": "a"}]},
            BOTH,
            "turns without 'role' or 'content'",
        ),
        (
            _say(("user", [{"type": "text", "text": "q"}]), ("assistant", [{"type": "text", "text": "a"}])),
            BOTH,
            "contents that are lists of parts",
        ),
        ({"instruction": "q", "output": "a", "history": [["q", "a"]]}, {"axolotl.yaml"}, "the column history"),
        ({"instruction": "q", "output": "a", "system": "s"}, set(), ""),
    ],
)
def test_an_entry_that_would_lose_something_is_not_written(kit, row, missing, reason):
    kit.write(steps="", more="[gates]\nn_topics = 0\n")
    kit.add("a", [varied(row, n) if n else row for n in range(3)])
    kit.run()
    folder = kit.out / "latest"
    assert {name for name in BOTH if not (folder / name).exists()} == missing
    card = (folder / "README.md").read_text()
    assert card.count("There is no `") == len(missing)
    assert reason in card


@pytest.mark.parametrize("column", ["messages", "conversations"])
def test_entries_name_the_keys_that_turns_have_whatever_the_column_is_called(column):
    turns = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
    theirs = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
    schema = Schema(name="x", kind="sft", columns={"messages": (column,)})

    def find(values):
        tags = find_chat_tags(pa.table({column: values}), schema)
        return [tags[name] for name in ("role_tag", "content_tag", "assistant_tag")]

    assert find([None, [], turns]) == find([json.dumps(turns)]) == ["role", "content", "assistant"]
    assert find([theirs]) == find(["", json.dumps(theirs)]) == ["from", "value", "gpt"]
    assert find([[{"role": "user", "value": "q"}]]) == ["role", "value", "assistant"]
    assert find([[*theirs, *turns]]) == ["from", "value", "gpt"]  # with nulls for what a turn lacks
