"""Arrow IPC files and streams, read batch by batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from thresher.dataset.formats.files import check_expansion
from thresher.dataset.formats.tables.arrow_messages import MAGIC, sum_declared
from thresher.dataset.formats.tables.parquet_file import BATCH_BYTES, BATCH_ROWS, ROW_BYTES
from thresher.dataset.formats.tables.row_sizes import measure_rows


class ArrowFile:
    """An Arrow IPC stream (as `datasets` writes) or file.

    It is read and not mapped: a mapped file that another process cuts ends this one (SIGBUS).
    """

    def __init__(self, path: Path) -> None:
        """Read it once, and check what it holds.

        Raises:
            InputError: it expands as no file of rows does.
            pa.ArrowInvalid: it is damaged.
        """
        self._path = path
        with open(path, "rb") as file:
            self.is_file = file.read(len(MAGIC)) == MAGIC  # random access; else a stream
        try:
            self._check(sum_declared(path))
        except ValueError as error:
            if not isinstance(error, pa.ArrowInvalid) and type(error) is ValueError:
                raise pa.ArrowInvalid(str(error)) from None
            raise
        n_bytes = n_rows = 0
        with self._open() as reader:
            self.schema: pa.Schema = reader.schema
            for batch in _iterate_batches(reader):
                _check_offsets(batch)
                n_rows += batch.num_rows
                self._check(n_rows * ROW_BYTES)
                n_bytes += max(batch.nbytes, int(measure_rows(pa.Table.from_batches([batch])).sum()))
                self._check(n_bytes)

    def _check(self, n_decoded: int) -> None:
        check_expansion(str(self._path), self._path.stat().st_size, n_decoded)

    def _open(self) -> Any:
        source = pa.OSFile(str(self._path))
        return pa.ipc.open_file(source) if self.is_file else pa.ipc.open_stream(source)

    def batches(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """Yield all rows in order."""
        with self._open() as reader:
            for batch in _iterate_batches(reader):
                table = pa.Table.from_batches([batch])
                table = table if columns is None else table.select(list(columns))
                for start in range(0, table.num_rows, BATCH_ROWS):
                    yield from _split(table.slice(start, BATCH_ROWS))


def _split(table: pa.Table) -> Iterator[pa.Table]:
    """Yield a table in parts that stay small where rows share their values."""
    if table.num_rows > 1 and int(measure_rows(table).sum()) > BATCH_BYTES:
        half = table.num_rows // 2
        yield from _split(table.slice(0, half))
        yield from _split(table.slice(half))
    else:
        yield table


def _iterate_batches(reader: Any) -> Iterator[pa.RecordBatch]:
    """Yield the batches of an Arrow stream or file."""
    if isinstance(reader, pa.ipc.RecordBatchFileReader):
        return (reader.get_batch(i) for i in range(reader.num_record_batches))
    return iter(reader)


def _check_offsets(batch: pa.RecordBatch) -> None:
    """Refuse values that point outside of their buffers, where Arrow would read any memory.

    Text that is not UTF-8 is left to the row that holds it; inside of lists and structs it damages
    the file.
    """
    for column in batch.columns:
        try:
            column.validate(full=True)
        except pa.ArrowInvalid:
            bare = {pa.string(): pa.binary(), pa.large_string(): pa.large_binary()}.get(column.type)
            if bare is None:
                raise
            column.view(bare).validate(full=True)
