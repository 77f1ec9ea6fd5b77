"""Standard streams that do not end the work: closed ones, full disks and readers that have gone.

What a command says on standard error is for people. Where it cannot be written, as into a log on a
full disk or a pipe whose reader has gone, the work goes on, and its exit code tells how it ended.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

STDOUT, STDERR = 1, 2


class _OfPeople(io.FileIO):
    """A descriptor whose errors are nobody's: what cannot be written is dropped."""

    def write(self, data: Buffer, /) -> int:
        try:
            written = super().write(data)
        except OSError:
            written = None
        return memoryview(data).nbytes if written is None else written


class _OfResults(io.FileIO):
    """A descriptor whose errors say that it is the one that failed."""

    def write(self, data: Buffer, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            error.filename = "standard output"
            raise


def guard_streams() -> None:
    """Open streams that are closed, and let none of them end the work."""
    _open_closed()
    sys.stdout = _wrap(sys.stdout, _OfResults(STDOUT, "wb", closefd=False))
    sys.stderr = _wrap(sys.stderr, _OfPeople(STDERR, "wb", closefd=False))


def _open_closed() -> None:
    """Open null devices where 0, 1 or 2 is closed: else a file of results would get that number."""
    for number in (0, STDOUT, STDERR):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - stays open


def _wrap(stream: TextIO | None, raw: io.FileIO) -> TextIO:
    encoding = "utf-8" if stream is None else stream.encoding
    errors = "backslashreplace" if stream is None else stream.errors
    if stream is not None:
        stream.flush()
    is_line_buffered = raw.fileno() == STDERR or raw.isatty()
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=is_line_buffered)
