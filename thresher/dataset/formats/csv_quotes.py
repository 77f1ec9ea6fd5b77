"""Lone quotes: lines of a CSV file that a quote, meant as text, has swallowed as one record.

A field that begins with a quote runs to the next quote, over line feeds. Where the lines of such a
record are rows each, the quote was text: programs that never quote write such files.
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from thresher.dataset.formats.files import SpanReader
from thresher.dataset.formats.spans import Spans
from thresher.numeric.arrays import Int64

_MOSTLY = 0.8  # share of the lines of a record that must look like rows
_SAMPLED = 2000  # records from which the values of each column are learned
_FEWEST = 5  # records of each value, on average, of a column that holds classes
_MOST_CLASSES = 100
_CERTAIN_COLUMNS = 4  # no prose has so many commas in each line


@dataclass(frozen=True)
class UnquotedRows:
    """A file whose lone quotes are text.

    Attributes:
        spans: its records, the swallowed lines one each.
        literal: (m,) which of them have quotes that are text, ascending.
        n_swallowing: records that ran over several rows.
        n_swallowed: lines in them.
    """

    spans: Spans
    literal: Int64
    n_swallowing: int = 0
    n_swallowed: int = 0


def requote(record: bytes, delimiter: bytes) -> bytes:
    """Return a record, whose quotes are text, as RFC 4180 has it."""
    fields = record.split(delimiter)
    return delimiter.join(b'"' + field.replace(b'"', b'""') + b'"' if b'"' in field else field for field in fields)


def split_swallowed(spans: Spans, reader: SpanReader, delimiter: str, n_columns: int) -> UnquotedRows:
    """Return the records of a file with each line that a lone quote swallowed as a row of its own.

    A record of several lines stays one, as RFC 4180 says, unless its lines have the columns of a
    row and values that these columns have elsewhere.

    Args:
        spans: the records by quotes, the header first.
        reader: of the file's bytes.
        delimiter: one character.
        n_columns: of the header.
    """
    none = UnquotedRows(spans, np.empty(0, np.int64))
    fields = spans.n_fields
    if n_columns < 2 or len(spans) < 2 or fields is None:
        return none
    several = _find_multiline(spans, reader)
    if not several:
        return none
    lines = _learn_columns(spans, fields, reader, delimiter, n_columns)
    if not lines.are_certain:
        several = [i for i in several if int(fields[i]) != n_columns]
    texts = {}
    for i in several:
        text = reader.read(int(spans.start[i]), int(spans.end[i])).split(b"\n")
        if lines.are_rows(text):
            texts[i] = text
    if not texts:
        return none
    return _rebuild(spans, fields, texts, lines, reader)


def _find_multiline(spans: Spans, reader: SpanReader) -> list[int]:
    """Return the records of several lines, but for the header."""
    several = (np.flatnonzero(np.diff(spans.line) > 1)).tolist()
    last = len(spans) - 1
    if b"\n" in reader.read(int(spans.start[last]), int(spans.end[last])):
        several.append(last)
    return [i for i in several if i > 0]


@dataclass(frozen=True)
class _Lines:
    """Tells whether lines are rows.

    Attributes:
        delimiter: one character.
        n_columns: of a row.
        values: of each column the texts it holds elsewhere; None where it may hold any.
        filled: columns that are empty nowhere else.
    """

    delimiter: str
    n_columns: int
    values: Sequence[frozenset[bytes] | None]
    filled: frozenset[int] = frozenset()

    def split(self, line: bytes) -> tuple[list[bytes], bool]:
        """Return the fields of a line, and whether its quotes are text."""
        line = line.removesuffix(b"\r")
        if b'"' in line:
            try:
                fields = next(csv.reader([line.decode("latin-1")], delimiter=self.delimiter, strict=True))
            except csv.Error:
                fields = []
            if len(fields) == self.n_columns:
                return [field.encode("latin-1") for field in fields], False
        return line.split(self.delimiter.encode()), True

    @property
    def are_certain(self) -> bool:
        """Whether lines that look like rows are rows, even where quotes are in order."""
        known = any(values is not None for values in self.values)
        return known or self.delimiter == "\t" or self.n_columns >= _CERTAIN_COLUMNS

    def are_rows(self, lines: Sequence[bytes]) -> bool:
        """Tell whether nearly all lines, the first and the last too, look like rows."""
        lines = [line for line in lines if line.strip()]
        delimiter, least = self.delimiter.encode(), self.n_columns - 1
        if len(lines) < 2 or sum(line.count(delimiter) >= least for line in lines) < _MOSTLY * len(lines):
            return False
        if not (self._is_row(lines[0]) and self._is_row(lines[-1])):
            return False
        if b'"' in lines[-1].removesuffix(b"\r").split(delimiter):  # it closes a text
            return False
        return sum(map(self._is_row, lines)) >= _MOSTLY * len(lines)

    def _is_row(self, line: bytes) -> bool:
        fields = self.split(line)[0]
        if len(fields) == self.n_columns and any(not fields[number].strip() for number in self.filled):
            return False
        return len(fields) == self.n_columns and all(
            values is None or _simplify(field) in values for field, values in zip(fields, self.values, strict=True)
        )


def _simplify(value: bytes) -> bytes:
    """Return a value as its class: numbers are of one class, other texts each of its own."""
    value = value.strip()
    return b"0" if value.lstrip(b"+-").replace(b".", b"", 1).isdigit() else value


def _learn_columns(spans: Spans, fields: Int64, reader: SpanReader, delimiter: str, n_columns: int) -> _Lines:
    """Return what rows look like, from records of one line: the values of columns of few values."""
    is_single = (fields == n_columns) & np.append(np.diff(spans.line) == 1, False)
    is_single[0] = False
    at = np.flatnonzero(is_single)
    at = at[:: max(1, len(at) // _SAMPLED)]
    rows = [_Lines(delimiter, n_columns, []).split(reader.read(int(spans.start[i]), int(spans.end[i])))[0] for i in at]
    columns = [[_simplify(row[number]) for row in rows if len(row) == n_columns] for number in range(n_columns)]
    learned: list[frozenset[bytes] | None] = []
    for column in columns:
        values = frozenset(column)
        has_classes = len(column) >= _FEWEST and len(values) <= min(_MOST_CLASSES, len(column) // _FEWEST)
        learned.append(values if has_classes else None)
    filled = frozenset(number for number, column in enumerate(columns) if column and b"" not in column)
    return _Lines(delimiter, n_columns, learned, filled)


def _rebuild(
    spans: Spans, fields: Int64, texts: dict[int, list[bytes]], lines: _Lines, reader: SpanReader
) -> UnquotedRows:
    """Return the records with some of them parted into lines; other faulty quotes are text, too."""
    places = sorted(texts)
    parts = [_part_lines(texts[i], lines, offset=int(spans.start[i]), first=int(spans.line[i])) for i in places]
    literal = np.zeros(len(spans), np.int64)
    fields, faults = fields.copy(), dict(spans.faults)
    for i in sorted({*np.flatnonzero(fields < 0).tolist(), *faults} - texts.keys() - {0}):
        values, is_literal = lines.split(reader.read(int(spans.start[i]), int(spans.end[i])))
        if is_literal and len(values) == lines.n_columns and not any(b"\n" in value for value in values):
            fields[i], literal[i] = lines.n_columns, 1
            faults.pop(i, None)
    old = (spans.start, spans.end, spans.line, fields, literal)
    start, end, line, n_fields, are_literal = (
        _insert(values, places, [part[:, at] for part in parts]) for at, values in enumerate(old)
    )
    grown = np.cumsum([0, *(len(part) - 1 for part in parts)])
    moved = {i + int(grown[np.searchsorted(places, i)]): reason for i, reason in faults.items() if i not in texts}
    return UnquotedRows(
        replace(spans, start=start, end=end, line=line, n_fields=n_fields, faults=moved),
        np.flatnonzero(are_literal),
        len(parts),
        sum(map(len, parts)),
    )


def _part_lines(texts: Sequence[bytes], lines: _Lines, *, offset: int, first: int) -> Int64:
    """Return start, end, line, fields, and 1 for quotes that are text, of each line: (n, 5)."""
    rows = []
    for number, line in enumerate(texts):
        values, is_literal = lines.split(line)
        has_quotes = is_literal and b'"' in line
        rows.append((offset, offset + len(line), first + number, len(values) if line.strip() else 1, has_quotes))
        offset += len(line) + 1
    return np.array(rows, np.int64)


def _insert(values: Int64, places: Sequence[int], parts: Sequence[Int64]) -> Int64:
    """Return an array with some of its elements replaced by several each."""
    pieces, first = [], 0
    for place, part in zip(places, parts, strict=True):
        pieces += [values[first:place], part]
        first = place + 1
    return np.concatenate([*pieces, values[first:]])
