"""What lets other trainers read a snapshot as it is: entries for LLaMA-Factory, axolotl and TRL."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import pyarrow as pa

from thresher.dataset import Schema
from thresher.dataset.conversation import ROLES, decode_json
from thresher.dataset.values.turn_flags import FLAGS
from thresher.printable import escape_json

PATTERN = "data/*.parquet"
_CALLS = frozenset(("tool_calls", "function_call"))
_PARTS = frozenset(("train_detail", "training_detail"))
# flags that are set for turns that are not learned; the others, but for `mask`, for those that are
_HIDING = _PARTS | {"mask", "masked"}
_TAGS = ("role_tag", "content_tag", "user_tag", "assistant_tag", "system_tag")
CHAT_TAGS = dict(zip(_TAGS, ("role", "content", "user", "assistant", "system"), strict=True))
SHAREGPT_TAGS = dict(zip(_TAGS, ("from", "value", "human", "gpt", "system"), strict=True))


def drop_absent_columns(schema: Schema, present: Collection[str]) -> Schema:
    """Return the schema without optional columns that no row has: a trainer would ask for them."""
    columns = {role: tuple(name for name in names if name in present) for role, names in schema.columns.items()}
    return replace(schema, columns={role: names for role, names in columns.items() if names})


def _find_column(schema: Schema, role: str) -> str | None:
    return next(iter(schema.columns.get(role, ())), None)


def find_chat_tags(table: pa.Table, schema: Schema) -> Mapping[str, str]:
    """Return how the first turn of rows names role and content, and the roles that go with that."""
    column = _find_column(schema, "messages")
    turn: Mapping[str, Any] = {}
    if column is not None:
        lists = (decode_json(value.as_py(), column) for value in table[column])
        turn = next((turns[0] for turns in lists if turns), {})
    tags = CHAT_TAGS if turn.get("role") is not None or turn.get("from") is None else SHAREGPT_TAGS
    content = "content" if turn.get("content") is not None or turn.get("value") is None else "value"
    return {**tags, "content_tag": content}


def _find_pair(schema: Schema) -> tuple[tuple[str, ...], str]:
    """Return the columns of the prompt and that of the response, of rows that have both."""
    if schema.kind == "classification":
        return schema.columns["text"], schema.columns["label"][0]
    return schema.columns["prompt"], schema.columns["response"][0]


def build_llama_factory(name: str, schema: Schema, tags: Mapping[str, str]) -> bytes:
    """Return `dataset_info.json`: the job's name is `dataset`, the snapshot `dataset_dir`."""
    entry: dict[str, Any] = {"file_name": "data"}
    if schema.is_chat:
        columns = {role: _find_column(schema, role) for role in ("messages", "system", "tools")}
        entry |= {"formatting": "sharegpt", "columns": {}, "tags": dict(tags)}
    elif schema.kind == "text":
        columns = {"prompt": _find_column(schema, "text")}
    else:
        prompt, response = _find_pair(schema)
        columns = {"prompt": prompt[0], "query": prompt[1] if len(prompt) > 1 else None, "response": response}
        columns |= {role: _find_column(schema, role) for role in ("system", "history")}
    entry["columns"] = {role: column for role, column in columns.items() if column is not None}
    return json.dumps({name: entry}, indent=2, ensure_ascii=False).encode() + b"\n"


def build_axolotl(schema: Schema, tags: Mapping[str, str]) -> bytes:
    """Return the `datasets` stanza of an axolotl configuration."""
    entry: dict[str, Any] = {"path": ".", "ds_type": "parquet", "data_files": [PATTERN], "split": "train"}
    if schema.is_chat:
        entry |= {
            "type": "chat_template",
            "field_messages": _find_column(schema, "messages"),
            "message_property_mappings": {"role": tags["role_tag"], "content": tags["content_tag"]},
        }
    elif schema.kind == "text":
        entry |= {"type": "completion", "field": _find_column(schema, "text")}
    else:
        prompt, response = _find_pair(schema)
        form = {"field_instruction": prompt[0], "field_output": response, "no_input_format": "{instruction}"}
        if len(prompt) > 1:
            form |= {"field_input": prompt[1], "format": "{instruction}\n{input}"}
        else:
            form |= {"format": "{instruction}"}
        if (system := _find_column(schema, "system")) is not None:
            form["field_system"] = system
        entry["type"] = form
    head = "# Paths are from this folder: start axolotl here, or put the folder before them.\n"
    return (head + to_yaml({"datasets": [entry]})).encode()


def build_trl(schema: Schema, tags: Mapping[str, str]) -> bytes:
    """Return `trl.py`, whose `load()` gives what TRL's SFTTrainer takes as `train_dataset`."""
    system = ascii(list(schema.columns.get("system", ())))
    if schema.is_chat:
        column = ascii(_find_column(schema, "messages"))
        keys = f"{tags['role_tag']!a}, {tags['content_tag']!a}"
        # what a conversation of roles and texts has no room for
        others = {"flags": sorted(FLAGS - _HIDING), "parts": sorted(_PARTS), "calls": sorted(_CALLS)}
        others["tools"] = list(schema.columns.get("tools", ()))
        lists = {name: ascii(names) for name, names in others.items()}
        body = _TRL_CHAT.format(column=column, keys=keys, roles=ROLES, system=system, **lists)
    elif schema.kind == "text":
        column = ascii(_find_column(schema, "text"))
        renamed = "" if column == "'text'" else f'.rename_column({column}, "text")'
        body = f"    return rows.select_columns([{column}]){renamed}\n"
    else:
        prompt, response = _find_pair(schema)
        names = {"prompt": ascii(list(prompt)), "response": ascii(response), "system": system}
        body = (_TRL_CONVERSATION if schema.columns.get("system") else _TRL_PAIR).format(**names)
    return (_TRL_HEAD + body).encode()


_TRL_HEAD = '''"""The rows of this snapshot as TRL's SFTTrainer takes them: SFTTrainer(..., train_dataset=load())."""

import json
from pathlib import Path

from datasets import load_dataset

FOLDER = Path(__file__).parent


def load():
    rows = load_dataset("parquet", data_files=str(FOLDER / "data" / "*.parquet"), split="train")
'''
_TRL_PAIR = """
    def pair(row):
        parts = [row[name] for name in {prompt} if row[name] not in (None, "")]
        return {{"prompt": "\\n".join(map(str, parts)), "completion": str(row[{response}])}}

    return rows.map(pair, remove_columns=rows.column_names)
"""
_TRL_CONVERSATION = """
    def talk(row):
        system = "\\n".join(row[name] for name in {system} if row[name])
        before = [{{"role": "system", "content": system}}] if system else []
        prompt = "\\n".join(str(row[name]) for name in {prompt} if row[name] not in (None, ""))
        prompt = [*before, {{"role": "user", "content": prompt}}]
        return {{"prompt": prompt, "completion": [{{"role": "assistant", "content": str(row[{response}])}}]}}

    return rows.map(talk, remove_columns=rows.column_names)
"""
_TRL_CHAT = """
    role, content = {keys}
    names = {roles}

    def says(turn, name):
        value = turn.get(name)
        return None if value is None else str(value).strip().lower() in ("true", "1", "1.0")

    def find_masks(turns):  # the value that all other turns have hides, else true and the number 0 do
        masks = [says(turn, "mask") for turn in turns]
        is_own = [names[turn[role].lower()] == "assistant" for turn in turns]
        own = {{mask for mask, mine in zip(masks, is_own) if mine}} - {{None}}
        others = {{mask for mask, mine in zip(masks, is_own) if not mine}} - {{None}}
        if len(others) == 1 and own - others:
            return [mask in others for mask in masks]
        return [mask is not None and mask is isinstance(turn["mask"], bool) for turn, mask in zip(turns, masks)]

    def is_unlearned(turn):
        is_off = any(says(turn, name) is False for name in {flags})
        return is_off or says(turn, "masked") or any(turn.get(name) for name in {parts})

    def holds(value):  # also as JSON text, and as a struct of nulls
        try:
            value = json.loads(value) if isinstance(value, str) and value.strip() else value
        except ValueError:
            return True
        return any(each is not None for each in value.values()) if isinstance(value, dict) else bool(value)

    def chat(row):
        turns = row[{column}]
        turns = json.loads(turns) if isinstance(turns, str) else turns
        own = [(turn, mask) for turn, mask in zip(turns, find_masks(turns)) if names[turn[role].lower()] == "assistant"]
        marked = any(mask or is_unlearned(turn) for turn, mask in own)
        calls = any(holds(turn.get(name)) for turn, _ in own for name in {calls})
        if marked or calls or any(holds(row[name]) for name in {tools}):
            raise ValueError("rows of texts alone are required, found tools, calls or turns that are not learned")
        said = [{{"role": names[turn[role].lower()], "content": turn[content]}} for turn in turns]
        system = "\\n".join(row[name] for name in {system} if row[name])
        if system and said[0]["role"] != "system":
            said.insert(0, {{"role": "system", "content": system}})
        elif system and not said[0]["content"]:
            said[0]["content"] = system
        return {{"messages": said}}

    return rows.map(chat, remove_columns=rows.column_names)
"""


def to_yaml(value: Any, indent: int = 0) -> str:
    """Return dicts, lists and plain values as YAML; texts are quoted as JSON, which is YAML too."""
    pad = " " * indent
    lines = []
    items = value.items() if isinstance(value, dict) else [(None, item) for item in value]
    for key, item in items:
        head = f"{pad}- " if key is None else f"{pad}{key}:"
        if isinstance(item, dict | list) and item:
            inner = to_yaml(item, indent + 2)
            lines.append(head + inner[indent + 2 :] if key is None else f"{head}\n{inner}")
        else:
            plain = escape_json(json.dumps(item, ensure_ascii=False))
            lines.append(f"{head}{plain}\n" if key is None else f"{head} {plain}\n")
    return "".join(lines)
