"""Where the rows lie in a text file: byte spans, found in one pass without looking into the rows.

A scanner is fed the file in chunks and keeps the spans in numpy arrays, so that a file of any size costs 16 to 24
bytes per row. The state machines are compiled, since they look at every byte.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numba import njit
from numpy.typing import NDArray

Positions = NDArray[np.int64]

UNCLOSED_ARRAY = "the JSON array is not closed: the file may be cut off"
AFTER_ARRAY = "text after the end of the JSON array"
UNCLOSED_QUOTE = "a quote is opened and never closed"


@dataclass(frozen=True, kw_only=True)
class Spans:
    """The rows of one file.

    Attributes:
        start: (n,) int64, offset of the row's first byte.
        end: (n,) int64, offset behind its last byte, without the line feed.
        line: (n,) int64, the line the row starts on, or for JSON arrays the number of the element; from 1.
        n_fields: (n,) int64 for CSV, the number of fields; -1 where a bare carriage return stands outside quotes.
        faults: row -> reason, for faults that show only in the structure of the file.
    """

    start: Positions
    end: Positions
    line: Positions
    n_fields: Positions | None = None
    faults: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.start)


class Scanner(Protocol):
    """Finds rows in a file that is fed to it in chunks."""

    def feed(self, chunk: bytes) -> None:
        """Look at the next chunk of the file."""

    def finish(self) -> Spans:
        """Return the rows, at the end of the file."""


class LineScanner:
    """Rows are lines. Lines of white space count in the numbering; they are dropped when they are read."""

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset
        self._ends: list[Positions] = []
        self._start = offset

    def feed(self, chunk: bytes) -> None:
        """Look at the next chunk of the file."""
        found = np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n"))
        self._ends.append(found + self._offset)
        self._offset += len(chunk)

    def finish(self) -> Spans:
        """Return the rows, at the end of the file."""
        end = _joined(self._ends)
        last = end[-1] + 1 if len(end) else self._start
        if last < self._offset:
            end = np.append(end, self._offset)
        start = np.concatenate([np.array([self._start], np.int64), end[:-1] + 1]) if len(end) else end
        return Spans(start=start, end=end, line=np.arange(1, len(end) + 1, dtype=np.int64))


class ArrayScanner:
    """Rows are the elements of one JSON array, cut at the commas of its outermost level."""

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset
        self._state = np.array([0, 0, 0, -1, 0, _BEFORE], np.int64)
        self._found: list[Positions] = []
        self.was_closed = False

    def feed(self, chunk: bytes) -> None:
        """Look at the next chunk of the file."""
        data = np.frombuffer(chunk, np.uint8)
        found = np.empty((len(data) // 2 + 2, 2), np.int64)
        n = _scan_array(data, self._offset, self._state, found)
        self._found.append(found[:n].copy())
        self._offset += len(chunk)

    def finish(self) -> Spans:
        """Return the rows, at the end of the file."""
        spans = np.concatenate(self._found) if self._found else np.empty((0, 2), np.int64)
        _, _, _, start, end, phase = self._state.tolist()
        self.was_closed = phase == _AFTER and start < 0
        faults = {}
        if phase == _INSIDE and start < 0:
            start = end = self._offset  # an empty span, to carry the reason
        if start >= 0:
            faults[len(spans)] = AFTER_ARRAY if phase == _AFTER else UNCLOSED_ARRAY
            spans = np.concatenate([spans, np.array([[start, end]], np.int64)])
        line = np.arange(1, len(spans) + 1, dtype=np.int64)
        return Spans(start=spans[:, 0].copy(), end=spans[:, 1].copy(), line=line, faults=faults)


class CsvScanner:
    """Rows are CSV records (RFC 4180): a quote opens a field only at the field's start, "" stands for one quote.

    Args:
        delimiter: one byte.
        offset: where in the file the first chunk starts.
        line: the line it starts on.
    """

    def __init__(self, delimiter: str, *, offset: int = 0, line: int = 1) -> None:
        self._delimiter = ord(delimiter)
        self._offset = offset
        self._state = np.array([_FIELD_START, offset, line, line, 1, 0], np.int64)
        self._found: list[Positions] = []

    def feed(self, chunk: bytes) -> None:
        """Look at the next chunk of the file."""
        data = np.frombuffer(chunk, np.uint8)
        found = np.empty((len(data) + 1, 4), np.int64)
        n = _scan_csv(data, self._offset, self._delimiter, self._state, found)
        self._found.append(found[:n].copy())
        self._offset += len(chunk)

    def finish(self) -> Spans:
        """Return the rows, at the end of the file."""
        found = np.concatenate(self._found) if self._found else np.empty((0, 4), np.int64)
        state, start, line, _, n_fields, has_return = self._state.tolist()
        faults = {}
        if start < self._offset:
            if state == _QUOTED:
                faults[len(found)] = UNCLOSED_QUOTE
            last = [start, self._offset, line, -1 if has_return > 1 else n_fields]
            found = np.concatenate([found, np.array([last], np.int64)])
        columns = [found[:, i].copy() for i in range(4)]
        return Spans(start=columns[0], end=columns[1], line=columns[2], n_fields=columns[3], faults=faults)


def _joined(parts: list[Positions]) -> Positions:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


_BEFORE, _INSIDE, _AFTER = 0, 1, 2  # phases: of the array's opening bracket and its closing one
_FIELD_START, _PLAIN, _QUOTED, _QUOTE_SEEN = 0, 1, 2, 3


@njit(cache=True)  # type: ignore[misc]
def _scan_array(data: Any, offset: int, state: Any, found: Any) -> int:  # noqa: C901 - a state machine, one branch per byte
    """Write the (start, end) of each element that ends in `data`; state is (depth, in string, escaped, start, end, phase)."""
    depth, in_string, escaped, start, end, phase = state
    n = 0
    for i in range(len(data)):
        c = data[i]
        if in_string:
            end = offset + i + 1
            if escaped:
                escaped = 0
            elif c == 92:  # backslash
                escaped = 1
            elif c == 34:
                in_string = 0
            continue
        if c == 32 or c == 10 or c == 13 or c == 9:
            continue
        if phase == 0:
            phase = 1
            continue
        if phase == 1 and depth == 0 and (c == 44 or c == 93):  # comma, closing bracket
            if start >= 0:
                found[n, 0] = start
                found[n, 1] = end
                n += 1
            elif c == 44:  # two commas in a row: an empty element
                found[n, 0] = offset + i
                found[n, 1] = offset + i
                n += 1
            start = -1
            if c == 93:
                phase = 2
            continue
        if start < 0:
            start = offset + i
        end = offset + i + 1
        if phase == 2:
            continue
        if c == 34:
            in_string = 1
        elif c == 123 or c == 91:
            depth += 1
        elif (c == 125 or c == 93) and depth > 0:
            depth -= 1
    state[:] = (depth, in_string, escaped, start, end, phase)
    return n


@njit(cache=True)  # type: ignore[misc]
def _scan_csv(data: Any, offset: int, delimiter: int, state: Any, found: Any) -> int:  # noqa: C901 - a state machine
    """Write (start, end, line, fields) of each record that ends in `data`.

    State is (where in a field, start of the record, its line, line now, fields, carriage returns: 1 pending, 2 bare).
    """
    where, start, line, line_now, n_fields, has_return = state
    n = 0
    for i in range(len(data)):
        c = data[i]
        if where == 2:
            if c == 34:
                where = 3
            elif c == 10:
                line_now += 1
            continue
        if c == 10:
            found[n, 0] = start
            found[n, 1] = offset + i
            found[n, 2] = line
            found[n, 3] = -1 if has_return == 2 else n_fields
            n += 1
            line_now += 1
            where, start, line, n_fields, has_return = 0, offset + i + 1, line_now, 1, 0
            continue
        if has_return == 1:
            has_return = 2
        if c == 13:
            has_return = max(has_return, 1)
        elif c == delimiter:
            n_fields += 1
            where = 0
        elif c == 34 and (where == 0 or where == 3):
            where = 2
        else:
            where = 1
    state[:] = (where, start, line, line_now, n_fields, has_return)
    return n
