"""Masks: the texts of rows changed by rules, in the user's own columns."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson
import polars as pl

from thresher.curation.rule import Rule
from thresher.dataset.masked_rows import with_changed_rows

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.dataset.schema import Schema

_LEFT = ("label", "tools")  # roles whose columns hold no free text
_NAMES = frozenset({"role", "from", "name", "type", "id", "tool_call_id"})  # members of a message that are no free text
Texts = Callable[[list[str]], list[str]]


def masked(rows: Dataset, rules: Mapping[int, tuple[Rule, ...]]) -> Dataset:
    """Return the dataset with the texts of some rows masked.

    The columns that the schema reads are changed, but for labels and tools: their text, or every
    text in their messages. Other columns are not looked at.

    Args:
        rows: n rows.
        rules: position -> the rules that mask the row, in order.
    """
    positions: dict[tuple[Rule, ...], list[int]] = {}
    for position, wanted in rules.items():
        positions.setdefault(wanted, []).append(position)
    names = text_columns(rows.schema)
    changed: dict[int, dict[str, Any]] = {}
    for wanted, at in positions.items():
        changed |= zip(at, _masked_rows(rows.rows(at), names, wanted), strict=True)
    return with_changed_rows(rows, changed)


def text_columns(schema: Schema) -> list[str]:
    """Return the user's columns that a mask changes."""
    return [name for role, group in schema.columns.items() if role not in _LEFT for name in group]


def free_texts(value: Any) -> list[str]:
    """Return every text in a column's value that a mask changes: the value itself, or what its messages say."""
    return list(_texts(_opened(value)))


def _masked_rows(rows: list[dict[str, Any]], names: Sequence[str], rules: Sequence[Rule]) -> list[dict[str, Any]]:
    """Return the rows with every text in the named columns masked; all texts go through each rule at once."""
    opened = [{name: _opened(row[name]) for name in names if name in row} for row in rows]
    texts = pl.Series("text", [text for row in opened for text in _texts(row)], dtype=pl.String)
    for rule in rules:
        texts = rule.mask(texts)  # type: ignore[attr-defined]  # an optional member of the protocol
    supply = iter(texts.to_list())
    masked_rows = []
    for row, inside in zip(rows, opened, strict=True):
        new = _replaced(inside, supply)
        masked_rows.append({**row, **{name: _closed(row[name], new[name]) for name in new}})
    return masked_rows


def _opened(value: Any) -> Any:
    """Return the list that a column carries as JSON text; any other value as it is."""
    if not (isinstance(value, str) and value.lstrip().startswith("[")):
        return value
    try:
        found = orjson.loads(value)
    except orjson.JSONDecodeError:
        return value
    is_chat = isinstance(found, list) and bool(found) and all(isinstance(turn, dict) for turn in found)
    return found if is_chat else value


def _closed(before: Any, after: Any) -> Any:
    is_json_text = isinstance(before, str) and not isinstance(after, str)
    return orjson.dumps(after).decode() if is_json_text else after


def _texts(value: Any, name: str = "") -> Iterator[str]:
    """Yield the free texts in a value, in the order in which `_replaced` asks for them."""
    if isinstance(value, str) and name not in _NAMES:
        yield value
    elif isinstance(value, dict):
        for key, member in value.items():
            yield from _texts(member, key)
    elif isinstance(value, list):
        for member in value:
            yield from _texts(member, name)


def _replaced(value: Any, supply: Iterator[str], name: str = "") -> Any:
    if isinstance(value, str) and name not in _NAMES:
        return next(supply)
    if isinstance(value, dict):
        return {key: _replaced(member, supply, key) for key, member in value.items()}
    if isinstance(value, list):
        return [_replaced(member, supply, name) for member in value]
    return value
