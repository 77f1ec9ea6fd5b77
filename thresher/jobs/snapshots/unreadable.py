"""What entries for other trainers cannot say of the rows: such an entry is not written.

The entries name columns, and the trainer reads the rows by itself. One that has no room for a tool
call, a hidden turn or a second system prompt would train on less than the rows say, without a word.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pyarrow as pa

from thresher.dataset import Schema
from thresher.dataset.canonical import build_conversation

LLAMA_FACTORY, AXOLOTL = "dataset_info.json", "axolotl.yaml"
_ROWS_AT_ONCE = 1_000
_MOST_PROMPT_COLUMNS = 2  # the instruction and its input


def find_unreadable(table: pa.Table, schema: Schema, tags: Mapping[str, str]) -> dict[str, str]:
    """Return the entries that would lose something, each with what that is.

    Args:
        table: rows of a snapshot.
        schema: without columns that no row has.
        tags: how the entries say that turns name role and content, see `exports.find_chat_tags`.
    """
    problem = _find_in_columns(table, schema) or _find_in_rows(table, schema, tags)
    if problem is not None:
        return dict.fromkeys((LLAMA_FACTORY, AXOLOTL), problem)
    problems = {}
    system, history = (_list_filled(table, schema, role) for role in ("system", "history"))
    if len(system) > 1:
        problems[LLAMA_FACTORY] = f"the system prompts of several columns ({', '.join(system)})"
    if history or len(system) > 1 or (system and schema.is_chat):
        beside = [*system, *history]
        problems[AXOLOTL] = f"the contents of {'the column' if len(beside) == 1 else 'the columns'} {', '.join(beside)}"
    return problems


def _list_filled(table: pa.Table, schema: Schema, role: str) -> list[str]:
    """Return the columns of a role that some row fills."""
    names = [name for name in schema.columns.get(role, ()) if name in table.column_names]
    parts = {name: _iterate_rows(table.select([name])) for name in names}
    return [name for name, rows in parts.items() if any(row[name] not in (None, "", []) for _, row in rows)]


def _find_in_columns(table: pa.Table, schema: Schema) -> str | None:
    most = {"text": _MOST_PROMPT_COLUMNS if schema.kind == "classification" else 1, "prompt": _MOST_PROMPT_COLUMNS}
    for role in ("text", "prompt", "response", "label"):
        names = [name for name in schema.columns.get(role, ()) if name in table.column_names]
        if len(names) > most.get(role, 1):
            return f"texts of {len(names)} columns ({', '.join(names)})"
    return None


def _find_in_rows(table: pa.Table, schema: Schema, tags: Mapping[str, str]) -> str | None:
    """Return what the first row holds that a conversation of roles and texts has no room for."""
    if schema.kind != "sft":
        return None
    names = [name for names in schema.columns.values() for name in names if name in table.column_names]
    is_plain = not schema.is_chat and not any(pa.types.is_nested(table.schema.field(name).type) for name in names)
    if is_plain and not any(name in table.column_names for name in schema.columns.get("tools", ())):
        return None
    for number, row in _iterate_rows(table.select(dict.fromkeys(names))):
        problem = _find_in_row(row, schema, tags)
        if problem is not None:
            return f"{problem} (first in row {number + 1:,})"
    return None


def _iterate_rows(table: pa.Table) -> Iterator[tuple[int, dict[str, Any]]]:
    for start in range(0, table.num_rows, _ROWS_AT_ONCE):
        yield from enumerate(table.slice(start, _ROWS_AT_ONCE).to_pylist(), start)


def _find_in_row(row: Mapping[str, Any], schema: Schema, tags: Mapping[str, str]) -> str | None:
    conversation = build_conversation(row, schema, is_typed=True)
    if conversation.tools is not None:
        return "tools"
    for turn in conversation.messages:
        if turn["role"] == "tool" or "tool_calls" in turn or "tool_call_id" in turn:
            return "calls of tools"
        if turn.get("weight") == 0:
            return "turns that are not learned"
        if not isinstance(turn.get("content"), str) or set(turn) - {"role", "content", "weight"}:
            return f"turns with {', '.join(sorted(set(turn) - {'role', 'content'})) or 'no text'}"
    if not schema.is_chat:
        return None if isinstance(row[schema.columns["prompt"][0]], str) else "prompts that are lists of turns"
    return _find_in_turns(row[schema.columns["messages"][0]], tags)


def _find_in_turns(turns: Any, tags: Mapping[str, str]) -> str | None:
    """Return what turns, as they stand in the row, hold that a trainer does not look for."""
    if not isinstance(turns, list):
        return "conversations that are JSON text"
    role, content = tags["role_tag"], tags["content_tag"]
    for turn in turns:
        if isinstance(turn.get(content), list):
            return "contents that are lists of parts"
        if turn.get(role) is None or turn.get(content) is None:
            return f"turns without '{role}' or '{content}', which other turns have"
    known = {tags[name] for name in ("user_tag", "assistant_tag", "system_tag")}
    others = {turn[role] for turn in turns} - known
    return f"turns of '{min(others)}'" if others else None
