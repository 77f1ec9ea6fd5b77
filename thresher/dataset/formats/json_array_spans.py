"""The rows of a JSON array, found without parsing: a state machine over the bytes, compiled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from thresher.dataset.formats.spans import Spans

UNCLOSED_ARRAY = "the JSON array is not closed: the file may be truncated"
AFTER_ARRAY = "text after the end of the JSON array"

_BEFORE, _INSIDE, _AFTER = 0, 1, 2  # phases: of the opening bracket and the closing one
_TAB, _LINE_FEED, _RETURN, _SPACE, _QUOTE, _COMMA, _BACKSLASH = 9, 10, 13, 32, 34, 44, 92  # bytes
_OPEN_BRACKET, _CLOSE_BRACKET, _OPEN_BRACE, _CLOSE_BRACE = 91, 93, 123, 125


class ArrayScanner:
    """Rows are the elements of one JSON array, cut at the commas of its outermost level."""

    def __init__(self, offset: int = 0) -> None:
        self._offset = offset
        self._state = np.array([0, 0, 0, -1, 0, _BEFORE], np.int64)
        self._elements = [np.empty((0, 2), np.int64)]
        self.was_closed = False

    def feed(self, chunk: bytes) -> None:
        """Look at the next chunk of the file."""
        data = np.frombuffer(chunk, np.uint8)
        elements = np.empty((len(data) // 2 + 2, 2), np.int64)
        n = _scan_array(data, self._offset, self._state, elements)
        self._elements.append(elements[:n].copy())
        self._offset += len(chunk)

    def finish(self) -> Spans:
        """Return the rows, at the end of the file."""
        elements = np.concatenate(self._elements)
        _, _, _, start, end, phase = self._state.tolist()
        self.was_closed = phase == _AFTER and start < 0
        faults = {}
        if phase == _INSIDE and start < 0:
            start = end = self._offset  # an empty span, to carry the reason
        # what has begun and not ended is a faulty row: the last element, or text behind the array
        if start >= 0:
            faults[len(elements)] = AFTER_ARRAY if phase == _AFTER else UNCLOSED_ARRAY
            elements = np.concatenate([elements, np.array([[start, end]], np.int64)])
        starts, ends = elements.T.copy()
        return Spans(start=starts, end=ends, line=np.arange(1, len(elements) + 1, dtype=np.int64), faults=faults)


@njit(cache=True)  # type: ignore[untyped-decorator]
def _scan_array(data: Any, offset: int, state: Any, elements: Any) -> int:  # noqa: C901
    """Write start and end of each element that ends here; return how many.

    State is (depth, in string, escaped, start, end, phase), carried from chunk to chunk. Start is
    -1 between two elements; end is behind the last byte of the element that is not white space.
    """
    depth, in_string, escaped, start, end, phase = state
    n = 0
    for i in range(len(data)):
        c = data[i]
        # in a string only its end means anything, and a backslash hides the next byte
        if in_string:
            end = offset + i + 1
            if escaped:
                escaped = 0
            elif c == _BACKSLASH:
                escaped = 1
            elif c == _QUOTE:
                in_string = 0
            continue
        if c in (_SPACE, _LINE_FEED, _RETURN, _TAB):
            continue
        # the first byte is the bracket that opens the array
        if phase == _BEFORE:
            phase = _INSIDE
            continue
        # at the outermost level a comma ends an element, and the bracket also the array
        if phase == _INSIDE and depth == 0 and c in (_COMMA, _CLOSE_BRACKET):
            if start >= 0:
                elements[n, 0] = start
                elements[n, 1] = end
                n += 1
            elif c == _COMMA:  # two commas in a row: an empty element
                elements[n, 0] = offset + i
                elements[n, 1] = offset + i
                n += 1
            start = -1
            if c == _CLOSE_BRACKET:
                phase = _AFTER
            continue
        # any other byte belongs to an element, or to text behind the array
        if start < 0:
            start = offset + i
        end = offset + i + 1
        if phase == _AFTER:
            continue
        if c == _QUOTE:
            in_string = 1
        elif c in (_OPEN_BRACE, _OPEN_BRACKET):
            depth += 1
        elif c in (_CLOSE_BRACE, _CLOSE_BRACKET) and depth > 0:
            depth -= 1
    state[:] = (depth, in_string, escaped, start, end, phase)
    return n
