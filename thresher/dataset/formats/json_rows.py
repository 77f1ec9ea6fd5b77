"""Rows that are JSON objects, as bytes."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import numpy as np
import orjson
import polars as pl
import pyarrow as pa
import pyarrow.json
from numpy.typing import NDArray

from thresher.artifacts.json_text import parse_json
from thresher.dataset.rejection import NOT_UTF8, BadRow, describe_type
from thresher.numeric.arrays import Bool, Int64

BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_DEEP = 900  # brackets; the row parser reads 1024 levels
_IS_SPACE = np.zeros(256, np.bool_)
_IS_SPACE[list(b" \t\r\n")] = True


class RowWithNan(dict[str, Any]):
    """A row that holds NaN or Infinity: usable where no column that is read holds them."""


class JsonRows:
    """JSON objects."""

    def trim(self, data: NDArray[np.uint8], start: Int64, end: Int64) -> tuple[Int64, Int64]:
        """Return the spans without white space around them; a blank row becomes an empty span."""
        start, end = start.copy(), end.copy()
        at = np.flatnonzero(start < end)
        while len(at):
            at = at[_IS_SPACE[data[end[at] - 1]]]
            end[at] -= 1
            at = at[start[at] < end[at]]
        at = np.flatnonzero(start < end)
        while len(at):
            at = at[_IS_SPACE[data[start[at]]]]
            start[at] += 1
            at = at[start[at] < end[at]]
        return start, end

    def is_plain(self, data: NDArray[np.uint8], start: Int64, end: Int64, text: bytes) -> Bool:
        """Tell which rows the columnar parser reads as the row parser does: (n,) bool.

        Rows that begin and end with braces cannot run into one another. NaN and Infinity, which the
        columnar parser takes for numbers, are left to the row parser, and so is what may be nested
        deeper than that one reads.
        """
        is_plain: Bool = (data[start] == ord("{")) & (data[end - 1] == ord("}"))
        is_plain &= _n_brackets(data, start, end) < _DEEP
        if not len(start):
            return is_plain
        for word in (b"NaN", b"Inf"):
            for offset in _occurrences(text, word):
                is_plain[max(int(np.searchsorted(start, offset, "right")) - 1, 0)] = False
        return is_plain

    def table(self, text: bytes, types: Mapping[str, pa.DataType]) -> pa.Table:
        """Parse whole rows, divided by line feeds or white space, into the wanted columns.

        Raises:
            pyarrow.ArrowInvalid: a row is broken, or a value is of another type.
        """
        return pyarrow.json.read_json(
            pa.py_buffer(text),
            read_options=pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
            parse_options=pyarrow.json.ParseOptions(
                explicit_schema=pa.schema(list(types.items())),
                newlines_in_values=True,
                unexpected_field_behavior="ignore",
            ),
        )

    def row(self, text: bytes) -> dict[str, Any]:
        """Parse one row; BadRow says why it cannot be."""
        try:
            row = parse_json(text)
        except orjson.JSONDecodeError as error:
            row = _parse_nan(text)
            if row is None:
                raise BadRow(_fault(text, str(error))) from None
        if not isinstance(row, dict):
            raise BadRow(f"a row must be a JSON object, found {describe_type(row)}")
        return row

    def parse_exact(self, text: bytes) -> dict[str, Any]:
        """Parse a good row with whole numbers of any size."""
        try:
            row = json.loads(text)
        except (ValueError, RecursionError):  # too deep or too long a number for json
            return self.row(text)
        return row if isinstance(row, dict) else self.row(text)

    def encode(self, row: Mapping[str, Any]) -> bytes:
        """Return one object on one line, without a line end."""
        return json.dumps(row, ensure_ascii=False).encode()

    def may_name(self, text: bytes, words: Collection[str]) -> bool:
        """Tell whether any row of a text may have a column of these names, in any case.

        A word that ends in "_" stands for all names that begin so. A name with escapes, which no
        writer of JSON makes of these, is not seen.
        """
        quoted = [f'"{word}' if word.endswith("_") else f'"{word}"' for word in words]
        series = pl.Series([text.decode(errors="replace")])
        return bool(series.str.contains_any(quoted, ascii_case_insensitive=True)[0])


def _occurrences(text: bytes, word: bytes) -> Iterable[int]:
    at = text.find(word)
    while at >= 0:
        yield at
        at = text.find(word, at + len(word))


def _n_brackets(data: NDArray[np.uint8], start: Int64, end: Int64) -> Int64:
    """Return the number of opening brackets in each row: (n,)."""
    at = np.flatnonzero((data == ord("{")) | (data == ord("[")))
    n: Int64 = np.searchsorted(at, end) - np.searchsorted(at, start)
    return n


def _fault(text: bytes, error: str) -> str:
    """Say why a row is not JSON, without what is particular to the row."""
    if text.startswith(BYTE_ORDER_MARK):
        return "the row is preceded by a byte order mark"
    if b"\0" in text:
        return "the row holds a NUL byte"
    try:
        text.decode()
    except UnicodeDecodeError:
        return NOT_UTF8
    return f"broken JSON: {error.split(':')[0]}"


def _parse_nan(text: bytes) -> Any:
    """Return a row that is JSON but for NaN and Infinity; None for any other."""
    plain = text
    for word in (b"NaN", b"Infinity"):
        plain = plain.replace(b"-" + word, word).replace(word, b"0")
    if plain == text or b"\0" in text or not _is_json(plain):
        return None
    try:
        row = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return RowWithNan(row) if isinstance(row, dict) else row


def _is_json(text: bytes) -> bool:
    try:
        orjson.loads(text)
    except orjson.JSONDecodeError:
        return False
    return True
