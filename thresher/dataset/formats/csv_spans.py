"""The rows of a CSV file, found without parsing: a state machine over the bytes, compiled."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numba import njit

from thresher.dataset.formats.spans import Positions, Spans

_MAX_RESTARTS = 100  # each reads the rest of the file again
UNCLOSED_QUOTE = "a quote is opened and never closed"

FAULTS = {-1: "a carriage return stands outside quotes", -2: "text stands behind a closing quote"}
_BARE_RETURN, _AFTER_QUOTE = -1, -2
_RETURN_SEEN = 1
_FIELD_START, _PLAIN, _QUOTED, _QUOTE_SEEN = 0, 1, 2, 3  # where in a field the scanner is


def csv_spans(chunks: Iterable[bytes], reread: Callable[[int], Iterable[bytes]], delimiter: str, offset: int) -> Spans:
    """Return the records of a file, whatever becomes of its quotes.

    A quote that is never closed would swallow the rest of the file: its line alone is a faulty row,
    and the lines behind it are read again.

    Args:
        chunks: the bytes of the file from `offset`.
        reread: gives the bytes from an offset to the end.
        delimiter: one byte.
        offset: of the first record.
    """
    parts: list[Spans] = []
    scanner = CsvScanner(delimiter, offset=offset)
    for _ in range(_MAX_RESTARTS):
        for chunk in chunks:
            scanner.feed(chunk)
        spans = scanner.finish()
        parts.append(spans)
        if not spans.faults:
            break
        last = int(spans.start[-1])
        line_end = _line_end(reread(last), last)
        if line_end is None:
            break
        spans.end[-1] = line_end
        scanner = CsvScanner(delimiter, offset=line_end + 1, line=int(spans.line[-1]) + 1)
        chunks = reread(line_end + 1)
    return _concatenated(parts)


def _line_end(chunks: Iterable[bytes], offset: int) -> int | None:
    """Return where the line that starts at an offset ends; None when it is the last."""
    for chunk in chunks:
        found = chunk.find(b"\n")
        if found >= 0:
            return offset + found
        offset += len(chunk)
    return None


def _concatenated(parts: Sequence[Spans]) -> Spans:
    first = np.cumsum([0, *map(len, parts)]).tolist()
    faults = {row + n: why for part, n in zip(parts, first, strict=False) for row, why in part.faults.items()}
    return Spans(
        start=np.concatenate([part.start for part in parts]),
        end=np.concatenate([part.end for part in parts]),
        line=np.concatenate([part.line for part in parts]),
        n_fields=np.concatenate([part.n_fields for part in parts if part.n_fields is not None]),
        faults=faults,
    )


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
        state, start, line, _, n_fields, fault = self._state.tolist()
        faults = {}
        if start < self._offset:
            if state == _QUOTED:
                faults[len(found)] = UNCLOSED_QUOTE
            last = [start, self._offset, line, fault if fault < 0 else n_fields]
            found = np.concatenate([found, np.array([last], np.int64)])
        columns = [found[:, i].copy() for i in range(4)]
        return Spans(start=columns[0], end=columns[1], line=columns[2], n_fields=columns[3], faults=faults)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _scan_csv(data: Any, offset: int, delimiter: int, state: Any, found: Any) -> int:  # noqa: C901
    """Write (start, end, line, fields or flag) of each record that ends in `data`; returns their number.

    State is (where in a field, start of the record, its line, line now, fields, fault).
    """
    where, start, line, line_now, n_fields, fault = state
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
            found[n, 3] = fault if fault < 0 else n_fields
            n += 1
            line_now += 1
            where, start, line, n_fields, fault = 0, offset + i + 1, line_now, 1, 0
            continue
        if fault == _RETURN_SEEN:
            fault = _BARE_RETURN
        if c == 13:
            fault = fault if fault < 0 else _RETURN_SEEN
        elif c == delimiter:
            n_fields += 1
            where = 0
        elif c == 34 and (where == 0 or where == 3):
            where = 2
        else:
            if where == 3:
                fault = _AFTER_QUOTE
            where = 1
    state[:] = (where, start, line, line_now, n_fields, fault)
    return n
