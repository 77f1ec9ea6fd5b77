"""The rows of a JSON array, found without parsing: a state machine over the bytes, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from thresher.dataset.formats.spans import Positions, Spans

UNCLOSED_ARRAY = "the JSON array is not closed: the file may be cut off"
AFTER_ARRAY = "text after the end of the JSON array"

_BEFORE, _INSIDE, _AFTER = 0, 1, 2  # phases: of the opening bracket and the closing one


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


@njit(cache=True)  # type: ignore[untyped-decorator]
def _scan_array(data: Any, offset: int, state: Any, found: Any) -> int:  # noqa: C901
    """Write the (start, end) of each element that ends in `data`; returns their number.

    State is (depth, in string, escaped, start, end, phase), carried from chunk to chunk.
    """
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
