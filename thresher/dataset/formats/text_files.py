"""Opening JSONL, JSON and CSV files: which of them a file is, its header, its rows."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import IO

import numpy as np
import orjson

from thresher.dataset.formats.csv_rows import CsvRows, describe_ragged, guess_delimiter, parse_record
from thresher.dataset.formats.files import STDIN, PlainFile
from thresher.dataset.formats.json_rows import BYTE_ORDER_MARK, JsonRows
from thresher.dataset.formats.shard import Shard
from thresher.dataset.formats.spans import LineScanner, Scanner, Spans
from thresher.dataset.formats.text_shard import Layout, TextShard
from thresher.dataset.rejection import BadRow, NoRowsError
from thresher.dataset.schema import count_columns
from thresher.errors import InputError

SAMPLE_ROWS = 200
_FOREIGN_MARKS = (b"\xff\xfe", b"\xfe\xff")
_LONGEST_GAP = 64  # bytes of white space around a comma that are worth writing back as they were
_HEADER_LIMIT = 1 << 20
_SNIFFED_BYTES = 4096  # at least so many are read to tell an array from lines
_LARGEST_OBJECT = 64 << 20


def open_text(
    path: Path | None,
    suffix: str,
    compression: str,
    *,
    max_row_bytes: int,
    stream: IO[bytes] | None = None,
    name: str = STDIN,
) -> TextShard:
    """Read a file once and return its rows.

    Args:
        path: the file; None for a stream.
        suffix: ".jsonl", ".ndjson", ".json", ".csv", ".tsv"; of the plain file.
        compression: ".gz", ".zst", ".bz2" or "".
        max_row_bytes: longer rows are rejected unread.
        stream: read when there is no path; None for standard input.
        name: of the stream.

    Raises:
        InputError: the file cannot be read, is empty, is UTF-16, or its header is faulty.
    """
    file = PlainFile(path, compression, stream=stream, name=name)
    if suffix in {".csv", ".tsv"}:
        return _open_csv(file, suffix, compression, max_row_bytes)
    return _open_json(file, suffix, compression, max_row_bytes)


class _Beginning:
    """Feeds a scanner that is chosen once the first bytes are known."""

    def __init__(self, file: PlainFile) -> None:
        self.file = file
        self.chunks = file.scan()
        self.first = b""
        while len(self.first) < _SNIFFED_BYTES and (chunk := next(self.chunks, None)) is not None:
            self.first += chunk
        if self.first.startswith(_FOREIGN_MARKS):
            raise InputError(
                f"{file.name}: the file must be UTF-8, found a UTF-16 or UTF-32 byte order mark; "
                "convert it with: iconv -f UTF-16 -t UTF-8"
            )
        self.offset = len(BYTE_ORDER_MARK) if self.first.startswith(BYTE_ORDER_MARK) else 0
        self.head = self.first[self.offset :]

    def scan(self, scanner: Scanner) -> Spans:
        """Feed the whole file to a scanner."""
        scanner.feed(self.head)
        for chunk in self.chunks:
            scanner.feed(chunk)
        spans = scanner.finish()
        if len(spans) == 0:
            raise NoRowsError(f"{self.file.name}: the file must hold rows, it is empty")
        return spans


def _open_json(file: PlainFile, suffix: str, compression: str, max_row_bytes: int) -> TextShard:
    beginning = _Beginning(file)
    spans, is_array = _find_json_spans(beginning, suffix)
    if file.name == STDIN and not is_array:
        suffix = ".jsonl"  # of what is written: its own name says nothing
    layout = _copy_array_layout(file, spans, compression) if is_array else Layout(compression=compression)
    shard = TextShard(file, spans, JsonRows(), layout, suffix=suffix + compression, max_row_bytes=max_row_bytes)
    rows = sample_rows(shard)
    shard.column_names = list(count_columns(rows))
    if not rows and file.name == STDIN:
        shard.advice = "; standard input must be JSON lines or a JSON array: give other formats as a file"
    elif len(rows) <= 1 and not is_array:
        shard.advice = _advise_one_object(file)
    return shard


def _find_json_spans(beginning: _Beginning, suffix: str) -> tuple[Spans, bool]:
    """Return the rows, and whether they are the elements of an array."""
    if not _is_array(beginning.head, suffix):
        return beginning.scan(LineScanner(beginning.offset)), False
    from thresher.dataset.formats.json_array_spans import ArrayScanner  # compiled on first use

    scanner = ArrayScanner(beginning.offset)
    spans = beginning.scan(scanner)
    if scanner.was_closed or suffix == ".json":
        return spans, True
    lines = LineScanner(beginning.offset)
    for chunk in beginning.file.scan_again(beginning.offset):
        lines.feed(chunk)
    return lines.finish(), False


def _is_array(head: bytes, suffix: str) -> bool:
    """Tell whether a file is one JSON array, or a .jsonl file that begins like one of objects."""
    head = head.lstrip()
    if suffix == ".json":
        return head.startswith(b"[")
    return head[:1] == b"[" and head[1:_SNIFFED_BYTES].lstrip().startswith(b"{")


def _copy_array_layout(file: PlainFile, spans: Spans, compression: str) -> Layout:
    """Return a layout that writes an array with the white space that the file has."""
    start, end = spans.start, spans.end
    before, between, after = b"[\n", b",\n", b"\n]\n"
    with file.reader() as reader:
        if start[0] <= _LONGEST_GAP:
            before = reader.read(0, int(start[0])).removeprefix(BYTE_ORDER_MARK)
        if len(spans) > 1 and start[1] - end[0] <= _LONGEST_GAP:
            between = reader.read(int(end[0]), int(start[1]))
        n_after = file.n_plain - int(end[-1])
        if 0 < n_after <= _LONGEST_GAP:
            after = reader.read(int(end[-1]), file.n_plain)
    is_usual = before.strip() == b"[" and between.strip() == b"," and after.strip() == b"]"
    if not is_usual:
        before, between, after = b"[\n", b",\n", b"\n]\n"
    return Layout(compression=compression, before=before, between=between, after=b"", closing=after)


def _advise_one_object(file: PlainFile) -> str:
    """Say where the rows seem to be in a file that is one object, such as {"data": [...]}."""
    if file.n_plain > _LARGEST_OBJECT:
        return ""
    with file.reader() as reader:
        text = reader.read(0, file.n_plain).removeprefix(BYTE_ORDER_MARK)
    try:
        content = orjson.loads(text)
    except orjson.JSONDecodeError:
        return ""
    items = content.items() if isinstance(content, dict) else ()
    lists = [f"'{key}'" for key, value in items if isinstance(value, list)]
    if not lists:
        return ""
    return f"; the file is one object: write its list {' or '.join(lists[:3])} to a file of its own"


def _open_csv(file: PlainFile, suffix: str, compression: str, max_row_bytes: int) -> TextShard:
    from thresher.dataset.formats.csv_spans import FAULTS, find_csv_spans  # compiled on first use

    beginning = _Beginning(file)
    line = beginning.head.split(b"\n", 1)[0].decode(errors="replace")
    delimiter = "\t" if suffix == ".tsv" else guess_delimiter(line)
    chunks = itertools.chain([beginning.head], beginning.chunks)
    spans = find_csv_spans(chunks, file.scan_again, delimiter, beginning.offset)
    if len(spans) == 0:
        raise NoRowsError(f"{file.name}: the file must hold a header and rows, it is empty")
    if 0 in spans.faults:
        raise InputError(f"{file.name}: the first line must be a header of column names, found {spans.faults[0]}")
    with file.reader() as reader:
        header_end = int(spans.end[0])
        raw = reader.read(beginning.offset, min(header_end, beginning.offset + _HEADER_LIMIT))
    try:
        header = [name.strip() for name in parse_record(raw.decode().removesuffix("\r"), delimiter)]
    except UnicodeDecodeError:
        raise InputError(f"{file.name}: the header must be UTF-8; convert the file with iconv") from None
    except csv.Error as error:
        raise InputError(f"{file.name}: the first line must be a header of column names ({error})") from None
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(f"{file.name}: the columns of the header must differ, found '{repeated[0]}' twice; rename one")
    with file.reader() as reader:
        before = reader.read(0, header_end) + b"\n"
    layout = Layout(compression=compression, before=before, line_end=b"\r" if raw.endswith(b"\r") else b"")
    records, syntax = _mark_records(spans, len(header), FAULTS), CsvRows(header, delimiter)
    shard = TextShard(file, records, syntax, layout, suffix=suffix + compression, max_row_bytes=max_row_bytes)
    shard.column_names = header
    return shard


def _mark_records(spans: Spans, n_columns: int, flags: Mapping[int, str]) -> Spans:
    """Return the rows after the header, those of another width marked."""
    fields = spans.n_fields
    if fields is None:
        raise AssertionError("a CSV scanner counts fields")
    length = spans.end - spans.start
    faults = {i: flags[int(fields[i])] for i in np.flatnonzero(fields < 0).tolist()}
    may_be_blank = (fields == 1) & (length <= 1)  # decided when the row is read
    for i in np.flatnonzero((fields != n_columns) & (fields >= 0) & ~may_be_blank).tolist():
        faults[i] = describe_ragged(n_columns, int(fields[i]))
    faults |= spans.faults
    return Spans(
        start=spans.start[1:],
        end=spans.end[1:],
        line=spans.line[1:],
        n_fields=fields[1:],
        faults={i - 1: reason for i, reason in faults.items() if i > 0},
    )


def sample_rows(shard: Shard) -> list[dict[str, object]]:
    """Return the first good rows of a shard."""
    rows: list[dict[str, object]] = []
    for block in shard.blocks():
        for index in range(len(block.positions)):
            with suppress(BadRow):
                rows.append(block.row(index))
            if len(rows) == SAMPLE_ROWS:
                return rows
    return rows
