"""The rows of a snapshot as one table: the user's columns, of whatever types, and a few of ours."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
import pyarrow as pa
from numpy.typing import NDArray

from thresher.dataset import Dataset
from thresher.dataset.conversation import drop_nulls

OWN = ("thresher_row_id", "thresher_weight", "thresher_source", "thresher_file", "thresher_since")
ROW_ID, WEIGHT, SOURCE, FILE, SINCE = OWN
REST = "other_columns"  # JSON text: what does not fit MAX_COLUMNS
MAX_COLUMNS = 500  # a row with keys of its own must not make a table with a million columns
BLOCK_ROWS = 16_384
_JSON = {b"thresher": b"json"}  # metadata of a column whose values are JSON text


def build_own_columns(row_id: pl.Series, source: pl.Series, file: pl.Series, since: NDArray[np.int64]) -> pa.Table:
    """Return our columns of n rows, each of which stands for itself alone; `since` are versions."""
    n = len(row_id)
    return pa.table(
        {
            ROW_ID: pa.array(row_id.to_list(), pa.string()),
            WEIGHT: pa.array(np.ones(n, np.int64)),
            SOURCE: pa.array(source.to_list(), pa.string()),
            FILE: pa.array(file.to_list(), pa.string()),
            SINCE: pa.array(since),
        }
    )


def build_empty_table(schema_columns: Sequence[str]) -> pa.Table:
    """Return the table of a snapshot from which the rules let no row in."""
    nothing = pl.Series([], dtype=pl.String)
    own = build_own_columns(nothing, nothing, nothing, np.zeros(0, np.int64))
    names = [name for name in schema_columns if name not in OWN]
    columns = {name: pa.array([], pa.string()) for name in names} | {name: own[name] for name in OWN}
    return pa.table(columns)


def build_table(rows: Dataset, own: pa.Table) -> pa.Table:
    """Return the rows' own columns followed by ours."""
    n = len(rows)
    spans = [(low, min(low + BLOCK_ROWS, n)) for low in range(0, n, BLOCK_ROWS)]
    blocks = [_build_block(_name_labels(rows, low, high), rows) for low, high in spans]
    table = stack_tables(blocks, rows.schema.column_names)
    for name in OWN:
        table = table.append_column(own.schema.field(name), own[name])
    return table


def _name_labels(rows: Dataset, low: int, high: int) -> list[dict[str, Any]]:
    """Return some rows, with their labels as the texts that they were read as.

    True, "true" and 1.0, 1 are one class each; whole numbers alone stay what they are.
    """
    block = rows.rows(np.arange(low, high))
    if rows.kind != "classification":
        return block
    name = rows.schema.columns["label"][0]
    if all(type(row.get(name)) is int for row in block):
        return block
    return [row | {name: label} for row, label in zip(block, rows.frame["response"][low:high], strict=True)]


def _build_block(rows: Sequence[dict[str, Any]], dataset: Dataset) -> pa.Table:
    names = dict.fromkeys(name for row in rows for name in row if name not in OWN)
    ordered = [name for name in dataset.schema.column_names if name in names]
    ordered += [name for name in names if name not in ordered and name != REST]
    rest = set(ordered[MAX_COLUMNS:])
    columns, fields = [], []
    for name in ordered[:MAX_COLUMNS]:
        column, field = _build_column(name, [row.get(name) for row in rows])
        columns.append(column)
        fields.append(field)
    if rest or REST in names:
        texts = [_to_json({key: row[key] for key in row if key in rest} | _read_rest(row)) for row in rows]
        columns.append(pa.array(texts, pa.string()))
        fields.append(pa.field(REST, pa.string()))
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _read_rest(row: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier snapshot, read as a source, had put aside."""
    try:
        rest = json.loads(row[REST])
    except (KeyError, TypeError, ValueError):
        return {} if row.get(REST) is None else {REST: row[REST]}
    return rest if isinstance(rest, dict) else {REST: rest}


def _build_column(name: str, values: list[Any]) -> tuple[pa.Array, pa.Field]:
    """Return values in the type that fits all of them, or as JSON text where none does."""
    try:
        array = pa.array(values)
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return _to_json_column(name, values)
    if _has_empty_struct(array.type) or _changes_arguments(values):  # Parquet cannot hold it
        return _to_json_column(name, values)
    return array, pa.field(name, array.type)


def _changes_arguments(values: Sequence[Any]) -> bool:
    """Tell whether arguments of calls would not come back from a column of one type as they are.

    A reader takes nulls for members that a row lacks, and whole numbers become fractions.
    """
    found = [each for value in values for each in _find_arguments(value)]
    if not found:
        return False
    try:
        again = drop_nulls(pa.array(found).to_pylist())
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return True
    return json.dumps(again, sort_keys=True, default=str) != json.dumps(found, sort_keys=True, default=str)


def _find_arguments(value: Any) -> Iterator[Any]:
    """Yield the arguments of the calls in a list of messages, where they are objects."""
    for turn in value if isinstance(value, list) else ():
        calls = [turn.get("function_call"), *_to_list(turn.get("tool_calls"))] if isinstance(turn, dict) else []
        for call in (each for each in calls if isinstance(each, dict)):
            function = call.get("function")
            for each in (call, function if isinstance(function, dict) else {}):
                if isinstance(each.get("arguments"), dict | list):
                    yield each["arguments"]


def _to_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _to_json_column(name: str, values: Iterable[Any]) -> tuple[pa.Array, pa.Field]:
    texts = [None if value is None else _to_json(value) for value in values]
    return pa.array(texts, pa.string()), pa.field(name, pa.string(), metadata=_JSON)


def _to_json(value: Any) -> str:
    try:
        text = json.dumps(value, ensure_ascii=False, default=str)
        text.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(value, default=str)
    return text


def _has_empty_struct(kind: pa.DataType) -> bool:
    if pa.types.is_struct(kind):
        return kind.num_fields == 0 or any(_has_empty_struct(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _has_empty_struct(kind.value_type)
    return False


def stack_tables(tables: Sequence[pa.Table], schema_columns: Sequence[str]) -> pa.Table:
    """Return tables one below the other; a column whose types do not fit becomes text.

    Args:
        tables: each with its columns.
        schema_columns: columns that the schema reads: values become plain text, not JSON text,
            which would be read as another value. Lists of messages become JSON text, which is read
            as what it stands for.
    """
    tables = [table for table in tables if table.num_columns]
    if not tables:
        return pa.table({})
    names = list(dict.fromkeys(name for table in tables for name in table.column_names if name not in OWN))
    names += [name for name in OWN if any(name in table.column_names for table in tables)]
    columns, fields = [], []
    for name in names:
        parts = [_find_part(table, name) for table in tables]
        column, field = _unify_types(name, parts, is_plain=name in schema_columns)
        columns.append(column)
        fields.append(field)
    return pa.Table.from_arrays(columns, schema=pa.schema(fields))


def _find_part(table: pa.Table, name: str) -> tuple[pa.ChunkedArray, pa.Field]:
    if name in table.column_names:
        return table[name], table.schema.field(name)
    return pa.chunked_array([pa.nulls(table.num_rows)]), pa.field(name, pa.null())


def _unify_types(
    name: str, parts: Sequence[tuple[pa.ChunkedArray, pa.Field]], *, is_plain: bool
) -> tuple[pa.ChunkedArray, pa.Field]:
    used = [field for _, field in parts if not pa.types.is_null(field.type)]
    if any(field.metadata == _JSON for field in used) and not all(field.metadata == _JSON for field in used):
        return _to_text_column(name, parts, is_plain=is_plain)
    try:
        merged = pa.unify_schemas(
            [pa.schema([pa.field(name, field.type)]) for _, field in parts], promote_options="permissive"
        ).field(0)
        tables = [pa.Table.from_arrays([column], names=[name]) for column, _ in parts]
        column = pa.concat_tables(tables, promote_options="permissive")[name]
    except (pa.ArrowException, TypeError, ValueError):
        return _to_text_column(name, parts, is_plain=is_plain)
    return column, pa.field(name, merged.type, metadata=used[0].metadata if used else None)


def _to_text_column(
    name: str, parts: Sequence[tuple[pa.ChunkedArray, pa.Field]], *, is_plain: bool
) -> tuple[pa.ChunkedArray, pa.Field]:
    texts: list[str | None] = []
    for column, field in parts:
        is_text = field.metadata == _JSON or (is_plain and pa.types.is_string(field.type))
        for value in column.to_pylist():
            if value is None or is_text:
                texts.append(value)
            else:
                is_scalar = is_plain and not isinstance(value, dict | list)
                texts.append(str(value) if is_scalar else _to_json(drop_nulls(value)))
    metadata = None if is_plain else _JSON
    return pa.chunked_array([pa.array(texts, pa.string())]), pa.field(name, pa.string(), metadata=metadata)
