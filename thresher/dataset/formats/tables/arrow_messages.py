"""What the compressed buffers of an Arrow file say that they expand to.

Arrow makes room for what a buffer declares before it decompresses it. The declarations are the
first 8 bytes of each buffer; where the buffers lie is in the metadata of each message, a
FlatBuffers table (github.com/apache/arrow, "format/Message.fbs", "format/File.fbs").
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

MAGIC = b"ARROW1"
_CONTINUATION = 0xFFFFFFFF
_DICTIONARY_BATCH, _RECORD_BATCH = 2, 3
_MAX_METADATA = 1 << 28


class _Table:
    """A FlatBuffers table: fields by their number, through the table of offsets before it."""

    def __init__(self, content: bytes, place: int) -> None:
        self.content = content
        self.place = place
        self._fields = place - self._read("<i", place)
        self._n_fields = (self._read("<H", self._fields) - 4) // 2

    def _read(self, kind: str, place: int) -> int:
        (value,) = struct.unpack_from(kind, self.content, place)
        return int(value)

    def locate(self, number: int) -> int | None:
        """Return where a field lies; None where it is not set."""
        offset = self._read("<H", self._fields + 4 + 2 * number) if number < self._n_fields else 0
        return self.place + offset if offset else None

    def number(self, number: int, kind: str) -> int:
        """Return a scalar field; 0 where it is not set."""
        place = self.locate(number)
        return 0 if place is None else self._read(kind, place)

    def table(self, number: int) -> _Table | None:
        """Return a field that is a table."""
        place = self.locate(number)
        return None if place is None else _Table(self.content, place + self._read("<I", place))

    def structs(self, number: int, kind: str) -> list[tuple[int, ...]]:
        """Return a field that is a vector of structures."""
        place = self.locate(number)
        if place is None:
            return []
        start = place + self._read("<I", place)
        n_bytes = self._read("<I", start) * struct.calcsize(kind)
        if start + 4 + n_bytes > len(self.content):
            raise ValueError("a vector reaches beyond its message")
        return list(struct.iter_unpack(kind, self.content[start + 4 : start + 4 + n_bytes]))


def sum_declared(path: Path) -> int:
    """Return the bytes that all compressed buffers of an Arrow file or stream expand to.

    Raises:
        ValueError: a message is damaged.
    """
    with path.open("rb") as file:
        try:
            is_file = file.read(len(MAGIC)) == MAGIC
            places = _list_blocks(file) if is_file else _list_messages(file)
            return sum(_sum_message(file, *place) for place in places)
        except (struct.error, IndexError, OverflowError, OSError) as error:
            raise ValueError(f"a damaged message ({error})") from None


def _list_blocks(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield where each message begins, and the body behind it, as the footer says."""
    n_file = file.seek(-10, 2) + 10
    (n_footer,) = struct.unpack("<i", file.read(4))
    file.seek(n_file - 10 - n_footer)
    content = file.read(n_footer)
    footer = _Table(content, struct.unpack_from("<I", content)[0])
    for vector in (2, 3):  # dictionaries, record batches
        for offset, n_metadata, _ in footer.structs(vector, "<qi4xq"):
            yield offset, offset + n_metadata


def _list_messages(file: BinaryIO) -> Iterator[tuple[int, int]]:
    """Yield the same of a stream, whose messages follow one another."""
    place = 0
    while (head := _read_head(file, place)) is not None:
        start, n_metadata = head
        body = start + n_metadata
        yield place, body
        file.seek(start)
        place = body + _Table(*_open_root(file.read(n_metadata))).number(3, "<q")


def _read_head(file: BinaryIO, place: int) -> tuple[int, int] | None:
    """Return where the metadata of a message lies; None at the end of a stream."""
    file.seek(place)
    head = file.read(8)
    if len(head) < 4:
        return None
    first, *rest = struct.unpack("<II", head) if len(head) == 8 else struct.unpack("<I", head)
    # before Arrow 0.15 there was no continuation
    start, n_metadata = (place + 8, rest[0] if rest else 0) if first == _CONTINUATION else (place + 4, first)
    if n_metadata > _MAX_METADATA:
        raise ValueError("the metadata of a message is too large")
    return (start, n_metadata) if n_metadata else None


def _open_root(content: bytes) -> tuple[bytes, int]:
    return content, struct.unpack_from("<I", content)[0]


def _sum_message(file: BinaryIO, place: int, body: int) -> int:
    head = _read_head(file, place)
    if head is None:
        return 0
    file.seek(head[0])
    message = _Table(*_open_root(file.read(head[1])))
    kind, batch = message.number(1, "<B"), message.table(2)
    if batch is not None and kind == _DICTIONARY_BATCH:
        batch = batch.table(1)
    if batch is None or kind not in (_DICTIONARY_BATCH, _RECORD_BATCH) or batch.table(3) is None:
        return 0
    total = 0
    for offset, n_bytes in batch.structs(2, "<qq"):
        if n_bytes >= 8:
            file.seek(body + offset)
            (declared,) = struct.unpack("<q", file.read(8))
            total += max(declared, n_bytes)  # -1: the buffer is stored as it is
    return total
