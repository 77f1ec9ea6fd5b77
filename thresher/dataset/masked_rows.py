"""Rows whose texts were changed, such as masked ones: the user's files stay, the changed rows lie over them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

from thresher.dataset.canonical import canonicalize_row
from thresher.dataset.dataset import Dataset
from thresher.dataset.formats.files import SourceFile
from thresher.dataset.formats.shard import Positions, Shard
from thresher.dataset.formats.table_shard import TableShard
from thresher.dataset.formats.text_shard import TextShard
from thresher.dataset.rejection import BadRow
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
    shards: list[Shard] = list(rows.shards)
    for number in np.unique(rows.shard[list(changed)]).tolist():
        mine = {int(rows.position[at]): row for at, row in changed.items() if rows.shard[at] == number}
        shards[number] = _over(shards[number], mine)
    return replace(
        rows,
        shards=tuple(shards),
        frame=_changed_frame(rows, changed),
        _columns={name: _changed_column(rows, changed, name) for name in _changed_names(rows, changed)},
    )


def _over(shard: Shard, changed: Mapping[int, Row]) -> Shard:
    if isinstance(shard, _ChangedShard):
        return _over(shard.below, {**shard.changed, **changed})
    if isinstance(shard, TextShard):
        return _ChangedText(shard, changed)
    if isinstance(shard, TableShard):
        return _ChangedTable(shard, changed)
    raise AssertionError(f"rows of a {type(shard).__name__} cannot be changed")


class _ChangedShard:
    """What both kinds share: everything but the changed rows is the file's."""

    def __init__(self, shard: TextShard | TableShard, changed: Mapping[int, Row]) -> None:
        self.name = shard.name
        self.suffix = shard.suffix
        self.advice = shard.advice
        self.below = shard
        self.changed = changed

    @property
    def source(self) -> SourceFile:
        """The file as it was when it was read."""
        return self.below.source

    @property
    def column_names(self) -> Sequence[str]:
        """The user's columns."""
        return self.below.column_names

    @property
    def layout(self) -> object:
        """The file's own."""
        return self.below.layout

    @property
    def label_names(self) -> Mapping[str, tuple[str, ...]]:
        """Names of classes by column."""
        return self.below.label_names

    def blocks(self, positions: Positions | None = None, *, columns: Sequence[str] | None = None) -> Iterator[Any]:
        """Yield the rows of the file: for columns that no change touches."""
        yield from self.below.blocks(positions, columns=columns)

    def rows(self, positions: Positions) -> list[Row]:
        """Return rows in the order of the positions, changed ones as they are now."""
        found = self.below.rows(positions)
        return [self.changed.get(at, row) for at, row in zip(positions.tolist(), found, strict=True)]

    def copier(self, path: Path) -> Any:
        """Open a file to copy rows into."""
        return self.below.copier(path)


class _ChangedText(_ChangedShard):
    def read_spans(self, positions: Positions) -> Iterator[bytes]:
        """Yield the bytes of rows; changed ones are written anew."""
        assert isinstance(self.below, TextShard)
        for at, span in zip(positions.tolist(), self.below.read_spans(positions), strict=True):
            yield self.below.encoded(self.changed[at]) if at in self.changed else span


class _ChangedTable(_ChangedShard):
    def take_rows(self, positions: Positions) -> pa.Table:
        """Return rows as a table, with the changed values of the columns that changed."""
        assert isinstance(self.below, TableShard)
        table = self.below.take_rows(positions)
        mine = {i: self.changed[at] for i, at in enumerate(positions.tolist()) if at in self.changed}
        names = dict.fromkeys(name for row in mine.values() for name in row if name in table.column_names)
        for name in names:
            values = table[name].to_pylist()
            if all(values[i] == row[name] for i, row in mine.items()):
                continue
            for i, row in mine.items():
                values[i] = row[name]
            field = table.schema.field(name)
            table = table.set_column(table.schema.get_field_index(name), field, pa.array(values, type=field.type))
        return table


def _changed_frame(rows: Dataset, changed: Mapping[int, Row]) -> pl.DataFrame:
    """Return the canonical columns with the changed rows read anew."""
    at = list(changed)
    try:
        texts = [canonicalize_row(changed[position], rows.schema) for position in at]
    except BadRow as reason:
        raise InputError(f"a changed row must stay usable: {reason}; mask less of it") from None
    prompt = rows.frame["prompt"].to_list()
    response = rows.frame["response"].to_list()
    for position, text in zip(at, texts, strict=True):
        prompt[position], response[position] = text.prompt, text.response
    return rows.frame.with_columns(
        pl.Series("prompt", prompt, dtype=pl.String), pl.Series("response", response, dtype=pl.String)
    )


def _changed_names(rows: Dataset, changed: Mapping[int, Row]) -> list[str]:
    """Return the columns in which any changed row differs from the file's."""
    at = list(changed)
    before = dict(zip(at, rows.rows(at), strict=True))
    return sorted({name for i, row in changed.items() for name in row if row[name] != before[i].get(name)})


def _changed_column(rows: Dataset, changed: Mapping[int, Row], name: str) -> pl.Series:
    column = rows.column(name)
    values = column.to_list()
    for at, row in changed.items():
        value = row.get(name)
        is_text = column.dtype == pl.String and not isinstance(value, str | None)
        values[at] = orjson.dumps(value).decode() if is_text else value
    return pl.Series(name, values, dtype=column.dtype)
