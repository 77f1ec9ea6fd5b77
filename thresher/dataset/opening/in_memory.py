"""Rows that are in memory already: frames, tables and dicts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from thresher.dataset.formats.shard import Shard
from thresher.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

_NOT_ARROW = (pl.Object, pl.Int128, pl.UInt128)


def open_in_memory(source: Any, module: str, max_row_bytes: int) -> Shard:
    """Open a frame, a table or dicts; `module` is the package that its type comes from."""
    if isinstance(source, pl.DataFrame | pl.LazyFrame):
        return _open_polars(source.lazy().collect(), max_row_bytes)
    if type(source).__name__ == "Series":
        raise InputError(
            f"load: rows are required, got a Series of {module}, which is one column; give the frame, or "
            "series.to_frame('text')"
        )
    if callable(source):
        raise InputError(f"load: rows are required, got the function {source.__name__!r}; call it: load(rows())")
    if isinstance(source, Mapping):
        raise InputError(
            "load: rows are required, got a dict; give a list of dicts, one per row, or polars.DataFrame(dict) for a "
            "dict of columns"
        )
    if module == "pandas":
        return _open_pandas(source, max_row_bytes)
    if module == "pyarrow":
        return _open_arrow(source, max_row_bytes)
    if isinstance(source, Sequence | Iterator) and not isinstance(source, bytes):
        return _open_list(source, "<list>", max_row_bytes)
    raise InputError(
        "load: a path, a frame, a Table, a datasets.Dataset or dicts, one per row, are required, got "
        f"{type(source).__name__}; convert it to one of them"
    )


def _open_polars(frame: pl.DataFrame, max_row_bytes: int) -> Shard:
    from thresher.dataset.formats.table_shard import wrap_table

    for name, kind in frame.schema.items():
        if kind in _NOT_ARROW:  # polars would hand over addresses in place of objects
            raise InputError(
                f"<polars>: columns must hold values that Arrow has, '{name}' holds {kind}; cast it, or leave it out "
                f"with frame.drop('{name}')"
            )
    table = frame.to_arrow(compat_level=pl.CompatLevel.oldest())
    return wrap_table(table, "<polars>", max_row_bytes=max_row_bytes)


def _open_arrow(table: Any, max_row_bytes: int) -> Shard:
    import pyarrow as pa

    from thresher.dataset.formats.table_shard import wrap_table

    if isinstance(table, pa.RecordBatch):
        table = pa.Table.from_batches([table])
    if not isinstance(table, pa.Table):
        raise InputError(f"load: of pyarrow a Table or a RecordBatch is required, got {type(table).__name__}")
    return wrap_table(table, "<arrow>", max_row_bytes=max_row_bytes)


def _open_pandas(frame: pd.DataFrame, max_row_bytes: int) -> Shard:
    """Return the rows of a pandas frame; one whose columns mix types is read as dicts."""
    import pyarrow as pa

    from thresher.dataset.formats.table_shard import wrap_table

    if not frame.columns.is_unique:
        repeated = frame.columns[frame.columns.duplicated()][0]
        raise InputError(f"<pandas>: the columns of a frame must differ, found '{repeated}' twice; rename one")
    try:
        table = pa.Table.from_pandas(frame, preserve_index=False)
    except (pa.ArrowInvalid, pa.ArrowTypeError):
        return _open_list(frame.to_dict(orient="records"), "<pandas>", max_row_bytes)
    return wrap_table(table, "<pandas>", max_row_bytes=max_row_bytes)


def _open_list(rows: Iterable[Any], name: str, max_row_bytes: int) -> Shard:
    """Write rows to a temporary file as JSON lines, so that they are read like a file's."""
    from thresher.dataset.formats.text_files import open_text

    with tempfile.TemporaryFile() as spool:
        for number, row in enumerate(rows):
            try:
                spool.write(json.dumps(row).encode() + b"\n")
            except (TypeError, ValueError) as error:
                raise InputError(
                    f"{name}: rows must hold what JSON can, row {number} does not ({error}); convert it"
                ) from None
        spool.seek(0)
        return open_text(None, ".jsonl", "", max_row_bytes=max_row_bytes, stream=spool, name=name)
