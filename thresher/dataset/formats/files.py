"""Bytes of the user's files: read once for the hash, decompressed, read again by span."""

from __future__ import annotations

import bz2
import errno
import gzip
import hashlib
import io
import os
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from thresher.artifacts.scratch import make_scratch_folder
from thresher.errors import InputError
from thresher.numeric.arrays import Ints

CHUNK_BYTES = 4 << 20
WINDOW_BYTES = 1 << 20  # read ahead when rows are read in file order
COMPRESSIONS = (".gz", ".zst", ".bz2")
MAX_EXPANSION = 200  # compressed JSON text expands about tenfold; gzip's limit, a bomb, is 1032
MAX_PLAIN_BYTES = 64 << 30
SMALL_PLAIN_BYTES = 64 << 20  # below this no expansion is suspicious
ZSTD_PIECE_BYTES = 16 << 10  # what one piece may expand to is held in memory
STDIN = "<stdin>"


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One input as it was when it was read.

    Attributes:
        path: the path, or a name such as "<stdin>" or "<polars>".
        bytes: size of the file or of the table in memory; None before it was read.
        sha256: of the file's bytes, or of the table's values; None before it was read.
        mtime_ns: time of the last change in nanoseconds; None where there is no file.
    """

    path: str
    bytes: int | None = None
    sha256: str | None = None
    mtime_ns: int | None = None

    @property
    def name(self) -> str:
        """The last part of the path."""
        return os.path.basename(self.path)

    def check_unchanged(self) -> None:
        """Compare the file with what was read.

        Raises:
            InputError: the file's size or time of change is another, or it is gone.
        """
        if self.mtime_ns is None:
            return
        try:
            now = os.stat(self.path)
        except OSError as error:
            raise InputError(f"{self.path}: the file cannot be read again ({error.strerror}); run again") from None
        if (now.st_size, now.st_mtime_ns) != (self.bytes, self.mtime_ns):
            raise InputError(f"{self.path}: the file changed while it was being read; run again")


def allow_expansion(n_bytes: int) -> int:
    """Return the bytes that a file of rows may expand to."""
    return max(SMALL_PLAIN_BYTES, min(MAX_PLAIN_BYTES, n_bytes * MAX_EXPANSION))


def check_expansion(name: str, n_bytes: int, n_plain: int) -> None:
    """Refuse a compressed file that expands as no file of rows does.

    Args:
        name: of the file.
        n_bytes: of it that were read.
        n_plain: bytes they expand to.

    Raises:
        InputError: it is a bomb, or too large to be expanded here.
    """
    allowed = allow_expansion(n_bytes)
    if n_plain > allowed:
        raise InputError(
            f"{name}: the file expands from {n_bytes} to more than {allowed} bytes, which no row file does; "
            f"decompress it yourself if this is intended"
        )


class PlainFile:
    """The plain bytes of one input: the file, or a temporary one when it is compressed or stdin.

    Args:
        path: the user's file; None for a stream.
        compression: one of `COMPRESSIONS`, or "" for none.
        stream: read instead of a path; None for standard input.
        name: of the stream.

    Raises:
        InputError: from every method, when the file cannot be read or decompressed.
    """

    def __init__(
        self, path: Path | None, compression: str, *, stream: IO[bytes] | None = None, name: str = STDIN
    ) -> None:
        self.name = name if path is None else str(path)
        self._stream = stream
        self.source = SourceFile(path=self.name)
        self._path = path
        self._compression = compression
        self.n_plain = 0
        self._plain = path if path is not None and not compression else _new_spool(self)

    def __getstate__(self) -> dict[str, Any]:
        """Return what another process needs; a temporary file goes along, the user's does not."""
        spooled = None if self._plain == self._path else Path(self._plain).read_bytes()
        return {**self.__dict__, "_stream": None, "_plain": self._path, "_spooled": spooled}

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take over in another process."""
        spooled = state.pop("_spooled")
        self.__dict__.update(state)
        if spooled is not None:
            self._plain = _new_spool(self)
            Path(self._plain).write_bytes(spooled)

    def scan(self) -> Iterator[bytes]:
        """Read the input from its start, in chunks of plain bytes; sets `source` at the end."""
        digest = hashlib.sha256()
        with _explain_errors(self.name), self._open_input() as raw:
            before = None if self._path is None else os.fstat(raw.fileno())
            stream = _HashingStream(raw, digest)
            with nullcontext() if self._plain is self._path else open(self._plain, "wb") as spool:
                for chunk in _decompress(stream, self._compression):
                    self.n_plain += len(chunk)
                    if self._compression:
                        check_expansion(self.name, stream.n_bytes, self.n_plain)
                    if spool is not None:
                        spool.write(chunk)
                    yield chunk
            while stream.read(CHUNK_BYTES):  # what a decompressor left is hashed, too
                pass
        self.source = SourceFile(
            path=self.name,
            bytes=stream.n_bytes,
            sha256=digest.hexdigest(),
            mtime_ns=None if before is None else before.st_mtime_ns,
        )
        self.source.check_unchanged()

    def scan_again(self, start: int) -> Iterator[bytes]:
        """Read the plain bytes from an offset to the end, after `scan`."""
        with self.reader() as reader:
            for offset in range(start, self.n_plain, CHUNK_BYTES):
                yield reader.read(offset, min(offset + CHUNK_BYTES, self.n_plain))

    def _open_input(self) -> AbstractContextManager[Any]:
        if self._path is not None:
            return open(self._path, "rb")
        return nullcontext(sys.stdin.buffer if self._stream is None else self._stream)

    @contextmanager
    def reader(self) -> Iterator[SpanReader]:
        """Open the plain bytes for reading by span."""
        with _explain_errors(self.name), open(self._plain, "rb", buffering=0) as file:
            yield SpanReader(file, self.name)


class SpanReader:
    """Reads spans of a file; reads ahead when they come in file order."""

    def __init__(self, file: IO[bytes], name: str) -> None:
        self._descriptor = file.fileno()
        self._name = name
        self._window = b""
        self._window_start = 0

    def read(self, start: int, end: int) -> bytes:
        """Return the bytes from start up to end.

        Raises:
            InputError: the file has become shorter.
        """
        offset = start - self._window_start
        window_end = self._window_start + len(self._window)
        if not (offset >= 0 and end <= window_end):
            # a span that begins in the window, or shortly after it, is read with what follows
            is_next = 0 <= start - window_end <= WINDOW_BYTES // 16 or (offset >= 0 and start <= window_end)
            self._window = self._pread(start, max(end - start, WINDOW_BYTES if is_next else 0))
            self._window_start = start
            offset = 0
        span = self._window[offset : offset + end - start]
        if len(span) != end - start:
            raise InputError(f"{self._name}: the file changed while it was being read; run again")
        return span

    def _pread(self, start: int, n_bytes: int) -> bytes:
        parts = []
        while n_bytes > 0:
            part = os.pread(self._descriptor, n_bytes, start)
            if not part:
                break
            parts.append(part)
            start += len(part)
            n_bytes -= len(part)
        return b"".join(parts)


class _HashingStream(io.RawIOBase):
    """A binary stream that hashes and counts what is read through it."""

    def __init__(self, raw: IO[bytes], digest: Any) -> None:
        self._raw = raw
        self._digest = digest
        self.n_bytes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        chunk = self._raw.read(size)
        self._digest.update(chunk)
        self.n_bytes += len(chunk)
        return chunk

    def readinto(self, buffer: Any) -> int:
        chunk = self.read(len(buffer))
        buffer[: len(chunk)] = chunk
        return len(chunk)


def _decompress(raw: _HashingStream, compression: str) -> Iterator[bytes]:
    if compression == ".zst":
        yield from _decompress_zstd(raw)
        return
    stream: Any = raw
    if compression == ".gz":
        stream = gzip.GzipFile(fileobj=raw)
    elif compression == ".bz2":
        stream = bz2.BZ2File(raw)
    yield from iter(lambda: stream.read(CHUNK_BYTES), b"")


def _decompress_zstd(raw: _HashingStream) -> Iterator[bytes]:
    """Decompress all frames; the library's stream reader takes a cut file for a whole one."""
    import zstandard

    decompressor: Any = zstandard.ZstdDecompressor()
    frame = decompressor.decompressobj()
    is_open = False
    try:
        for piece in iter(lambda: raw.read(ZSTD_PIECE_BYTES), b""):
            rest = piece
            while rest:
                yield frame.decompress(rest)
                rest = frame.unused_data if frame.eof else b""
                is_open = not frame.eof
                if frame.eof:
                    frame = decompressor.decompressobj()
    except zstandard.ZstdError as error:
        raise EOFError(str(error)) from None
    if is_open:
        raise EOFError("it ends in the middle of a frame")


@contextmanager
def open_compressed(path: Path, compression: str) -> Iterator[Callable[[bytes], Any]]:
    """Open a file and yield a `write` that compresses; equal content gives equal bytes."""
    with open(path, "wb") as file:
        if compression == "":
            yield file.write
            return
        if compression == ".gz":
            stream: Any = gzip.GzipFile(filename="", fileobj=file, mode="wb", compresslevel=6, mtime=0)
        elif compression == ".bz2":
            stream = bz2.BZ2File(file, "wb")
        else:
            import zstandard

            stream = zstandard.ZstdCompressor(level=3).stream_writer(file, closefd=False)
        with stream, io.BufferedWriter(stream, WINDOW_BYTES) as buffered:
            yield buffered.write


def _new_spool(owner: object) -> Path:
    return make_scratch_folder(owner) / "plain"


@contextmanager
def _explain_errors(name: str) -> Iterator[None]:
    """Turn what the operating system and the decompressors raise into one sentence."""
    try:
        yield
    except gzip.BadGzipFile:
        raise InputError(f"{name}: gzip is required, found none though its name ends in .gz; rename it") from None
    except OSError as error:
        if error.errno == errno.ENOSPC:
            raise InputError(
                f"{name}: no space for its decompressed bytes in {tempfile.gettempdir()}; "
                "free some or set TMPDIR to a larger disk"
            ) from None
        what = error.strerror or str(error)
        raise InputError(f"{name}: the file must be readable, got '{what}'; check the path and the file") from None
    except (EOFError, zlib.error) as error:
        raise InputError(f"{name}: the compressed file is damaged ({error}); fetch it again") from None


def find_runs(values: Ints) -> Iterator[tuple[int, int]]:
    """Yield (start, stop) of each run of equal values."""
    if len(values) == 0:
        return
    cuts = np.flatnonzero(values[1:] != values[:-1]) + 1
    yield from zip([0, *cuts.tolist()], [*cuts.tolist(), len(values)], strict=True)
