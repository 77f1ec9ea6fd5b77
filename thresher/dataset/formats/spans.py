"""Where the rows lie in a text file: byte spans, found in one pass without looking into the rows.

A scanner is fed the file in chunks and keeps the spans in numpy arrays, so that a file of any size
costs 16 to 24 bytes per row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Positions = NDArray[np.int64]


@dataclass(frozen=True, kw_only=True)
class Spans:
    """The rows of one file.

    Attributes:
        start: (n,) int64, offset of the row's first byte.
        end: (n,) int64, offset behind its last byte, without the line feed.
        line: (n,) int64, the line the row starts on, or for JSON arrays the number of the element;
            from 1.
        n_fields: (n,) int64 for CSV, the number of fields; -1 where a bare carriage return stands
            outside quotes.
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


def _joined(parts: list[Positions]) -> Positions:
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
