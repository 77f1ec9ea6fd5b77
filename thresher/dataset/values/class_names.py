"""Names of classes that files carry beside numbers (`datasets.ClassLabel`): each file has its own.

The numbers of a file are read by the names of that file, so that files whose names stand in another
order are joined by name. A file of numbers without names is read by the names of the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from thresher.dataset.formats.shard import Block, Shard
from thresher.dataset.rejection import BadRow
from thresher.dataset.schema import Schema
from thresher.errors import InputError

Names = Sequence[str]
_LOOKED_AT = 50  # rows of a file, to tell numbers from texts


def use_own_names(schema: Schema, shard: Shard) -> Schema:
    """Return the schema with the class names of a file, where it has any."""
    if "label" not in schema.columns:
        return schema
    names = shard.label_names.get(schema.columns["label"][0])
    return schema if names is None or names == schema.label_names else replace(schema, label_names=names)


def find_label_names(schema: Schema, shard: Shard) -> Names | None:
    """Return the class names of a file; () where its labels are bare numbers, None for texts."""
    if "label" not in schema.columns:
        return None
    name = schema.columns["label"][0]
    if name in shard.label_names:
        return shard.label_names[name]
    block = next(iter(shard.blocks(columns=[name])), None)
    return () if block is not None and any(_is_number(value) for value in _read_values(block, name)) else None


def _read_values(block: Block, name: str) -> Iterator[Any]:
    """Yield the values of a column in the first good rows of a block."""
    for index in range(min(len(block.positions), _LOOKED_AT)):
        with suppress(BadRow):
            yield block.row(index).get(name)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_label_names(names: Mapping[str, Names | None], column: str) -> None:
    """Refuse bare numbers beside files with class names, unless the first names them for all.

    Args:
        names: of each file, from `find_label_names`, in the order of the files.
        column: that holds the labels.

    Raises:
        InputError: nobody can tell which class a number stands for.
    """
    bare = [file for file, own in names.items() if own is not None and not own]
    named = {file: own for file, own in names.items() if own}
    if not bare or not named:
        return
    first = next(own for own in names.values() if own is not None)
    if first and len(set(map(tuple, named.values()))) == 1:
        return
    file, own = next(iter(named.items()))
    raise InputError(
        f"{bare[0]}: the numbers in column '{column}' need names of classes as in {file} "
        f"({', '.join(own[:5])}{', ...' if len(own) > 5 else ''}), found none; "
        "write the names into the column, or load these files apart"
    )


def list_disagreeing_columns(label_names: Iterable[Mapping[str, Names]]) -> frozenset[str]:
    """Return the columns whose classes are named differently by files, from the names of each."""
    named: dict[str, set[tuple[str, ...]]] = {}
    for one in label_names:
        for column, names in one.items():
            named.setdefault(column, set()).add(tuple(names))
    return frozenset(column for column, names in named.items() if len(names) > 1)


def decode_rows(
    rows: Sequence[dict[str, Any]], names: Mapping[str, Names], columns: frozenset[str]
) -> Sequence[dict[str, Any]]:
    """Return rows with class names in place of the numbers in some columns.

    Args:
        rows: of one file.
        names: of its classes, by column.
        columns: to decode.
    """
    decoded = [name for name in names if name in columns]
    if not decoded:
        return rows
    return [{**row, **{name: _decode(row[name], names[name]) for name in decoded if name in row}} for row in rows]


def _decode(value: Any, names: Names) -> Any:
    return names[value] if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names) else value


def encode_row(row: dict[str, Any], names: Mapping[str, Names], columns: frozenset[str]) -> dict[str, Any]:
    """Return a row as its file holds it: with numbers in place of the names that were decoded."""
    own = {name: names[name] for name in columns & names.keys() if row.get(name) in names[name]}
    return {**row, **{name: classes.index(row[name]) for name, classes in own.items()}}
