"""Parquet files, read by row group in batches whose decoded rows fit memory."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple
from urllib.parse import unquote

import numpy as np
import pyarrow as pa
import pyarrow.parquet

from thresher.dataset.formats.files import allow_expansion, check_expansion
from thresher.dataset.formats.tables.parquet_pages import (
    DELTA_BYTE_ARRAY,
    DICTIONARY,
    DICTIONARY_ENCODINGS,
    Page,
    find_longest,
    scan_pages,
)
from thresher.dataset.formats.tables.row_sizes import measure_rows
from thresher.errors import InputError
from thresher.numeric.arrays import Int64

BATCH_ROWS = 16_384
ROW_BYTES = 16  # that a row takes in memory, even if all are equal
BATCH_BYTES = 256 << 20  # that a batch may decode to before it is read in smaller ones
MAX_DECODED_ROW = 1 << 30  # a row that is longer is not even decoded to be rejected
HIVE_NULL = "__HIVE_DEFAULT_PARTITION__"
_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}


@dataclass
class _Group:
    """What a row group may decode to.

    Attributes:
        n_rows: as the footer says.
        n_certain: bytes that its pages have, and its numbers.
        n_shared: bytes at most of texts that share the bytes of others.
        n_shared_row: the same, of one row.
        n_prefixed_row: the part of it whose texts begin like the ones before them.
        prefixed: columns with the latter.
        is_bounded: no column with such texts repeats within a row and is large.
        shared: columns with such texts.
        batch_rows: rows to decode at once.
    """

    n_rows: int
    n_certain: int = 0
    n_shared: int = 0
    n_shared_row: int = 0
    n_prefixed_row: int = 0
    is_bounded: bool = True
    shared: tuple[str, ...] = ()
    prefixed: tuple[str, ...] = ()
    batch_rows: int = BATCH_ROWS

    def fit_batches(self, sizes: Int64, *, where: str) -> None:
        """Halve the rows of a batch until none decodes to more than it may.

        Args:
            sizes: (n,) bytes of each row.
            where: name of the file, for messages.

        Raises:
            InputError: a row alone is too large to be read at all.
        """
        longest = int(sizes.max(initial=0))
        if longest > MAX_DECODED_ROW:
            raise InputError(
                f"{where}: a row must have at most {MAX_DECODED_ROW} bytes to be read at all, found one of {longest}; "
                f"leave it out"
            )
        sums = np.concatenate([[0], np.cumsum(sizes)])
        while self.batch_rows > 1:
            edges = sums[np.append(np.arange(0, len(sizes), self.batch_rows), len(sizes))]
            if np.diff(edges).max(initial=0) <= BATCH_BYTES:
                break
            self.batch_rows //= 2


class ParquetFile:
    """A Parquet file; the values of a Hive partition are columns of it."""

    def __init__(self, path: Path) -> None:
        """Read its footer and the headers of its pages.

        Raises:
            InputError: it expands as no file of rows does, or a page header is damaged.
        """
        self._path = path
        with pa.parquet.ParquetFile(path) as file, open(path, "rb") as raw:
            schema: pa.Schema = file.schema_arrow
            self._partition = _parse_partition(path, schema.names)
            for name in self._partition:
                schema = schema.append(pa.field(name, pa.string()))
            self.schema = schema
            metadata = file.metadata
            n_rows = sum(metadata.row_group(i).num_rows for i in range(metadata.num_row_groups))
            self._check(max(metadata.num_rows, n_rows) * ROW_BYTES)
            flat = {file.schema.column(i).path for i in range(len(file.schema)) if not _is_repeated(file.schema, i)}
            self._groups = [
                _measure_group(raw, metadata.row_group(i), flat, str(path)) for i in range(metadata.num_row_groups)
            ]
        n_certain = sum(group.n_certain for group in self._groups)
        self._check(n_certain)
        n_shared = sum(group.n_shared for group in self._groups)
        must_measure = n_certain + n_shared > allow_expansion(path.stat().st_size)
        for number, group in enumerate(self._groups):
            if group.n_shared and (must_measure or not group.is_bounded):
                sizes = self._measure_shared(number, group)
                n_certain += int(sizes.sum())
                self._check(n_certain)
                group.fit_batches(sizes, where=str(path))
            elif group.n_shared > BATCH_BYTES:
                group.batch_rows = max(1, min(BATCH_ROWS, BATCH_BYTES // group.n_shared_row))

    def _check(self, n_decoded: int) -> None:
        check_expansion(str(self._path), self._path.stat().st_size, n_decoded)

    def _measure_shared(self, number: int, group: _Group) -> Int64:
        """Return the bytes of the texts of each row that share theirs with others, (n,) int64.

        They are read as indices into a dictionary, which has each of them once; those that begin
        like the ones before them a few at a time.

        Raises:
            InputError: such texts repeat within a row, so that nothing bounds a row.
        """
        if group.n_prefixed_row and not group.is_bounded:
            raise InputError(
                f"{self._path}: lists of texts must not be in the encoding DELTA_BYTE_ARRAY, which does not tell how "
                f"long a row is, found {', '.join(group.prefixed)}; write the file in another"
            )
        indexed = [name for name in group.shared if name not in group.prefixed]
        with pa.parquet.ParquetFile(self._path, read_dictionary=indexed) as file:
            rows = max(1, min(BATCH_ROWS, BATCH_BYTES // max(1, group.n_prefixed_row)))
            batches = file.iter_batches(batch_size=rows, row_groups=[number], columns=list(group.shared))
            sizes = [measure_rows(pa.Table.from_batches([batch])) for batch in batches]
        return np.concatenate([np.zeros(0, np.int64), *sizes])

    def batches(self, columns: Sequence[str] | None) -> Iterator[pa.Table]:
        """Yield all rows in order."""
        with pa.parquet.ParquetFile(self._path) as file:
            names = None if columns is None else [name for name in columns if name not in self._partition]
            for first, last, batch_rows in self._join_groups():
                groups = list(range(first, last))
                for batch in file.iter_batches(batch_size=batch_rows, row_groups=groups, columns=names):
                    table = pa.Table.from_batches([batch])
                    for name, value in self._partition.items():
                        if columns is None or name in columns:
                            table = table.append_column(name, pa.repeat(pa.scalar(value, pa.string()), batch.num_rows))
                    yield table

    def _join_groups(self) -> Iterator[tuple[int, int, int]]:
        """Yield (first, last, rows of a batch) of runs of row groups that are read alike."""
        first = 0
        for number, group in enumerate(self._groups):
            is_last = number + 1 == len(self._groups)
            if is_last or self._groups[number + 1].batch_rows != group.batch_rows:
                yield first, number + 1, group.batch_rows
                first = number + 1


def _is_repeated(schema: Any, i: int) -> bool:
    return bool(schema.column(i).max_repetition_level > 0)


def _measure_group(raw: BinaryIO, metadata: Any, flat: set[str], where: str) -> _Group:
    """Return what a row group may decode to, from the headers of its pages."""
    group = _Group(metadata.num_rows)
    shared: list[str] = []
    prefixed: list[str] = []
    for i in range(metadata.num_columns):
        column = metadata.column(i)
        pages = list(scan_pages(raw, column, where))
        n_values = sum(page.n_values for page in pages if page.kind != DICTIONARY)
        width = _WIDTHS.get(column.physical_type, 0)
        group.n_certain += max(sum(page.n_plain for page in pages), n_values * width)
        bound = _SharedBound() if width else _bound_shared(raw, pages, column.compression)
        if bound.n_bytes:
            shared.append(column.path_in_schema)
            group.n_shared += bound.n_bytes
            group.n_shared_row += bound.longest
            if bound.is_prefixed:
                prefixed.append(column.path_in_schema)
                group.n_prefixed_row += bound.longest
            group.is_bounded &= column.path_in_schema in flat or bound.n_bytes <= BATCH_BYTES
    group.shared, group.prefixed = tuple(shared), tuple(prefixed)
    return group


class _SharedBound(NamedTuple):
    """Bounds of the texts of a column that share their bytes: of the longest, and of all."""

    longest: int = 0
    n_bytes: int = 0
    is_prefixed: bool = False


def _bound_shared(raw: BinaryIO, pages: Sequence[Page], codec: str) -> _SharedBound:
    n_indices = sum(page.n_values for page in pages if _has_encoding(page, DICTIONARY_ENCODINGS))
    n_prefixed = sum(page.n_values for page in pages if _has_encoding(page, (DELTA_BYTE_ARRAY,)))
    dictionary = next((page for page in pages if page.kind == DICTIONARY), None)
    largest = max((page.n_plain for page in pages), default=0) if n_prefixed else 0
    longest = dictionary.n_plain if dictionary is not None and n_indices else 0
    if dictionary is not None and n_indices * longest > BATCH_BYTES >= longest:
        longest = find_longest(raw, dictionary, codec)
    return _SharedBound(max(longest, largest), n_indices * longest + n_prefixed * largest, n_prefixed > 0)


def _has_encoding(page: Page, encodings: Sequence[int]) -> bool:
    return page.kind != DICTIONARY and page.encoding in encodings


def _parse_partition(path: Path, names: Sequence[str]) -> dict[str, str | None]:
    """Return the values of folders such as "lang=en", but for columns of the file."""
    parts = [part.partition("=") for part in Path(os.path.abspath(path)).parent.parts]
    values = {name: unquote(value) for name, equals, value in parts if equals and name and name not in names}
    return {name: None if value == HIVE_NULL else value for name, value in values.items()}
