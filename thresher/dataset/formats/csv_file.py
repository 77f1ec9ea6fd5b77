"""Opening CSV and TSV files: the delimiter, the header, and which records are rows."""

from __future__ import annotations

import csv
import re
from collections import Counter
from collections.abc import Container, Mapping

import numpy as np

from thresher.dataset.formats.beginning import Beginning
from thresher.dataset.formats.csv_quotes import requote, split_swallowed
from thresher.dataset.formats.csv_rows import CsvRows, describe_ragged, guess_delimiter, parse_record
from thresher.dataset.formats.files import PlainFile
from thresher.dataset.formats.spans import Spans
from thresher.dataset.formats.text_shard import Layout, TextShard
from thresher.errors import InputError

LONGEST_NAME, MOST_WORDS = 60, 4  # of a column; a header with more may be a row
_HEADER_LIMIT = 1 << 20
_EXCEL_LINE = re.compile(rb'"?sep=(.)"?\r?\n', re.IGNORECASE)  # Excel's delimiter line


def open_csv(file: PlainFile, suffix: str, compression: str, max_row_bytes: int) -> TextShard:
    """Read a CSV or TSV file once and return its rows; a file of 0 bytes has none.

    Raises:
        InputError: the file cannot be read, or its header is faulty.
    """
    from thresher.dataset.formats.csv_spans import FAULTS, find_csv_spans  # compiled on first use

    beginning = Beginning(file, compression)
    beginning.refuse_carriage_returns()
    excel = _EXCEL_LINE.match(beginning.head)
    if excel is not None:
        beginning.skip(excel.end())
        delimiter = excel[1].decode("latin-1")
    else:
        line = beginning.head.split(b"\n", 1)[0].decode(errors="replace")
        delimiter = "\t" if suffix == ".tsv" else guess_delimiter(line)
    first = beginning.offset
    spans = find_csv_spans(beginning.rest(), file.scan_again, delimiter, first, line=1 if excel is None else 2)
    if len(spans) == 0:
        empty = TextShard(file, spans, CsvRows([], delimiter), Layout(), suffix=suffix, max_row_bytes=max_row_bytes)
        empty.advice = "; the file must hold a header and rows, and it is empty"
        return empty
    if 0 in spans.faults:
        raise InputError(f"{file.name}: the first line must be a header of column names, found {spans.faults[0]}")
    with file.reader() as reader:
        header_end = int(spans.end[0])
        raw = reader.read(first, min(header_end, first + _HEADER_LIMIT))
        before = reader.read(0, header_end) + b"\n"
    header = _parse_header(raw, delimiter, file.name)
    with file.reader() as reader:
        rows = split_swallowed(spans, reader, delimiter, len(header))
    layout = Layout(compression=compression, before=before, line_end=b"\r" if raw.endswith(b"\r") else b"")
    records, syntax = _mark_records(rows.spans, len(header), FAULTS), CsvRows(header, delimiter)
    shard = TextShard(file, records, syntax, layout, suffix=suffix + compression, max_row_bytes=max_row_bytes)
    shard.column_names, shard.has_fixed_columns = header, True
    if any(len(name) > LONGEST_NAME or len(name.split()) > MOST_WORDS or name.isdigit() for name in header):
        shard.advice = "; the first line must name the columns, and seems to be a row: add such a line"
    if rows.n_swallowing:
        shard.requote_rows(rows.literal - 1, lambda record: requote(record, delimiter.encode()))
        shard.notes = (_describe_quotes(file.name, rows.n_swallowing, rows.n_swallowed),)
    return shard


def _describe_quotes(name: str, n_swallowing: int, n_swallowed: int) -> str:
    places = "one place" if n_swallowing == 1 else f"{n_swallowing:,} places"
    return (
        f"{name}: in {places} a quote ran over lines that are rows each, {n_swallowed:,} in all; "
        "they were read line by line, with such quotes as text"
    )


def _parse_header(raw: bytes, delimiter: str, name: str) -> list[str]:
    """Return the names of the columns; several without a name are told apart by their number."""
    try:
        header = [column.strip() for column in parse_record(raw.decode().removesuffix("\r"), delimiter)]
    except UnicodeDecodeError:
        raise InputError(
            f"{name}: the header must be UTF-8, found other bytes; if it is Windows text, convert it with: "
            "iconv -f WINDOWS-1252 -t UTF-8 FILE > NEW"
        ) from None
    except csv.Error as error:
        raise InputError(f"{name}: the first line must be a header of column names ({error})") from None
    if header.count("") > 1:
        names = set(header)
        header = [column or _name_column(number, names) for number, column in enumerate(header, start=1)]
    repeated = sorted(column for column, n in Counter(header).items() if n > 1)
    if repeated:
        raise InputError(f"{name}: the columns of the header must differ, found '{repeated[0]}' twice; rename one")
    return header


def _name_column(number: int, names: Container[str]) -> str:
    name = f"unnamed {number}"
    return name if name not in names else f"{name} (empty)"


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
