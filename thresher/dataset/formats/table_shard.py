"""Rows of a table: Parquet and Arrow files, and frames in memory."""

from __future__ import annotations

import copy
import hashlib
import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import orjson
import pyarrow as pa
import pyarrow.parquet

from thresher.artifacts.json_text import encode_json
from thresher.dataset.conversation import drop_nulls
from thresher.dataset.formats.files import SourceFile
from thresher.dataset.formats.tables.arrow_file import ArrowFile
from thresher.dataset.formats.tables.parquet_file import BATCH_ROWS, ParquetFile
from thresher.dataset.formats.tables.row_sizes import measure_rows
from thresher.dataset.rejection import NOT_UTF8, PREVIEW_CHARACTERS, BadRow
from thresher.errors import InputError
from thresher.numeric.arrays import Int64

_HASH_BYTES = 4 << 20
_PLAIN = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}


class Batches(Protocol):
    """A table that is read in batches."""

    schema: pa.Schema

    def batches(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """Yield all rows in order, of all columns or of the named ones."""


class TableInMemory:
    """An Arrow table."""

    def __init__(self, table: pa.Table) -> None:
        self.schema: pa.Schema = table.schema
        self._table = table

    def batches(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """Yield all rows in order."""
        table = self._table if columns is None else self._table.select(list(columns))
        for start in range(0, table.num_rows, BATCH_ROWS):
            yield table.slice(start, BATCH_ROWS)


class TableBlock:
    """Some rows of a table.

    Args:
        table: the rows.
        positions: (n,) int64, of the rows in their file.
        max_row_bytes: longer rows cannot be read; None for any length.
    """

    def __init__(self, table: pa.Table, positions: Int64, max_row_bytes: int | None) -> None:
        self.positions = positions
        self.lines = positions + 1
        self._table = table
        self._max_row_bytes = max_row_bytes
        self._is_long = np.zeros(len(positions), np.bool_)
        if max_row_bytes is not None and table.num_columns:  # a file may lack them all
            self._is_long = measure_rows(table) > max_row_bytes

    def columns(self, types: Mapping[str, pa.DataType]) -> Iterator[tuple[Int64, pa.Table]]:
        """Yield the block by column, unless a text is not UTF-8; the types are the table's own."""
        table = self._table.select([name for name in types if name in self._table.column_names])
        at = np.flatnonzero(~self._is_long)
        table = table if len(at) == len(self._is_long) else _take(table, at)
        try:
            table.validate(full=True)
        except pa.ArrowInvalid:
            return
        yield at, table

    def row(self, index: int) -> dict[str, Any]:
        """Return one row; BadRow when it is too long, or a text in it is not UTF-8."""
        if self._is_long[index]:
            raise BadRow(f"the row is longer than {self._max_row_bytes} bytes")
        try:
            row: dict[str, Any] = self._table.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError:
            raise BadRow(NOT_UTF8) from None
        return row

    def preview(self, index: int) -> str:
        """Return the beginning of one row as JSON text."""
        row = {}
        for name in self._table.column_names:
            try:
                row[name] = self._table[name][index].as_py()
            except UnicodeDecodeError:
                row[name] = "not UTF-8"
        return encode_json(row, option=orjson.OPT_NON_STR_KEYS).decode()[:PREVIEW_CHARACTERS]

    def may_name(self, words: Collection[str]) -> bool:
        """Tell whether any row may have a column of these names, whatever their case."""
        return any(name.casefold() in words for name in self._table.column_names)


class TableShard:
    """The rows of one table.

    Args:
        table: where the rows come from.
        source: the file, or the name of what was given in memory.
        suffix: with which a copy is written, ".parquet", ".arrow" or ".feather".
        max_row_bytes: rows whose columns that are read have more are rejected; None for any length.

    Raises:
        InputError: two columns have one name.
    """

    is_typed = True
    has_fixed_columns = True
    late_positions: Sequence[int] = ()

    def __init__(self, table: Batches, source: SourceFile, *, suffix: str, max_row_bytes: int | None = None) -> None:
        check_names(table.schema.names, source.path)
        self.name = source.path
        self.suffix = suffix
        self.source = source
        self.column_names: Sequence[str] = list(table.schema.names)
        self.label_names = read_class_names(table.schema)
        self.advice = ""
        self.notes: Sequence[str] = ()
        self.as_text: frozenset[str] = frozenset()  # columns whose types cannot hold what changed
        self._changed: Mapping[int, dict[str, Any]] = {}
        self._table = table
        self._max_row_bytes = max_row_bytes
        self._is_arrow_file = isinstance(table, ArrowFile) and table.is_file

    @property
    def layout(self) -> object:
        """What one file can hold: an Arrow file has room for one dictionary per column."""
        text = str(self.schema)
        alone = self.name if self._is_arrow_file and "dictionary<" in text else None
        return (self.suffix, text, self._is_arrow_file, alone, tuple(sorted(self.label_names.items())))

    @property
    def schema(self) -> pa.Schema:
        """The Arrow schema of a copy, metadata included."""
        return _type_as_text(self._table.schema, self.as_text)

    def blocks(self, positions: Int64 | None = None, *, columns: Sequence[str] | None = None) -> Iterator[TableBlock]:
        """Yield all rows, or those at ascending positions; of all columns or of the named ones."""
        named = None if columns is None else [name for name in self.column_names if name in columns]
        for at, table in self._read_tables(positions, named):
            yield TableBlock(table, at, self._max_row_bytes)

    def _read_tables(self, positions: Int64 | None, columns: Sequence[str] | None) -> Iterator[tuple[Int64, pa.Table]]:
        first = 0
        with explain_errors(self.name):
            for table in self._table.batches(columns):
                stop = first + table.num_rows
                if positions is None:
                    at = np.arange(first, stop, dtype=np.int64)
                else:
                    low, high = np.searchsorted(positions, [first, stop])
                    at = positions[low:high]
                    table = _take(table, at - first) if len(at) < table.num_rows else table
                if len(at):
                    yield at, table
                first = stop
        self.source.check_unchanged()

    def rows(self, positions: Int64) -> list[dict[str, Any]]:
        """Return rows in the order of the positions, changed ones as they are now."""
        rows = self._read_table(positions).to_pylist() if len(positions) else []
        rows = [self._changed.get(at, row) for at, row in zip(positions.tolist(), rows, strict=True)]
        if not self.as_text:
            return rows
        # the members that only changed rows had are in all rows of such a column, as nulls
        return [row | {name: drop_nulls(row[name]) for name in self.as_text if name in row} for row in rows]

    def replace_rows(self, changed: Mapping[int, dict[str, Any]]) -> TableShard:
        """Return a shard with other contents at some positions; its file and blocks stay.

        A column whose type cannot hold what is put into it is written as JSON text.
        """
        at = np.array(sorted(changed), np.int64)
        before = self.rows(at)
        shard = copy.copy(self)
        shard._changed = {**self._changed, **changed}
        for field in self._table.schema:
            values = [changed[i].get(field.name) for i in at.tolist()]
            is_changed = values != [row.get(field.name) for row in before]
            if field.name not in self.as_text and is_changed and not _can_hold(field.type, values):
                shard.as_text |= {field.name}
        return shard

    def write_as_text(self, names: Collection[str]) -> TableShard:
        """Return a shard of which these columns are written as JSON text."""
        shard = copy.copy(self)
        shard.as_text = self.as_text.union(names)
        return shard

    def take_rows(self, positions: Int64) -> pa.Table:
        """Return rows as a table, in the order of the positions, with the values that changed."""
        table = self._read_table(positions)
        changed = {i: self._changed[at] for i, at in enumerate(positions.tolist()) if at in self._changed}
        names = dict.fromkeys(name for row in changed.values() for name in row)
        for number, field in enumerate(self._table.schema):
            if field.name not in names and field.name not in self.as_text:
                continue
            values = table[field.name].to_pylist()
            is_same = all(values[i] == row.get(field.name) for i, row in changed.items())
            if is_same and field.name not in self.as_text:
                continue
            for i, row in changed.items():
                values[i] = row.get(field.name)
            if field.name in self.as_text:
                values = [_encode_json(value) for value in values]
            field = self.schema.field(field.name)
            table = table.set_column(number, field, pa.array(values, type=field.type))
        return table.replace_schema_metadata(self.schema.metadata)

    def _read_table(self, positions: Int64) -> pa.Table:
        # each row is read once, in the order of the file, then put into that of the positions
        ascending, inverse = np.unique(positions, return_inverse=True)
        tables = [table for _, table in self._read_tables(ascending, None)]
        table = pa.concat_tables(tables) if tables else self._table.schema.empty_table()
        if len(ascending) == len(positions) and (inverse[1:] > inverse[:-1]).all():
            return table
        return _take(table, inverse)

    @contextmanager
    def open_copy(self, path: Path) -> Iterator[Callable[[TableShard, Int64], None]]:
        """Open a file of this layout and yield a function that appends rows of a shard."""
        with ExitStack() as stack:
            if self.suffix == ".parquet":
                writer: Any = stack.enter_context(pa.parquet.ParquetWriter(path, self.schema))
            else:
                open_writer = pa.ipc.new_file if self._is_arrow_file else pa.ipc.new_stream
                file = stack.enter_context(pa.OSFile(str(path), "wb"))
                writer = stack.enter_context(open_writer(file, self.schema))
            yield partial(_append_rows, writer)


def _append_rows(writer: Any, shard: TableShard, positions: Int64) -> None:
    table = shard.take_rows(positions)
    if table.num_rows:
        writer.write_table(table)


def _can_hold(kind: pa.DataType, values: list[Any]) -> bool:
    """Tell whether values come back from a column as they are; structs drop members they lack."""
    try:
        found = drop_nulls(pa.array(values, type=kind).to_pylist())
    except (pa.ArrowException, OverflowError, TypeError, ValueError):
        return False
    expected = drop_nulls(values)
    return bool(found == expected) or repr(found) == repr(expected)  # NaN is not equal to itself


def _encode_json(value: Any) -> str | None:
    """Return a value as JSON text, without the nulls that a table adds to structs; NaN is null."""
    if value is None or isinstance(value, str):
        return value
    return encode_json(drop_nulls(value), option=orjson.OPT_NON_STR_KEYS).decode()


def _type_as_text(schema: pa.Schema, names: Collection[str]) -> pa.Schema:
    """Return a schema in which some columns are text, also for `datasets`."""
    for name in names:
        schema = schema.set(schema.get_field_index(name), pa.field(name, pa.large_string()))
    metadata = schema.metadata or {}
    if not names or b"huggingface" not in metadata:
        return schema
    try:
        own = orjson.loads(metadata[b"huggingface"])
        own["info"]["features"] |= {name: {"dtype": "large_string", "_type": "Value"} for name in names}
    except (orjson.JSONDecodeError, KeyError, TypeError):
        return schema.with_metadata({key: value for key, value in metadata.items() if key != b"huggingface"})
    return schema.with_metadata({**metadata, b"huggingface": orjson.dumps(own)})


def _take(table: pa.Table, at: Int64) -> pa.Table:
    """Return rows of a table; views, which Arrow cannot take, are cast there and back."""
    plain = pa.schema([field.with_type(_PLAIN.get(field.type, field.type)) for field in table.schema])
    if plain.equals(table.schema):
        return table.take(pa.array(at))
    return table.cast(plain).take(pa.array(at)).cast(table.schema)


def check_names(names: Sequence[str], where: str) -> None:
    """Refuse a table in which two columns have one name.

    Raises:
        InputError: a name occurs twice.
    """
    repeated = [name for i, name in enumerate(names) if name in names[:i]]
    if repeated:
        raise InputError(f"{where}: the columns of a table must differ, found '{repeated[0]}' twice; rename one")


def open_table(path: Path, suffix: str, *, max_row_bytes: int | None = None) -> TableShard:
    """Open a Parquet or Arrow file.

    Args:
        path: of the file.
        suffix: of its name.
        max_row_bytes: longer rows are rejected; None for any length.

    Raises:
        InputError: the file cannot be read or is damaged.
    """
    with explain_errors(str(path)):
        source = _hash_file(path)
        table: Batches = ParquetFile(path) if suffix == ".parquet" else ArrowFile(path)
    return TableShard(table, source, suffix=suffix, max_row_bytes=max_row_bytes)


def wrap_table(table: pa.Table, name: str, *, max_row_bytes: int | None = None) -> TableShard:
    """Return the rows of a table in memory.

    Args:
        table: the rows.
        name: that stands for it, for example "<polars>".
        max_row_bytes: longer rows are rejected; None for any length.
    """
    sink = _HashSink()
    with pa.PythonFile(sink, mode="w") as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    source = SourceFile(path=name, bytes=table.nbytes, sha256=sink.digest.hexdigest())
    return TableShard(TableInMemory(table), source, suffix=".parquet", max_row_bytes=max_row_bytes)


class _HashSink(io.RawIOBase):
    """A binary stream that only hashes what is written to it."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        self.digest.update(data)
        return memoryview(data).nbytes


def _hash_file(path: Path) -> SourceFile:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        before = os.fstat(file.fileno())
        for chunk in iter(lambda: file.read(_HASH_BYTES), b""):
            digest.update(chunk)
    return SourceFile(path=str(path), bytes=before.st_size, sha256=digest.hexdigest(), mtime_ns=before.st_mtime_ns)


@contextmanager
def explain_errors(name: str) -> Iterator[None]:
    """Turn what the operating system and Arrow raise into one sentence."""
    try:
        yield
    except (pa.ArrowException, UnicodeDecodeError) as error:  # or in the name of a column
        first_line = str(error).split("\n")[0].rstrip(".")
        raise InputError(f"{name}: a whole Parquet or Arrow file is required, found '{first_line}'") from None
    except OSError as error:
        what = error.strerror or str(error).split("\n")[0]
        raise InputError(f"{name}: the file must be readable, got '{what}'; check the path and the file") from None


def read_class_names(schema: pa.Schema) -> dict[str, tuple[str, ...]]:
    """Return the names of the classes of each column that `datasets` stored as ClassLabel."""
    metadata = (schema.metadata or {}).get(b"huggingface")
    if metadata is None:
        return {}
    try:
        features = orjson.loads(metadata)["info"]["features"]
        return {
            name: tuple(feature["names"])
            for name, feature in features.items()
            if isinstance(feature, dict) and feature.get("_type") == "ClassLabel"
        }
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return {}  # metadata that `datasets` did not write: labels keep their numbers
