"""Masks: rules change the texts of rows, in the user's own columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from thresher.curation.rule import Rule
from thresher.dataset.masked_rows import replace_rows

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.dataset.schema import Schema

_UNMASKED = ("label", "tools")  # roles whose columns hold no free text
_NAMES = frozenset({"role", "from", "name", "type", "id", "tool_call_id"})  # members of a message


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
        changed |= zip(at, _apply_masks(rows.rows(at), names, masking), strict=True)
    return replace_rows(rows, changed)


def list_text_columns(schema: Schema) -> list[str]:
    """Return the user's columns that a mask changes."""
    return [name for role, group in schema.columns.items() if role not in _UNMASKED for name in group]


def list_free_texts(value: Any) -> list[str]:
    """Return every text in a column's value that a mask changes: its own, or of its messages."""
    return list(_iterate_texts(_decode(value)))


def _apply_masks(rows: list[dict[str, Any]], names: Sequence[str], rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Return the rows with the named columns masked; each rule gets all texts at once."""
    decoded = [{name: _decode(row[name]) for name in names if name in row} for row in rows]
    texts = pl.Series("text", [text for row in decoded for text in _iterate_texts(row)], dtype=pl.String)
    for rule in rules:
        texts = rule.mask(texts)
    # the same walk through the values takes one masked text for each text that it gave
    supply = iter(texts.to_list())
    masked_rows = []
    for row, values in zip(rows, decoded, strict=True):
        new = _substitute(values, supply)
        masked_rows.append({**row, **{name: _encode(new[name], row[name]) for name in new}})
    return masked_rows


def _decode(value: Any) -> Any:
    """Return the list that a column carries as JSON text; any other value as it is."""
    if not (isinstance(value, str) and value.lstrip().startswith("[")):
        return value
    try:
        turns = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    is_chat = isinstance(turns, list) and bool(turns) and all(isinstance(turn, dict) for turn in turns)
    return turns if is_chat else value


def _encode(value: Any, before: Any) -> Any:
    """Return a value as JSON text where it was JSON text before it was decoded."""
    is_json_text = isinstance(before, str) and not isinstance(value, str)
    return orjson.dumps(value).decode() if is_json_text else value


def _iterate_texts(value: Any, name: str = "") -> Iterator[str]:
    """Yield the free texts in a value, in the order in which `_substitute` asks for them."""
    if isinstance(value, str) and name not in _NAMES:
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _iterate_texts(member, key)
    elif isinstance(value, list):
        for member in value:
            yield from _iterate_texts(member, name)


def _substitute(value: Any, supply: Iterator[str], name: str = "") -> Any:
    if isinstance(value, str) and name not in _NAMES:
        return next(supply)
    if isinstance(value, dict):
        return {key: _substitute(member, supply, key) for key, member in value.items()}
    if isinstance(value, list):
        return [_substitute(member, supply, name) for member in value]
    return value
