"""Rows that are CSV records, as bytes."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from thresher.dataset.formats.json_rows import BYTE_ORDER_MARK
from thresher.dataset.rejection import NOT_UTF8, BadRow
from thresher.numeric.arrays import Bool, Int64

DELIMITERS = ",;\t|"


class CsvRows:
    """CSV records with a fixed header; every value is text.

    Args:
        header: names of the columns.
        delimiter: between the fields.
    """

    def __init__(self, header: Sequence[str], delimiter: str) -> None:
        self.header = list(header)
        self.delimiter = delimiter

    def trim(self, data: NDArray[np.uint8], start: Int64, end: Int64) -> tuple[Int64, Int64]:
        """Return the spans without the carriage return before the line feed."""
        end = end.copy()
        at = np.flatnonzero(start < end)
        at = at[data[end[at] - 1] == ord("\r")]
        end[at] -= 1
        return start, end

    def is_plain(self, data: NDArray[np.uint8], start: Int64, end: Int64, text: bytes) -> Bool:
        """Tell which rows the columnar parser reads as the row parser does: (n,) bool."""
        is_plain: Bool = data[start] != BYTE_ORDER_MARK[0]
        return is_plain

    def table(self, text: bytes, types: Mapping[str, pa.DataType]) -> pa.Table:
        """Parse whole records into the wanted columns, all as text.

        Raises:
            pyarrow.ArrowInvalid: a record has another number of fields.
        """
        names = [name for name in self.header if name in types]
        return pyarrow.csv.read_csv(
            pa.py_buffer(text),
            read_options=pyarrow.csv.ReadOptions(column_names=self.header, use_threads=False, block_size=len(text) + 1),
            parse_options=pyarrow.csv.ParseOptions(delimiter=self.delimiter, newlines_in_values=True),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.string()), include_columns=names, strings_can_be_null=False
            ),
        )

    def row(self, text: bytes) -> dict[str, Any]:
        """Parse one record; BadRow says why it cannot be."""
        if text.startswith(BYTE_ORDER_MARK):
            raise BadRow("the row is preceded by a byte order mark")
        if b"\0" in text:
            raise BadRow("the row holds a NUL byte")
        try:
            values = parse_record(text.decode(), self.delimiter)
        except UnicodeDecodeError:
            raise BadRow(NOT_UTF8) from None
        except csv.Error as error:
            raise BadRow(f"broken CSV: {error}") from None
        if len(values) != len(self.header):
            raise BadRow(describe_ragged(len(self.header), len(values)))
        return dict(zip(self.header, values, strict=True))

    parse_exact = row  # every value is text

    def encode(self, row: Mapping[str, Any]) -> bytes:
        """Return one record, quoted where it must be, without a line end."""
        line = io.StringIO()
        ends = "\r\n"  # the writer quotes fields that hold one of these characters
        csv.writer(line, delimiter=self.delimiter, lineterminator=ends).writerow([row[name] for name in self.header])
        return line.getvalue().removesuffix(ends).encode()

    def may_name(self, text: bytes, words: Collection[str]) -> bool:
        """Tell whether any row of a text may have a column of these names, in any case."""
        return any(name.casefold() in words for name in self.header)


def describe_ragged(expected: int, found: int) -> str:
    """Return the reason of a record with another number of fields than the header."""
    return f"a row must have {expected} fields like the header, found {found}"


def parse_record(text: str, delimiter: str) -> list[str]:
    """Return the fields of one CSV record."""
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    return next(csv.reader([text], delimiter=delimiter), [""])


def guess_delimiter(header: str) -> str:
    """Return the delimiter that occurs most often in the header, a comma when none does."""
    return max(DELIMITERS, key=header.count)
