"""A row of the user with another answer or prompt, in the columns that hold it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thresher.artifacts.json_text import encode_json, parse_json
from thresher.dataset.conversation import get_first, resolve_role
from thresher.dataset.schema import Schema

Row = dict[str, Any]


def replace_answer(row: Mapping[str, Any], schema: Schema, answer: str, *, original: str, column: str) -> Row:
    """Return a row with another last answer, and the one it had in a column of its own.

    Args:
        row: as the user has it; it is left as it is.
        schema: of kind "sft".
        answer: takes the place of the last assistant turn or of the response column.
        original: the answer that is replaced.
        column: name of the column for it.
    """
    return {**set_answer(row, schema, answer), column: original}


def set_answer(row: Mapping[str, Any], schema: Schema, answer: str) -> Row:
    """Return a row of kind "sft" with another last answer; the row itself is left as it is."""
    name = _find_column(schema)
    is_chat = schema.is_chat or isinstance(row[name], list)
    return {**row, name: _replace_last_turn(row[name], answer, "assistant") if is_chat else answer}


def set_prompt(row: Mapping[str, Any], schema: Schema, prompt: str) -> Row:
    """Return a row that asks something else: in its last user turn, or in its first prompt column.

    Further columns of the prompt are emptied, as the new prompt stands for all of them.
    """
    if schema.is_chat:
        name = _find_column(schema)
        return {**row, name: _replace_last_turn(row[name], prompt, "user")}
    first, *others = schema.columns["text" if schema.kind == "classification" else "prompt"]
    if isinstance(row[first], list):
        return {**row, first: _replace_last_turn(row[first], prompt, "user")}
    return {**row, first: prompt, **{name: "" for name in others if name in row}}


def has_plain_answer(row: Mapping[str, Any], schema: Schema) -> bool:
    """Tell whether the last answer is text alone, and not a call of tools."""
    value = row[_find_column(schema)]
    turns = parse_json(value) if schema.is_chat and isinstance(value, str) else value
    return not isinstance(turns, list) or not any(
        turns[_find_last(turns, "assistant")].get(key) for key in ("tool_calls", "function_call")
    )


def rests_on_tools(row: Mapping[str, Any], schema: Schema) -> bool:
    """Tell whether turns, as calls of tools and results, stand between question and answer."""
    name = _find_column(schema) if schema.is_chat else schema.columns["prompt"][0]
    turns = parse_json(row[name]) if schema.is_chat and isinstance(row[name], str) else row[name]
    if not isinstance(turns, list):
        return False
    end = _find_last(turns, "assistant") if schema.is_chat else len(turns)
    return end - _find_last(turns, "user") > 1


def _replace_last_turn(value: Any, text: str, role: str) -> Any:
    """Return messages with another last turn of a role, as JSON text where they are."""
    turns = parse_json(value) if isinstance(value, str) else value
    at = _find_last(turns, role)
    content = "content" if turns[at].get("content") is not None or "value" not in turns[at] else "value"
    replaced = [*turns[:at], {**turns[at], content: text}, *turns[at + 1 :]]
    return encode_json(replaced).decode() if isinstance(value, str) else replaced


def _find_column(schema: Schema) -> str:
    return schema.columns["messages" if schema.is_chat else "response"][0]


def _find_last(turns: list[Mapping[str, Any]], role: str) -> int:
    return max(i for i, turn in enumerate(turns) if resolve_role(get_first(turn, "role", "from") or "") == role)
