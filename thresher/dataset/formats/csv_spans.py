"""The rows of a CSV file, found without parsing: a state machine over the bytes.

It is compiled for files of some size. For a small one the interpreter is done sooner than numba is
imported.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from thresher.dataset.formats.spans import Spans

_MAX_RESTARTS = 100  # each reads the rest of the file again
UNCLOSED_QUOTE = "a quote is opened and never closed"

_BARE_RETURN, _AFTER_QUOTE = -1, -2
FAULTS = {_BARE_RETURN: "a carriage return is outside quotes", _AFTER_QUOTE: "text follows a closing quote"}
_RETURN_SEEN = 1  # no fault yet: the line feed may follow
_FIELD_START, _PLAIN, _QUOTED, _QUOTE_SEEN = 0, 1, 2, 3  # where in a field the scanner is
_LINE_FEED, _RETURN, _QUOTE = 10, 13, 34  # bytes
# Bytes of a file up to which the interpreter looks at them: 0.1 s on a slow core, where importing
# numba takes 0.4.
_SMALL_BYTES = 1_000_000


def find_csv_spans(
    chunks: Iterable[bytes], reread: Callable[[int], Iterable[bytes]], delimiter: str, offset: int, *, line: int = 1
) -> Spans:
    """Return the records of a file, whatever becomes of its quotes.

    A quote that is never closed would swallow the rest of the file: its line alone is a faulty row,
    and the lines behind it are read again.

    Args:
        chunks: the bytes of the file from `offset`.
        reread: gives the bytes from an offset to the end.
        delimiter: one byte.
        offset: of the first record.
        line: it starts on.
    """
    parts: list[Spans] = []
    scanner = CsvScanner(delimiter, offset=offset, line=line)
    for _ in range(_MAX_RESTARTS):
        for chunk in chunks:
            scanner.feed(chunk)
        spans = scanner.finish()
        parts.append(spans)
        if not spans.faults:
            break
        # the last record has the open quote: cut it at the end of its first line, and go on behind
        last = int(spans.start[-1])
        line_end = _find_line_end(reread(last), last)
        if line_end is None:
            break
        spans.end[-1] = line_end
        scanner = CsvScanner(delimiter, offset=line_end + 1, line=int(spans.line[-1]) + 1)
        chunks = reread(line_end + 1)
    return _concatenate(parts)


def _find_line_end(chunks: Iterable[bytes], offset: int) -> int | None:
    """Return where the line that starts at an offset ends; None when it is the last."""
    for chunk in chunks:
        at = chunk.find(b"\n")
        if at >= 0:
            return offset + at
        offset += len(chunk)
    return None


def _concatenate(parts: Sequence[Spans]) -> Spans:
    first = np.cumsum([0, *map(len, parts)]).tolist()  # number of the first row of each part
    faults = {row + n: why for part, n in zip(parts, first, strict=False) for row, why in part.faults.items()}
    return Spans(
        start=np.concatenate([part.start for part in parts]),
        end=np.concatenate([part.end for part in parts]),
        line=np.concatenate([part.line for part in parts]),
        n_fields=np.concatenate([part.n_fields for part in parts if part.n_fields is not None]),
        faults=faults,
    )


class CsvScanner:
    """Rows are CSV records (RFC 4180): a quote opens a field at its start, "" is one quote.

    Args:
        delimiter: one byte.
        offset: where in the file the first chunk starts.
        line: the line it starts on.
    """

    def __init__(self, delimiter: str, *, offset: int = 0, line: int = 1) -> None:
        self._delimiter = ord(delimiter)
        self._offset = offset
        self._n_interpreted = 0
        self._state = np.array([_FIELD_START, offset, line, line, 1, 0], np.int64)
        self._records = [np.empty((0, 4), np.int64)]

    def feed(self, chunk: bytes) -> None:
        """Look at the next chunk of the file."""
        self._n_interpreted += len(chunk)
        records = np.empty((len(chunk) + 1, 4), np.int64)
        if self._n_interpreted <= _SMALL_BYTES:
            state = self._state.tolist()
            n = _scan_csv(chunk, self._offset, self._delimiter, state, records)
            self._state[:] = state
        else:
            n = _compile_scan()(np.frombuffer(chunk, np.uint8), self._offset, self._delimiter, self._state, records)
        self._records.append(records[:n].copy())
        self._offset += len(chunk)

    def finish(self) -> Spans:
        """Return the rows, at the end of the file."""
        records = np.concatenate(self._records)
        state, start, line, _, n_fields, fault = self._state.tolist()
        faults = {}
        # bytes behind the last line feed outside quotes are a record, too
        if start < self._offset:
            if state == _QUOTED:
                faults[len(records)] = UNCLOSED_QUOTE
            last = [start, self._offset, line, fault if fault < 0 else n_fields]
            records = np.concatenate([records, np.array([last], np.int64)])
        starts, ends, lines, fields = records.T.copy()
        return Spans(start=starts, end=ends, line=lines, n_fields=fields, faults=faults)


@cache
def _compile_scan() -> Callable[..., int]:
    from thresher.numeric.numba_jit import jit

    return jit(_scan_csv)


def _scan_csv(data: Any, offset: int, delimiter: int, state: Any, records: Any) -> int:  # noqa: C901
    """Write start, end, line, and fields or fault of each record that ends here; return how many.

    State is (where in a field, start of the record, its line, line now, fields, fault); it is
    carried from chunk to chunk.
    """
    where, start, line, line_now, n_fields, fault = state
    n = 0
    for i in range(len(data)):
        c = data[i]
        # inside quotes only a quote means anything, and a line feed counts as a line
        if where == _QUOTED:
            if c == _QUOTE:
                where = _QUOTE_SEEN
            elif c == _LINE_FEED:
                line_now += 1
            continue
        # outside quotes a line feed ends the record
        if c == _LINE_FEED:
            records[n, 0] = start
            records[n, 1] = offset + i
            records[n, 2] = line
            records[n, 3] = fault if fault < 0 else n_fields
            n += 1
            line_now += 1
            where, start, line, n_fields, fault = _FIELD_START, offset + i + 1, line_now, 1, 0
            continue
        # anything but a line feed behind a carriage return makes that one a fault
        if fault == _RETURN_SEEN:
            fault = _BARE_RETURN
        if c == _RETURN:
            fault = fault if fault < 0 else _RETURN_SEEN
        elif c == delimiter:
            n_fields += 1
            where = _FIELD_START
        # a quote opens a field at its start; behind another quote it is the second of ""
        elif c == _QUOTE and where in (_FIELD_START, _QUOTE_SEEN):
            where = _QUOTED
        else:
            if where == _QUOTE_SEEN:
                fault = _AFTER_QUOTE
            where = _PLAIN
    state[:] = (where, start, line, line_now, n_fields, fault)
    return n
