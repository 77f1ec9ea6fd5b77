"""The headers of Parquet's pages: how many values and bytes each column really has.

A footer says how large a column is, and a file may say what it likes; a page says what is decoded.
Headers are Thrift structures in the compact protocol (github.com/apache/parquet-format,
"parquet.thrift"; github.com/apache/thrift, "thrift-compact-protocol.md").
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa

from thresher.errors import InputError

DATA, DICTIONARY, DATA_V2 = 0, 2, 3  # kinds of pages
PLAIN, DICTIONARY_ENCODINGS, DELTA_BYTE_ARRAY = 0, (2, 8), 7
_HEADER_BYTES = 1 << 13  # read at once; statistics may make a header longer
_MAX_HEADER_BYTES = 1 << 24
_MAX_DEPTH = 16


@dataclass(frozen=True)
class Page:
    """What a page says.

    Attributes:
        kind: DATA, DICTIONARY or DATA_V2.
        n_plain: bytes once it is decompressed.
        n_stored: bytes in the file.
        n_values: of it, nulls among them.
        encoding: of the values.
        start: where its bytes begin in the file.
    """

    kind: int
    n_plain: int
    n_stored: int
    n_values: int
    encoding: int
    start: int


def scan_pages(file: BinaryIO, column: Any, where: str) -> Iterator[Page]:
    """Yield the pages of a column chunk.

    Args:
        file: a Parquet file.
        column: metadata of pyarrow of the chunk.
        where: name of the file, for messages.

    Raises:
        InputError: a header is damaged, or its page reaches beyond the chunk.
    """
    place = column.data_page_offset
    if column.dictionary_page_offset is not None and 0 < column.dictionary_page_offset < place:
        place = column.dictionary_page_offset
    end = place + column.total_compressed_size
    n_values = 0
    while place < end and n_values < column.num_values:
        page = _read_header(file, place, where)
        place = page.start + page.n_stored
        if page.n_stored < 0 or page.n_plain < 0 or page.n_values < 0 or place > end:
            raise InputError(f"{where}: a whole Parquet file is required, found a page that reaches beyond its column")
        n_values += page.n_values if page.kind in (DATA, DATA_V2) else 0
        yield page


def _read_header(file: BinaryIO, place: int, where: str) -> Page:
    n_bytes = _HEADER_BYTES
    while True:
        file.seek(place)
        content = file.read(n_bytes)
        try:
            fields, n_header = _read_struct(content, 0, 0)
            break
        except IndexError:
            # the header is longer than what was read
            if n_bytes >= _MAX_HEADER_BYTES or len(content) < n_bytes:
                raise InputError(f"{where}: a whole Parquet file is required, found a damaged page header") from None
            n_bytes *= 8
    try:
        kind = fields[1]
        about = fields.get({DATA: 5, DICTIONARY: 7, DATA_V2: 8}.get(kind, 0), {1: 0})
        encoding = about.get(4 if kind == DATA_V2 else 2, PLAIN)
        return Page(kind, fields[2], fields[3], about[1], encoding, place + n_header)
    except (KeyError, AttributeError):
        raise InputError(f"{where}: a whole Parquet file is required, found a damaged page header") from None


def _read_struct(content: bytes, place: int, depth: int) -> tuple[dict[int, Any], int]:
    """Return the fields of a structure by their ids, and where it ends; IndexError if too short."""
    if depth > _MAX_DEPTH:
        return {}, place
    fields: dict[int, Any] = {}
    number = 0
    while (head := content[place]) != 0:
        place += 1
        kind, step = head & 15, head >> 4
        if step:
            number += step
        else:
            zigzag, place = _read_varint(content, place)
            number = (zigzag >> 1) ^ -(zigzag & 1)
        fields[number], place = _read_value(content, place, kind, depth)
    return fields, place + 1


def _read_value(content: bytes, place: int, kind: int, depth: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true, false
        return kind == 1, place
    if kind == 3:
        return content[place], place + 1
    if kind in (4, 5, 6):  # whole numbers, in zigzag
        value, place = _read_varint(content, place)
        return (value >> 1) ^ -(value & 1), place
    if kind == 7:
        return None, place + 8
    if kind == 8:
        n_bytes, place = _read_varint(content, place)
        if place + n_bytes > len(content):
            raise IndexError
        return None, place + n_bytes
    if kind == 12:
        return _read_struct(content, place, depth + 1)
    raise IndexError  # lists and maps: page headers have none


def _read_varint(content: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 64:
        byte = content[place]
        place += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, place
        shift += 7
    raise IndexError


def find_longest(file: BinaryIO, page: Page, codec: str) -> int:
    """Return the bytes of the longest text in a dictionary page; of the page if it is not readable.

    Args:
        file: a Parquet file.
        page: a dictionary page of byte arrays.
        codec: its compression, as pyarrow names it.
    """
    file.seek(page.start)
    content = file.read(page.n_stored)
    try:
        if codec != "UNCOMPRESSED":
            codec = {"LZ4": "LZ4_RAW"}.get(codec, codec).lower()
            content = pa.Codec(codec).decompress(content, decompressed_size=page.n_plain, asbytes=True)
    except (OSError, ValueError, pa.ArrowException):
        return page.n_plain
    longest = place = 0
    for _ in range(page.n_values):
        n_bytes = int.from_bytes(content[place : place + 4], "little")
        longest = max(longest, n_bytes)
        place += 4 + n_bytes
    return min(longest, page.n_plain)
