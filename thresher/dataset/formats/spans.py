"""Where the rows are in a text file: byte spans, found in one pass without looking into the rows.

A scanner is fed the file in chunks and keeps the spans in numpy arrays, so that a file of any size
costs 16 to 24 bytes per row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from thresher.numeric.arrays import Int64


@dataclass(frozen=True, kw_only=True)
class Spans:
    """The rows of one file.

    Attributes:
        start: (n,) int64, offset of the row's first byte.
        end: (n,) int64, offset behind its last byte, without the line feed.
        line: (n,) int64, the line the row starts on, or for JSON arrays the number of the element;
            from 1.
        n_fields: (n,) int64 for CSV, the number of fields; below 0 for a record with a fault.
        faults: row -> reason, for faults that show only in the structure of the file.
    """

    start: Int64
    end: Int64
    line: Int64
    n_fields: Int64 | None = None
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
    """Rows are lines. Blank lines count in the numbering; they are dropped when they are read."""

    def __init__(self, offset: int = 0) -> None:
        self._start = self._offset = offset
        self._ends = [np.empty(0, np.int64)]

    def feed(self, chunk: bytes) -> None:
        """Look at the next chunk of the file."""
        self._ends.append(np.flatnonzero(np.frombuffer(chunk, np.uint8) == ord("\n")) + self._offset)
        self._offset += len(chunk)

    def finish(self) -> Spans:
        """Return the rows, at the end of the file."""
        end = np.concatenate(self._ends)
        # bytes behind the last line feed are a row, too
        if (end[-1] + 1 if len(end) else self._start) < self._offset:
            end = np.append(end, self._offset)
        # each row starts behind the line feed that ends the one before it
        start = np.concatenate([[self._start], end[:-1] + 1]) if len(end) else end
        return Spans(start=start, end=end, line=np.arange(1, len(end) + 1, dtype=np.int64))
