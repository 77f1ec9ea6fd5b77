"""Rows whose texts were changed, such as masked ones; the user's files stay as they are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl

from thresher.dataset.canonical import canonicalize_row
from thresher.dataset.columns import to_json_text
from thresher.dataset.dataset import Dataset
from thresher.dataset.formats.shard import Shard
from thresher.dataset.formats.table_shard import TableShard
from thresher.dataset.rejection import BadRow
from thresher.dataset.values.class_names import encode_row, use_own_names
from thresher.errors import InputError

Row = dict[str, Any]


def replace_rows(rows: Dataset, changed: Mapping[int, Row]) -> Dataset:
    """Return the dataset with other contents in some rows; ids, files and lines stay.

    What is written of it holds the changed rows in the format of their file; all other rows are
    copied byte for byte.

    Args:
        rows: n rows.
        changed: position -> the whole row as it shall be.

    Raises:
        InputError: a changed row cannot be used any more.
    """
    if not changed:
        return rows
    shards = list(rows.shards)
    for number in np.unique(rows.shard[list(changed)]).tolist():
        # from a position in the dataset to the one in the file
        names = shards[number].label_names
        in_file = {
            int(rows.position[at]): encode_row(row, names, rows.decoded_columns)
            for at, row in changed.items()
            if rows.shard[at] == number
        }
        shards[number] = shards[number].replace_rows(in_file)
    return replace(
        rows,
        shards=tuple(_share_text_columns(rows.shards, shards)),
        frame=_change_frame(rows, changed),
        _columns={name: _change_column(rows, changed, name) for name in _list_changed_columns(rows, changed)},
    )


def _share_text_columns(before: Sequence[Shard], after: Sequence[Shard]) -> list[Shard]:
    """Return the shards with the same columns as JSON text in all tables of one layout.

    So they are still written to one file of their format.
    """
    names: dict[object, frozenset[str]] = {}
    for old, new in zip(before, after, strict=True):
        if isinstance(new, TableShard):
            names[old.layout] = names.get(old.layout, frozenset()) | new.as_text
    return [
        new.write_as_text(names[old.layout]) if isinstance(new, TableShard) and names[old.layout] else new
        for old, new in zip(before, after, strict=True)
    ]


def _change_frame(rows: Dataset, changed: Mapping[int, Row]) -> pl.DataFrame:
    """Return the canonical columns with the changed rows read anew."""
    at = list(changed)
    try:
        texts = [
            canonicalize_row(changed[i], use_own_names(rows.schema, shard), is_typed=shard.is_typed)
            for i, shard in ((i, rows.shards[rows.shard[i]]) for i in at)
        ]
    except BadRow as reason:
        raise InputError(f"a masked row must remain usable: {reason}; mask less of it") from None
    prompt, response = rows.frame["prompt"].to_list(), rows.frame["response"].to_list()
    for position, text in zip(at, texts, strict=True):
        prompt[position], response[position] = text.prompt, text.response
    return rows.frame.with_columns(
        pl.Series("prompt", prompt, dtype=pl.String), pl.Series("response", response, dtype=pl.String)
    )


def _list_changed_columns(rows: Dataset, changed: Mapping[int, Row]) -> list[str]:
    """Return the columns in which any changed row differs from the file's."""
    at = list(changed)
    before = dict(zip(at, rows.rows(at), strict=True))
    return sorted({name for i, row in changed.items() for name in row if row[name] != before[i].get(name)})


def _change_column(rows: Dataset, changed: Mapping[int, Row], name: str) -> pl.Series:
    column = rows.column(name)
    values = column.to_list()
    for at, row in changed.items():
        value = row.get(name)
        values[at] = to_json_text(value) if column.dtype == pl.String else value
    return pl.Series(name, values, dtype=column.dtype)
