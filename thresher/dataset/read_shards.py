"""Reading shards into canonical columns: by column where rows are plain, else singly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from thresher.dataset.canonical import CANONICAL_SCHEMA, canonicalize_columns, canonicalize_row
from thresher.dataset.formats.shard import Block, Shard
from thresher.dataset.rejection import BadRow, RejectedRows
from thresher.dataset.row_id import hash_contents, number_repeats
from thresher.dataset.schema import Schema
from thresher.dataset.values.class_names import use_own_names
from thresher.dataset.values.watched import ColumnValues, ColumnWatch
from thresher.numeric.arrays import Int32, Int64

FILE_TYPE = pl.Categorical()
FRAME_SCHEMA: dict[str, Any] = {
    **dict.fromkeys(("row_id", "prompt", "response"), pl.String),
    **{"file": FILE_TYPE, "line": pl.UInt64},
}
DUPLICATED_ID = "the id in column '{}' was used by an earlier row"


@dataclass(frozen=True, kw_only=True)
class ReadRows:
    """All rows of some shards.

    Attributes:
        frame: the usable rows, see `Dataset.frame`.
        shard: (n,) int32, which shard each usable row is from.
        position: (n,) int64, its position in the shard.
        rejected: the other rows.
        n_read: number of rows, usable or not.
        empty: names of the files without rows, where others have some.
        unread: of each shard, the values of columns that are watched and not read.
    """

    frame: pl.DataFrame
    shard: Int32
    position: Int64
    rejected: RejectedRows
    n_read: int
    empty: Sequence[str] = ()
    unread: Sequence[Mapping[str, ColumnValues]] = ()


def read_rows(shards: Sequence[Shard], schema: Schema, *, by_column: bool = True) -> ReadRows:
    """Read every row of the shards.

    Args:
        shards: files of rows, in order.
        schema: how the user's columns become prompt and response.
        by_column: read plain rows by column; the result without is the same, but slower.
    """
    rejected = RejectedRows()
    frames: list[pl.DataFrame] = []
    places: list[Int64] = []
    n_read = 0
    empty, unread = [], []
    for number, shard in enumerate(shards):
        own, watch = use_own_names(schema, shard), ColumnWatch(shard, schema)
        n_before = n_read
        for block in shard.blocks(columns=[*schema.column_names, *watch.fixed_columns]):
            n_read += len(block.positions)
            frame = _read_block(block, own, shard, rejected, watch, by_column=by_column)
            index = frame["index"].to_numpy()
            if schema.id_column is None:
                ids = hash_contents(schema.kind, frame["prompt"], frame["response"], frame["extra"])
                frame = frame.with_columns(ids)
            frames.append(
                frame.select(
                    "row_id",
                    "prompt",
                    "response",
                    pl.lit(shard.name, FILE_TYPE).alias("file"),
                    pl.Series("line", block.lines[index], dtype=pl.UInt64),
                )
            )
            places.append(np.stack([np.full(len(index), number), block.positions[index]]))
        if n_read == n_before:
            empty.append(shard.name)
        unread.append(watch.columns)
    frame = pl.concat([pl.DataFrame(schema=FRAME_SCHEMA), *frames], rechunk=True)
    place = np.concatenate([np.empty((2, 0), np.int64), *places], axis=1)
    if schema.id_column is None:
        frame = frame.with_columns(number_repeats(frame["row_id"]))
    else:
        is_first = frame["row_id"].is_first_distinct()
        repeated = np.flatnonzero(~is_first.to_numpy())
        reject_repeated(shards, schema.id_column, place[:, repeated], frame["line"].to_numpy()[repeated], rejected)
        frame = frame.filter(is_first)
        place = place[:, is_first.to_numpy()]
    return ReadRows(
        frame=frame,
        shard=place[0].astype(np.int32),
        position=place[1],
        rejected=rejected,
        n_read=n_read,
        empty=empty if n_read else (),
        unread=unread,
    )


def reject_repeated(
    shards: Sequence[Shard], id_column: str, place: Int64, line: NDArray[np.uint64], rejected: RejectedRows
) -> None:
    """Reject rows whose id an earlier row has.

    Args:
        shards: files of rows.
        id_column: of the user.
        place: (2, m) shard and position of each such row.
        line: (m,) where they are in the user's file.
        rejected: grows.
    """
    for number in np.unique(place[0]).tolist():
        shard, mine = shards[number], place[0] == number
        lines = iter(line[mine].tolist())
        for block in shard.blocks(place[1][mine]):
            for index in range(len(block.positions)):
                rejected.add(shard.name, next(lines), DUPLICATED_ID.format(id_column), block.preview(index))


def _read_block(
    block: Block, schema: Schema, shard: Shard, rejected: RejectedRows, watch: ColumnWatch, *, by_column: bool
) -> pl.DataFrame:
    """Return the usable rows of a block with the columns of `CANONICAL_SCHEMA`, in order."""
    is_open = np.ones(len(block.positions), np.bool_)
    parts: list[pl.DataFrame] = []
    if by_column and not schema.is_chat and schema.wanted is None:
        types = choose_column_types(schema) | dict.fromkeys(watch.fixed_columns, pa.string())
        for at, table in block.columns(types):
            part = canonicalize_columns(table, schema)
            used = part["index"].to_numpy()
            watch.add_part(block, table, at, used)
            index = at[used]
            is_open[index] = False
            parts.append(part.with_columns(pl.Series("index", index, dtype=pl.Int64)))
    single = []
    for index in np.flatnonzero(is_open).tolist():
        try:
            row = block.row(index)
            text = canonicalize_row(row, schema, is_typed=shard.is_typed)
        except BadRow as reason:
            rejected.add(shard.name, int(block.lines[index]), str(reason), block.preview(index))
        else:
            watch.add_row(row)
            single.append((index, text.prompt, text.response, text.extra, text.row_id))
    if single or not parts:
        parts.append(pl.DataFrame(single, schema=CANONICAL_SCHEMA, orient="row"))
    return pl.concat(parts).sort("index") if len(parts) > 1 else parts[0]


def choose_column_types(schema: Schema) -> dict[str, pa.DataType]:
    """Return the Arrow type in which each column of the schema is parsed from text."""
    types = {name: pa.int64() if name in schema.integer_columns else pa.string() for name in schema.column_names}
    for name in schema.columns.get("history", ()):
        types[name] = pa.list_(pa.list_(pa.string()))
    return types
