"""A file of rows as text (JSONL, JSON, CSV): byte spans, parsed in blocks, copied by byte."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from thresher.dataset.formats.files import PlainFile, SourceFile, SpanReader, open_compressed
from thresher.dataset.formats.spans import Spans
from thresher.dataset.rejection import PREVIEW_CHARACTERS, BadRow
from thresher.errors import InputError
from thresher.numeric.arrays import Bool, Int64

BLOCK_BYTES = 4 << 20
WRITTEN_BYTES = 1 << 18  # of short rows, written at once
PIECE_ROWS = 256  # a refused block is tried in pieces; rows of a bad piece are read singly


class RowSyntax(Protocol):
    """How rows are written: `JsonRows` or `CsvRows`."""

    def trim(self, data: NDArray[np.uint8], start: Int64, end: Int64) -> tuple[Int64, Int64]:
        """Return the spans without what surrounds a row; a blank row becomes an empty span."""

    def is_plain(self, data: NDArray[np.uint8], start: Int64, end: Int64, text: bytes) -> Bool:
        """Tell which rows the columnar parser reads as the row parser does: (n,) bool."""

    def table(self, text: bytes, types: Mapping[str, pa.DataType]) -> pa.Table:
        """Parse whole rows into the wanted columns; pyarrow.ArrowInvalid when any is broken."""

    def row(self, text: bytes) -> dict[str, Any]:
        """Parse one row; BadRow says why it cannot be."""

    def parse_exact(self, text: bytes) -> dict[str, Any]:
        """Parse a good row with whole numbers of any size."""

    def encode(self, row: Mapping[str, Any]) -> bytes:
        """Return the bytes of a row, without a line end."""

    def may_name(self, text: bytes, words: Collection[str]) -> bool:
        """Tell whether any row of a text may have a column of these names, in any case."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """How rows are put into a file.

    Attributes:
        compression: ".gz", ".zst", ".bz2" or "".
        before: bytes before the first row: "[" and its white space, or the CSV header with its line
            feed.
        between: bytes between two rows.
        after: bytes after the last row, if there is one.
        closing: bytes at the end of the file.
        line_end: what must be at the end of each row: a carriage return where the file has them,
            else nothing.
    """

    compression: str = ""
    before: bytes = b""
    between: bytes = b"\n"
    after: bytes = b"\n"
    closing: bytes = b""
    line_end: bytes = b""


@dataclass
class TextBlock:
    """Some consecutive rows as bytes.

    Attributes:
        positions: (n,) int64, the rows' positions in the shard.
        lines: (n,) int64, where they are in the user's file, from 1.
        text: bytes that hold the rows.
        start: (n,) int64, where in the text each row starts.
        end: (n,) int64, and ends.
        faults: index in the block -> reason.
        syntax: how a row is written.
        requoted: index in the block -> the row, where the file's bytes are not read as they are.
    """

    positions: Int64
    lines: Int64
    text: bytes
    start: Int64
    end: Int64
    faults: Mapping[int, str]
    syntax: RowSyntax
    requoted: Mapping[int, bytes] = field(default_factory=dict)

    def columns(self, types: Mapping[str, pa.DataType]) -> Iterator[tuple[Int64, pa.Table]]:
        """Yield parts by column, with the indices of their rows; rows left out are read singly."""
        data = np.frombuffer(self.text, np.uint8)
        is_plain = np.ones(len(self.positions), np.bool_)
        is_plain[[*self.faults, *self.requoted]] = False
        at = np.flatnonzero(is_plain)
        at = at[self.syntax.is_plain(data, self.start[at], self.end[at], self.text)]
        whole = self._table(at, types)
        if whole is not None:
            yield at, whole
            return
        for first in range(0, len(at), PIECE_ROWS):
            piece = at[first : first + PIECE_ROWS]
            table = self._table(piece, types)
            if table is not None:
                yield piece, table

    def _table(self, at: Int64, types: Mapping[str, pa.DataType]) -> pa.Table | None:
        """Parse some rows by column; None when any of them cannot be parsed so."""
        if len(at) == 0:
            return None
        text = self._join(at)
        try:
            text.decode()
            table = self.syntax.table(text, types)
        except (UnicodeDecodeError, pa.ArrowInvalid):
            return None
        return table if table.num_rows == len(at) else None

    def _join(self, at: Int64) -> bytes:
        start, end = self.start[at], self.end[at]
        gap = start[1:] - end[:-1]
        if (gap == 1).all():  # lines without anything between: no copy row by row
            first, last = int(start[0]), int(end[-1])
            gaps = np.frombuffer(self.text, np.uint8)[end[:-1]]
            if (gaps == ord("\n")).all():
                return self.text[first:last]
        return b"\n".join(map(self.text.__getitem__, map(slice, start.tolist(), end.tolist())))

    def row(self, index: int) -> dict[str, Any]:
        """Return one row; BadRow when it cannot be read."""
        if index in self.faults:
            raise BadRow(self.faults[index])
        if index in self.requoted:
            return self.syntax.row(self.requoted[index])
        return self.syntax.row(self.text[self.start[index] : self.end[index]])

    def preview(self, index: int) -> str:
        """Return the beginning of one row as text."""
        start = int(self.start[index])
        end = min(int(self.end[index]), start + 4 * PREVIEW_CHARACTERS)
        return self.text[start:end].decode(errors="replace")[:PREVIEW_CHARACTERS]

    def may_name(self, words: Collection[str]) -> bool:
        """Tell whether any row may have a column of these names, whatever their case."""
        return self.syntax.may_name(self.text, words)


class TextShard:
    """One file of rows as text.

    Args:
        file: its plain bytes, already scanned.
        spans: where the rows lie.
        syntax: how a row is written.
        layout: how a file of rows is written.
        suffix: with which a copy is written.
        max_row_bytes: longer rows are rejected unread.
    """

    is_typed = False

    def __init__(
        self, file: PlainFile, spans: Spans, syntax: RowSyntax, layout: Layout, *, suffix: str, max_row_bytes: int
    ) -> None:
        self.name = file.name
        self.suffix = suffix
        self.layout = layout
        self.column_names: Sequence[str] = []
        self.label_names: Mapping[str, tuple[str, ...]] = {}
        self.max_row_bytes = max_row_bytes
        self.has_fixed_columns = False
        self.late_positions: Sequence[int] = ()
        self.advice = ""
        self.notes: Sequence[str] = ()
        self._changed: Mapping[int, dict[str, Any]] = {}
        self._literal = np.empty(0, np.int64)
        self._requote: Callable[[bytes], bytes] | None = None
        self._file = file
        self._spans = spans
        self._syntax = syntax

    @property
    def source(self) -> SourceFile:
        """The file as it was when it was read."""
        return self._file.source

    def requote_rows(self, literal: Int64, requote: Callable[[bytes], bytes]) -> None:
        """Read rows, and write copies of them, as a function rewrites their bytes.

        Args:
            literal: (m,) positions of these rows, ascending.
            requote: takes a row without its line end and returns one that the syntax reads rightly.
        """
        self._literal, self._requote = literal, requote

    def blocks(self, positions: Int64 | None = None, *, columns: Sequence[str] | None = None) -> Iterator[TextBlock]:
        """Yield all rows, or those at ascending positions, in order; blank lines are left out."""
        if positions is None:
            positions = np.arange(len(self._spans), dtype=np.int64)
        start, end = self._spans.start[positions], self._spans.end[positions]
        first = 0
        with self._file.reader() as reader:
            while first < len(positions):
                stop = max(int(np.searchsorted(end, start[first] + BLOCK_BYTES, "right")), first + 1)
                block = self._block(reader, positions[first:stop])
                if len(block.positions):
                    yield block
                first = stop

    def _block(self, reader: SpanReader, positions: Int64) -> TextBlock:
        start, end = self._spans.start[positions], self._spans.end[positions]
        base = int(start[0])
        is_long = end - start > self.max_row_bytes
        if len(positions) == 1 and is_long[0]:  # only its beginning is needed
            end = np.minimum(end, start + 4 * PREVIEW_CHARACTERS)
        text = reader.read(base, int(end[-1]))
        start, end = self._syntax.trim(np.frombuffer(text, np.uint8), start - base, end - base)
        faults = {i: f"the row is longer than {self.max_row_bytes} bytes" for i in np.flatnonzero(is_long).tolist()}
        faults = self._find_faults(positions) | faults
        # blank rows without a fault are left out; faults get the numbers of the rows that are left
        at = np.flatnonzero(start < end)
        if len(at) < len(positions):
            at = np.union1d(at, np.array(sorted(faults), np.int64))
            faults = {int(np.searchsorted(at, i)): reason for i, reason in faults.items()}
        lines = self._spans.line[positions]
        block = TextBlock(positions[at], lines[at], text, start[at], end[at], faults, self._syntax)
        if self._requote is not None:
            literal = np.flatnonzero(np.isin(block.positions, self._literal)).tolist()
            block.requoted = {i: self._requote(text[block.start[i] : block.end[i]]) for i in literal if i not in faults}
        return block

    def _find_faults(self, positions: Int64) -> dict[int, str]:
        """Return index -> reason of what the scanner found among the rows at these positions."""
        faults = {}
        for position, reason in self._spans.faults.items():
            index = int(np.searchsorted(positions, position))
            if index < len(positions) and positions[index] == position:
                faults[index] = reason
        return faults

    def rows(self, positions: Int64) -> list[dict[str, Any]]:
        """Return rows in the order of the positions, changed ones as they are now."""
        rows = []
        for position, text in zip(positions.tolist(), self._read_texts(positions), strict=True):
            try:
                rows.append(self._changed[position] if position in self._changed else self._syntax.parse_exact(text))
            except BadRow as reason:
                raise InputError(
                    f"{self.name}: the file changed while it was being read ({reason}); run again"
                ) from None
        return rows

    def replace_rows(self, changed: Mapping[int, dict[str, Any]]) -> TextShard:
        """Return a shard with other contents at some positions; its file and blocks stay."""
        shard = copy.copy(self)
        shard._changed = {**self._changed, **changed}
        return shard

    @contextmanager
    def open_copy(self, path: Path) -> Iterator[Callable[[TextShard, Int64], None]]:
        """Open a file of this layout and yield a function that appends rows of a shard."""
        layout, is_first = self.layout, True
        with open_compressed(path, layout.compression) as write:

            def copy_rows(shard: TextShard, positions: Int64) -> None:
                nonlocal is_first
                parts: list[bytes] = []
                n_bytes = 0
                for span in shard.read_spans(positions):
                    needs_end = layout.line_end and not span.endswith(layout.line_end)
                    parts += [b"" if is_first else layout.between, span, layout.line_end if needs_end else b""]
                    is_first, n_bytes = False, n_bytes + len(span)
                    if n_bytes > WRITTEN_BYTES:
                        write(b"".join(parts))
                        parts, n_bytes = [], 0
                write(b"".join(parts))

            write(layout.before)
            yield copy_rows
            if not is_first:
                write(layout.after)
            write(layout.closing)

    def read_spans(self, positions: Int64) -> Iterator[bytes]:
        """Yield the bytes of rows in the order of the positions; changed rows are written anew."""
        for position, text in zip(positions.tolist(), self._read_texts(positions), strict=True):
            yield self._syntax.encode(self._changed[position]) if position in self._changed else text

    def _read_texts(self, positions: Int64) -> Iterator[bytes]:
        start, end = self._spans.start[positions].tolist(), self._spans.end[positions].tolist()
        with self._file.reader() as reader:
            texts = map(reader.read, start, end)
            if self._requote is None:
                yield from texts
                return
            for text, is_literal in zip(texts, np.isin(positions, self._literal).tolist(), strict=True):
                yield self._requote(text.removesuffix(b"\r")) if is_literal else text
