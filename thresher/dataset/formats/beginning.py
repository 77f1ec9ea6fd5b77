"""The first bytes of a text file: what kind of file they are, and those that are no text at all."""

from __future__ import annotations

from collections.abc import Iterator

from thresher.dataset.formats.files import PlainFile
from thresher.dataset.formats.json_rows import BYTE_ORDER_MARK
from thresher.dataset.formats.spans import Scanner, Spans
from thresher.errors import InputError

SNIFFED_BYTES = 4096  # at least so many are read to tell what a file is
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff")
_COMPRESSED = {b"\x1f\x8b\x08": ("gzip", ".gz"), b"\x28\xb5\x2f\xfd": ("zstd", ".zst"), b"BZh": ("bzip2", ".bz2")}
_OTHER_KINDS = {
    b"PK\x03\x04": "a zip archive or an Excel workbook: unpack it, or save the sheet as CSV",
    b"\xd0\xcf\x11\xe0": "an Excel workbook: save the sheet as CSV",
    b"\xfd7zXZ\x00": "xz: decompress it with xz -d",
    b"PAR1": "Parquet: rename it to end in .parquet",
    b"ARROW1": "an Arrow file: rename it to end in .arrow",
    b"version https://git-lfs": "a Git LFS pointer: fetch the file with git lfs pull",
    b"<!DOCTYPE html": "a web page: download the file itself",
    b"<html": "a web page: download the file itself",
    b"\x80\x04": "a Python pickle: save the rows as JSON lines",
}


class Beginning:
    """Feeds a scanner that is chosen once the first bytes are known.

    Args:
        file: not read yet.
        compression: that the name of the file tells, or "".

    Raises:
        InputError: the bytes are not those of a text file in UTF-8.
    """

    def __init__(self, file: PlainFile, compression: str) -> None:
        self.file = file
        self.chunks = file.scan()
        self.first = b""
        while len(self.first) < SNIFFED_BYTES and (chunk := next(self.chunks, None)) is not None:
            self.first += chunk
        _refuse_other_kinds(self.first, file.name, compression)
        _refuse_utf16(self.first[:SNIFFED_BYTES], file.name)
        self.offset = len(BYTE_ORDER_MARK) if self.first.startswith(BYTE_ORDER_MARK) else 0
        self.head = self.first[self.offset :]

    def skip(self, n_bytes: int) -> None:
        """Leave out the first bytes of what is left."""
        self.offset += n_bytes
        self.head = self.head[n_bytes:]

    def rest(self) -> Iterator[bytes]:
        """Yield the bytes from the offset on."""
        yield self.head
        yield from self.chunks

    def scan(self, scanner: Scanner) -> Spans:
        """Feed the whole file to a scanner."""
        for chunk in self.rest():
            scanner.feed(chunk)
        return scanner.finish()

    def refuse_carriage_returns(self) -> None:
        """Refuse a file whose lines end in carriage returns alone.

        Raises:
            InputError: it has no line feed, but carriage returns between its lines.
        """
        if b"\r" in self.head.strip() and b"\n" not in self.head:
            raise InputError(
                f"{self.file.name}: lines must end in a line feed, found bare carriage returns, as on old Macs; "
                f"convert the file with: tr '\\r' '\\n' < FILE > NEW"
            )


def _refuse_other_kinds(first: bytes, name: str, compression: str) -> None:
    for start, (kind, suffix) in _COMPRESSED.items():
        if first.startswith(start) and suffix != compression:
            raise InputError(f"{name}: the name must tell how a file is compressed, found {kind}; add {suffix} to it")
    for start, kind in _OTHER_KINDS.items():
        if first.startswith(start):
            raise InputError(f"{name}: a text file is required, found {kind}")


def _refuse_utf16(first: bytes, name: str) -> None:
    if first.startswith(_UTF16_MARKS):
        raise InputError(
            f"{name}: the file must be UTF-8, found a UTF-16 or UTF-32 byte order mark; "
            "convert it with: iconv -f UTF-16 -t UTF-8 FILE > NEW"
        )
    # letters of Latin scripts have a NUL as their upper byte
    n_pairs = len(first) // 2
    for at, encoding in ((1, "UTF-16LE"), (0, "UTF-16BE")):
        if n_pairs >= SNIFFED_BYTES // 512 and 2 * first[at::2].count(0) > n_pairs > 2 * first[1 - at :: 2].count(0):
            raise InputError(
                f"{name}: the file must be UTF-8, found what looks like {encoding}; "
                f"convert it with: iconv -f {encoding} -t UTF-8 FILE > NEW"
            )
