"""What the reader asks of a file of rows, whatever its format: shards made of blocks."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from thresher.dataset.formats.files import SourceFile
from thresher.dataset.rejection import BadRow
from thresher.numeric.arrays import Int64

SAMPLE_ROWS, LATE_ROWS = 200, 100  # of the beginning, and of the rest


class Block(Protocol):
    """Some consecutive rows of a shard, in memory.

    Attributes:
        positions: (n,) int64, the rows' positions in the shard.
        lines: (n,) int64, where they are in the user's file, from 1.
    """

    positions: Int64
    lines: Int64

    def columns(self, types: Mapping[str, pa.DataType]) -> Iterator[tuple[Int64, pa.Table]]:
        """Yield parts by column, with the indices of their rows; rows left out are read singly."""

    def row(self, index: int) -> dict[str, Any]:
        """Return one row; BadRow when it cannot be read."""

    def preview(self, index: int) -> str:
        """Return the beginning of one row as text."""

    def may_name(self, words: Collection[str]) -> bool:
        """Tell whether any row may have a column of these names, whatever their case."""


class Shard(Protocol):
    """One file of rows.

    Attributes:
        name: what the column `file` says: the path, or "<stdin>", "<polars>".
        suffix: with which a copy of some rows is written, for example ".jsonl.gz".
        advice: what to do when no schema fits the rows; "" where the file gives no hint.
        notes: what a user should know of how the file was read, one sentence each.
        is_typed: rows come from a table, whose structs have a null for every field they lack.
        has_fixed_columns: all rows have the columns of `column_names`, and no other.
        late_positions: rows spread over the rest of a file whose later rows may have other columns
            than the first ones; none where reading single rows takes long.
    """

    name: str
    suffix: str
    advice: str
    notes: Sequence[str]
    is_typed: bool
    has_fixed_columns: bool
    late_positions: Sequence[int]

    @property
    def source(self) -> SourceFile:
        """The file as it was when it was read."""

    @property
    def column_names(self) -> Sequence[str]:
        """The user's columns, in their order; for JSON, of a sample of the rows."""

    @property
    def layout(self) -> object:
        """Shards of equal layout can be copied into one file."""

    @property
    def label_names(self) -> Mapping[str, tuple[str, ...]]:
        """Names of classes by column, where the file carries them."""

    def blocks(self, positions: Int64 | None = None, *, columns: Sequence[str] | None = None) -> Iterator[Block]:
        """Yield all rows, or those at ascending positions; tables read only the named columns."""

    def rows(self, positions: Int64) -> list[dict[str, Any]]:
        """Return rows in the order of the positions, changed ones as they are now."""

    def replace_rows(self, changed: Mapping[int, dict[str, Any]]) -> Shard:
        """Return a shard with other contents at some positions; its file and blocks stay."""

    def open_copy(self, path: Path) -> AbstractContextManager[Callable[[Any, Int64], None]]:
        """Open a file of this layout and yield a function that appends rows of a shard."""


def sample_rows(shard: Shard) -> list[dict[str, Any]]:
    """Return the first good rows of a shard, and some of the later ones."""
    rows = list(islice(_iterate_rows(shard.blocks()), SAMPLE_ROWS))
    for position in shard.late_positions:
        rows += _iterate_rows(shard.blocks(np.array([position], np.int64)))
    return rows


def _iterate_rows(blocks: Iterable[Block]) -> Iterator[dict[str, Any]]:
    for block in blocks:
        for index in range(len(block.positions)):
            with suppress(BadRow):
                yield block.row(index)
