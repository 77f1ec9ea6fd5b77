"""A column of pyarrow as a series of polars."""

from __future__ import annotations

import polars as pl
import pyarrow as pa


class _Stream:
    """A column that polars takes by its C stream, as it would that of any library."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self._column.__arrow_c_stream__(requested_schema)


def to_series(column: pa.ChunkedArray, name: str = "") -> pl.Series:
    """Return a column as a series.

    `pl.from_arrow` imports `pyarrow.compute`, which takes longer than reading a thousand rows.
    """
    return pl.Series(name, _Stream(column))
