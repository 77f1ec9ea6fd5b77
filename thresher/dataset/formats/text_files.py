"""Opening JSONL, JSON and CSV files: which of them a file is, its header, its rows."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from thresher.dataset.formats.beginning import SNIFFED_BYTES, Beginning
from thresher.dataset.formats.files import STDIN, PlainFile
from thresher.dataset.formats.json_rows import BYTE_ORDER_MARK, JsonRows
from thresher.dataset.formats.json_shape import (
    advise_list,
    dump_rows,
    parse_one_object,
    read_columns,
    refuse_other_shapes,
)
from thresher.dataset.formats.shard import LATE_ROWS, SAMPLE_ROWS, sample_rows
from thresher.dataset.formats.spans import LineScanner, Spans
from thresher.dataset.formats.text_shard import Layout, TextShard
from thresher.dataset.schema import count_columns

_LONGEST_GAP = 64  # bytes of white space around a comma that are worth writing back as they were


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
        from thresher.dataset.formats.csv_file import open_csv

        return open_csv(file, suffix, compression, max_row_bytes)
    return _open_json(file, suffix, compression, max_row_bytes)


def _open_json(file: PlainFile, suffix: str, compression: str, max_row_bytes: int) -> TextShard:
    beginning = Beginning(file, compression)
    spans, is_array = _find_json_spans(beginning, suffix)
    if file.name == STDIN and not is_array:
        suffix = ".jsonl"  # of what is written: its own name says nothing
    layout = _copy_array_layout(file, spans, compression) if is_array else Layout(compression=compression)
    shard = TextShard(file, spans, JsonRows(), layout, suffix=suffix + compression, max_row_bytes=max_row_bytes)
    # of compressed text, one row takes as long as all before it
    if not compression and len(spans) > SAMPLE_ROWS:
        late = np.linspace(SAMPLE_ROWS, len(spans) - 1, LATE_ROWS).round().astype(np.int64)
        shard.late_positions = np.unique(late).tolist()
    rows = sample_rows(shard)
    shard.column_names = list(count_columns(rows))
    if not len(spans):
        shard.advice = "; the file is empty"
    elif not rows and file.name == STDIN:
        shard.advice = "; standard input must be JSON lines or a JSON array: give other formats as a file"
    elif len(rows) <= 1 and not is_array:
        content = parse_one_object(file)
        table = None if content is None else read_columns(content)
        if table is not None:
            return _open_table(file, table, max_row_bytes)
        shard.advice = advise_list(content)
    if not is_array and not shard.advice and len(rows) < SAMPLE_ROWS and 2 * len(rows) <= len(spans):
        refuse_other_shapes(file.name, beginning.head)
    return shard


def _open_table(file: PlainFile, rows: Sequence[Mapping[str, Any]], max_row_bytes: int) -> TextShard:
    """Return the rows of a table that a file holds by column; copies of them are JSON lines."""
    lines = PlainFile(None, "", stream=io.BytesIO(dump_rows(rows)), name=file.name)
    shard = _open_json(lines, ".jsonl", "", max_row_bytes)
    lines.source = file.source
    return shard


def _find_json_spans(beginning: Beginning, suffix: str) -> tuple[Spans, bool]:
    """Return the rows, and whether they are the elements of an array."""
    if not _is_array(beginning.head, suffix):
        beginning.refuse_carriage_returns()
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
    return head[:1] == b"[" and head[1:SNIFFED_BYTES].lstrip().startswith(b"{")


def _copy_array_layout(file: PlainFile, spans: Spans, compression: str) -> Layout:
    """Return a layout that writes an array with the white space that the file has."""
    start, end = spans.start, spans.end
    before, between, after = b"[\n", b",\n", b"\n]\n"
    if not len(spans):
        return Layout(compression=compression, before=before, between=between, after=b"", closing=after)
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
