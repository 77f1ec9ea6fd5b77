"""Masks: rules change the texts of rows, in the user's own columns."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import polars as pl

from thresher.curation.rule import Rule
from thresher.dataset.conversation import drop_nulls, resolve_role
from thresher.dataset.masked_rows import replace_rows
from thresher.errors import InputError

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.dataset.schema import Schema

Change: TypeAlias = Callable[[str], str]  # from a text to what stands in its place
DEEPEST = 300  # levels: what is nested deeper is text like any other
_UNMASKED = ("label", "tools")  # roles whose columns hold no free text
# Members that hold no free text, at the level of a message and of a call, nowhere else: the
# arguments of a call may have members of these names.
_OF_MESSAGE = frozenset({"role", "from", "name", "type", "id", "tool_call_id"})
_OF_CALL = frozenset({"type", "id", "name"})


def mask_rows(rows: Dataset, rules: Mapping[int, tuple[Rule, ...]]) -> Dataset:
    """Return the dataset with the texts of some rows masked.

    The columns that the schema reads are changed, but for labels and tools: their text, or every
    text in their messages. Other columns are not looked at.

    Args:
        rows: n rows.
        rules: position -> the rules that mask the row, in order.
    """
    positions: dict[tuple[Rule, ...], list[int]] = {}
    for position, masking in rules.items():
        positions.setdefault(masking, []).append(position)
    names = list_text_columns(rows.schema)
    changed: dict[int, dict[str, Any]] = {}
    for masking, at in positions.items():
        masked = _apply_masks(list_values(rows, at, names), masking)
        changed |= {i: row | new for i, row, new in zip(at, rows.rows(at), masked, strict=True)}
    return replace_rows(rows, changed)


def list_text_columns(schema: Schema) -> list[str]:
    """Return the user's columns that a mask changes."""
    return [name for role, group in schema.columns.items() if role not in _UNMASKED for name in group]


def list_values(rows: Dataset, at: Sequence[int], names: Sequence[str]) -> list[dict[str, Any]]:
    """Return the values of some columns by row, without the nulls that tables add to structs.

    In a table, a member that one row has is in all rows.
    """
    is_typed = [rows.shards[rows.shard[i]].is_typed for i in at]
    return [
        {name: drop_nulls(row[name]) if typed else row[name] for name in names if name in row}
        for row, typed in zip(rows.rows(at), is_typed, strict=True)
    ]


def list_free_texts(value: Any) -> list[str]:
    """Return every text in a column's value that a mask changes: its own, or of its messages.

    Of JSON text, and of the arguments of calls, these are the members, their names, and the whole
    numbers.
    """
    texts: list[str] = []

    def collect(text: str) -> str:
        texts.append(text)
        return text

    _map_column(value, collect)
    return texts


def _apply_masks(values: list[dict[str, Any]], rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Return the values of rows masked; each rule gets all texts at once."""
    found = [text for row in values for value in row.values() for text in list_free_texts(value)]
    texts = pl.Series("text", found, dtype=pl.String)
    for rule in rules:
        texts = rule.mask(texts)
    # the same walk through the values takes one masked text for each text that it gave
    supply = iter(texts.to_list())
    return [{name: _map_column(value, lambda _: next(supply)) for name, value in row.items()} for row in values]


def _map_column(value: Any, change: Change) -> Any:
    """Return the value of a column with its texts changed: a text, messages, or any list."""
    if isinstance(value, str):
        return _map_text(value, change, _map_turns)
    if not isinstance(value, list):
        return value
    return _map_deep(value, change) if _is_deep(value) else _map_turns(value, change)


def _map_deep(value: list[Any], change: Change) -> Any:
    """Return a list that is nested too deep changed as its JSON text; broken JSON stays text."""
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
    except RecursionError:
        raise InputError(f"rows of at most {DEEPEST} nested levels are required, found more; drop such rows") from None
    new = change(text)
    try:
        return value if new == text else json.loads(new)
    except ValueError:
        return new


def _map_turns(value: Any, change: Change) -> Any:
    if not isinstance(value, list):
        return _map_all(value, change)
    return [_map_message(each, change) if _is_message(each) else _map_all(each, change) for each in value]


def _is_message(value: Any) -> bool:
    roles = [value.get(key) for key in ("role", "from")] if isinstance(value, dict) else []
    return any(isinstance(role, str) and resolve_role(role) is not None for role in roles)


def _map_message(message: Mapping[str, Any], change: Change) -> dict[str, Any]:
    return {key: _map_member(key, value, change) for key, value in message.items()}


def _map_member(key: str, value: Any, change: Change) -> Any:
    """Return a member of a message with its texts changed; flags and numbers stay."""
    if key in _OF_MESSAGE or not isinstance(value, str | list | dict):
        return value
    if key not in ("tool_calls", "function_call"):
        return _map_all(value, change)
    return _map_text(value, change, _map_calls) if isinstance(value, str) else _map_calls(value, change)


def _map_calls(value: Any, change: Change) -> Any:
    """Return calls, one of them, or its `function` with the texts of their arguments changed."""
    if isinstance(value, list):
        return [_map_calls(each, change) for each in value]
    if not isinstance(value, dict):
        return _map_all(value, change)
    walks = {"function": _map_calls} | dict.fromkeys(_OF_CALL, _keep)
    return {key: walks.get(key, _map_all)(member, change) for key, member in value.items()}


def _keep(value: Any, _: Change) -> Any:
    return value


def _map_all(value: Any, change: Change) -> Any:
    """Return a value with everything in it changed: texts, whole numbers, names of members."""
    if isinstance(value, str):
        return _map_text(value, change, _map_all)
    if isinstance(value, list):
        return [_map_all(each, change) for each in value]
    if isinstance(value, dict):
        return _map_object(value, change)
    if isinstance(value, bool) or not (isinstance(value, int) or (isinstance(value, float) and value.is_integer())):
        return value
    number = str(int(value))
    text = change(number)
    return value if text == number else text


def _map_object(value: Mapping[str, Any], change: Change) -> dict[str, Any]:
    new: dict[str, Any] = {}
    for key, member in value.items():
        name = change(key)
        while name in new:  # as of two addresses that are masked alike
            name += "+"
        new[name] = _map_all(member, change)
    return new


def _map_text(text: str, change: Change, walk: Callable[[Any, Change], Any]) -> str:
    """Return a text changed; of an object or a list as JSON text, what is in it, as JSON again."""
    value = _parse_json(text)
    if value is None:
        return change(text)
    new = walk(value, change)
    return text if new == value else json.dumps(new, ensure_ascii=False)


def _parse_json(text: str) -> Any:
    """Return the object or list of JSON text that can be written again; None for any other text."""
    value = _load_json(text)
    return None if value is None or _is_deep(value) else value


def _load_json(text: str) -> Any:
    if text.lstrip()[:1] not in ("{", "["):
        return None
    try:
        value = json.loads(text, object_pairs_hook=_refuse_repeats)
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # also half of a surrogate pair
        return None
    return value


def _is_deep(value: Any) -> bool:
    """Tell whether a value, JSON text in it included, is nested too deep to be walked through."""
    level = [value]
    for _ in range(DEEPEST):
        level = [member for each in level for member in _list_members(each)]
        if not level:
            return False
    return True


def _list_members(value: Any) -> list[Any]:
    if isinstance(value, str):
        value = _load_json(value)
    return list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []


def _refuse_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Refuse an object that has a member twice: only the last would be looked at."""
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a member is there twice")
    return members
