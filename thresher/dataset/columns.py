"""Reading one of the user's columns, aligned with the rows of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa

from thresher.artifacts.json_text import encode_json
from thresher.dataset.formats.shard import Block, Shard
from thresher.dataset.values.class_names import decode_rows
from thresher.dataset.values.series import to_series
from thresher.numeric.arrays import Int32, Int64

_EXACT = 2**53  # whole numbers up to here are floats without loss
_TYPES: dict[type, tuple[Any, pa.DataType]] = {
    str: (pl.String, pa.string()),
    int: (pl.Int64, pa.int64()),
    float: (pl.Float64, pa.float64()),
    bool: (pl.Boolean, pa.bool_()),
}


def read_column(
    shards: Sequence[Shard], shard: Int32, position: Int64, name: str, decoded: frozenset[str] = frozenset()
) -> pl.Series | None:
    """Return a column of the user for some rows, in their order: (n,); None when no row has it.

    Args:
        shards: the user's files.
        shard: (n,) which file each row is in.
        position: (n,) where it is there.
        name: of the column.
        decoded: columns in which names of classes stand for their numbers.
    """
    parts: list[pl.Series] = []
    places: list[Int64] = []
    is_known = False
    for number, one in enumerate(shards):
        mine = np.flatnonzero(shard == number)
        if len(mine) == 0:
            continue
        mine = mine[np.argsort(position[mine], kind="stable")]
        places.append(mine)
        ascending, inverse = np.unique(position[mine], return_inverse=True)
        blocks = [_read_block(block, name) for block in one.blocks(ascending, columns=[name])]
        is_known |= any(known for _, known in blocks)
        part = _concat([values for values, _ in blocks]).gather(inverse)
        if name in decoded and name in one.label_names:
            rows = decode_rows([{name: value} for value in part.to_list()], one.label_names, decoded)
            part = _build_series([row[name] for row in rows])
        parts.append(part)
    if not is_known:
        return None
    # places[i]: where in the answer part i belongs
    order = np.argsort(np.concatenate(places), kind="stable")
    return _concat(parts).gather(order).alias(name)


def _read_block(block: Block, name: str) -> tuple[pl.Series, bool]:
    """Return the column of one block, and whether any of its rows has it."""
    n = len(block.positions)
    first = next((block.row(i)[name] for i in range(n) if block.row(i).get(name) is not None), None)
    if type(first) in _TYPES:
        kind, arrow_type = _TYPES[type(first)]
        for at, table in block.columns({name: arrow_type}):
            if len(at) == n and name in table.column_names:
                series = to_series(table[name], name)
                if series.dtype in (pl.Categorical, pl.Enum):
                    series = series.cast(pl.String)
                if not series.dtype.is_nested():
                    return series, True
    rows = [block.row(i) for i in range(n)]
    return _build_series([row.get(name) for row in rows]), any(name in row for row in rows)


def _build_series(values: list[Any]) -> pl.Series:
    kinds = {type(value) for value in values if value is not None}
    if not kinds:
        return pl.Series("", values, dtype=pl.Null)
    if kinds == {int, float} and all(abs(value) <= _EXACT for value in values if type(value) is int):
        return pl.Series("", values, dtype=pl.Float64, strict=False)
    if len(kinds) == 1 and (kind := kinds.pop()) in _TYPES:
        try:
            return pl.Series("", values, dtype=_TYPES[kind][0])
        except (OverflowError, TypeError):  # a whole number beyond 64 bits
            pass
    return pl.Series("", [to_json_text(value) for value in values], dtype=pl.String)


def to_json_text(value: Any) -> str | None:
    """Return a value as JSON text; texts and nulls stay."""
    if value is None or isinstance(value, str):
        return value
    return encode_json(value, option=orjson.OPT_NON_STR_KEYS).decode()


def _concat(parts: list[pl.Series]) -> pl.Series:
    """Return the parts as one; parts of different types become text."""
    kinds = {part.dtype for part in parts if part.dtype != pl.Null}
    if len(kinds) > 1:
        parts = [part if part.dtype == pl.Null else _series_as_text(part) for part in parts]
    kind = next((part.dtype for part in parts if part.dtype != pl.Null), pl.Null())
    return pl.concat([part.cast(kind).alias("") for part in parts])


def _series_as_text(part: pl.Series) -> pl.Series:
    return (
        part if part.dtype == pl.String else pl.Series("", [to_json_text(v) for v in part.to_list()], dtype=pl.String)
    )
