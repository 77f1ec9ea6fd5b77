"""Dataset: canonical columns in memory, and the place of each row in the user's files."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

import numpy as np
import polars as pl

from thresher.dataset.canonical import build_conversation
from thresher.dataset.columns import read_column
from thresher.dataset.conversation import Conversation
from thresher.dataset.formats.copy_rows import write_rows
from thresher.dataset.formats.files import SourceFile
from thresher.dataset.formats.shard import Shard
from thresher.dataset.rejection import BadRow, count_values
from thresher.dataset.row_id import hash_row_ids
from thresher.dataset.schema import Schema
from thresher.dataset.values.class_names import decode_rows
from thresher.dataset.values.frames import to_pandas
from thresher.errors import InputError, NotFoundError, RowIndexError, did_you_mean
from thresher.numeric.arrays import Array, Int32, Int64, Ints
from thresher.printable import escape_html, escape_line, render_table

if TYPE_CHECKING:
    import datasets
    import pandas as pd

Indices = Sequence[int] | Ints | pl.Series
_ROWS_AT_ONCE = 1_000


@dataclass(frozen=True, kw_only=True)
class SourceReading:
    """How one of several sources was read.

    Attributes:
        name: as the user named it.
        schema: of its own columns.
        column_names: the columns that it has.
        n_files: number of its files.
        n_read: its rows, usable or not.
        rejected: its rows that cannot be used, by reason.
    """

    name: str
    schema: Schema
    column_names: tuple[str, ...]
    n_files: int
    n_read: int
    rejected: Mapping[str, int]


@dataclass(frozen=True, kw_only=True, repr=False, eq=False)
class Dataset:
    """Rows in one canonical format. Made by `thresher.load`; a view by `take` shares the files.

    Attributes:
        schema: which of the user's columns are read, and how.
        frame: one row per usable row: row_id, prompt, response, file, line.
        rejected: the rows that cannot be used: file, line, reason, preview.
        n_read: number of rows that were read, usable or not.
        shards: the files.
        shard: (n,) int32, which of them each row is in.
        position: (n,) int64, where it is there.
        notes: what a user should know of how they were read, one sentence each.
        file_notes: those of them that are about what single files hold.
        decoded_columns: those whose numbers mean other classes in other files: read by name.
        readings: how each source was read, of several side by side; empty for a single one.
        given: features that the user brought, by name, (n, ...) each (`dataset.values.given`).
    """

    schema: Schema
    frame: pl.DataFrame
    rejected: pl.DataFrame
    n_read: int
    shards: tuple[Shard, ...] = field()
    shard: Int32
    position: Int64
    notes: tuple[str, ...] = ()
    file_notes: tuple[str, ...] = ()
    decoded_columns: frozenset[str] = frozenset()
    readings: tuple[SourceReading, ...] = ()
    given: Mapping[str, Array] = field(default_factory=dict)
    _columns: dict[str, pl.Series] = field(default_factory=dict)

    def __len__(self) -> int:
        """Return the number of usable rows."""
        return len(self.frame)

    def __repr__(self) -> str:
        """Return the kind, the schema, the numbers of rows and the files."""
        names = [shard.source.name for shard in self.shards]
        files = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
        rejected = f", {len(self.rejected)} rejected" if len(self.rejected) else ""
        return escape_line(
            f"Dataset({len(self)} rows{rejected}, kind={self.kind!r}, schema={self.schema.name!r}, files={files})"
        )

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the user's own rows, parsed; the files are read in parts."""
        for start in range(0, len(self), _ROWS_AT_ONCE):
            yield from self.rows(range(start, min(start + _ROWS_AT_ONCE, len(self))))

    @overload
    def __getitem__(self, key: int | np.integer[Any]) -> dict[str, Any]: ...
    @overload
    def __getitem__(self, key: str) -> pl.Series: ...
    @overload
    def __getitem__(self, key: slice | Indices) -> Dataset: ...
    def __getitem__(self, key: Any) -> Any:
        """Return a row by its number, a column by its name, or some rows as a Dataset.

        Raises:
            NotFoundError: there is no such column.
            InputError: there are not so many rows, or the key is none of these.
        """
        if isinstance(key, str):
            return self.column(key)
        if isinstance(key, slice):
            return self.take(range(*key.indices(len(self))))
        if isinstance(key, int | np.integer) and not isinstance(key, bool):
            if not -len(self) <= key < len(self):
                raise RowIndexError(f"row {key}: there are {len(self)} rows, numbered from 0; give a smaller number")
            return self.rows([int(key) % len(self)])[0]
        at = np.asarray(key)
        return self.take(np.flatnonzero(at) if at.dtype == np.bool_ and at.shape == (len(self),) else key)

    def head(self, n: int = 5) -> pl.DataFrame:
        """Return the user's own columns of the first rows."""
        return self[: max(n, 0)].to_polars()

    @property
    def columns(self) -> list[str]:
        """The user's columns, in their order."""
        return self.column_names

    def to_polars(self) -> pl.DataFrame:
        """Return the user's own columns: (n, columns); values of mixed types as JSON text."""
        return pl.DataFrame([self.column(name).alias(name) for name in self.column_names])

    def to_pandas(self) -> pd.DataFrame:
        """Return the user's own columns as a pandas table.

        Raises:
            MissingExtraError: pandas is not installed.
        """
        return to_pandas(self.to_polars(), needed_by="Dataset.to_pandas")

    def to_datasets(self) -> datasets.Dataset:
        """Return the rows as a Hugging Face `datasets.Dataset`.

        Raises:
            MissingExtraError: `datasets` is not installed.
            InputError: a column holds values of several types.
        """
        from thresher.dataset.hub import to_hub_dataset

        return to_hub_dataset(self, needed_by="Dataset.to_datasets")

    def _repr_html_(self) -> str:
        """Return the counts and the first rows as HTML; all text is escaped."""
        head = self.head()
        return f"<p>{escape_html(repr(self))}</p>{render_table(head.columns, head.rows())}"

    @property
    def kind(self) -> str:
        """What the rows are for: "sft", "classification" or "text"."""
        return self.schema.kind

    @property
    def id_column(self) -> str | None:
        """The user's column that names the rows; None when a hash of their content does."""
        return self.schema.id_column

    @property
    def sources(self) -> list[SourceFile]:
        """The files as they were when they were read."""
        return [shard.source for shard in self.shards]

    @cached_property
    def column_names(self) -> list[str]:
        """The user's columns, in their order."""
        return list(dict.fromkeys(name for shard in self.shards for name in shard.column_names))

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the row ids: the same for the same rows in any file and order."""
        return hash_row_ids(self.frame["row_id"])

    @property
    def n_rejected(self) -> int:
        """Number of rows that cannot be used."""
        return len(self.rejected)

    @property
    def rejected_by_reason(self) -> dict[str, int]:
        """How many rows cannot be used, by reason, the most frequent first."""
        return count_values(self.rejected["reason"])

    def texts(self) -> pl.Series:
        """Return what an encoder reads: (n,) prompt and response, but never a label."""
        if self.kind == "classification":
            return self.frame["prompt"].alias("text")
        if self.kind == "text":
            return self.frame["response"].alias("text")
        return self.frame.select(pl.concat_str("prompt", "response", separator="\n").alias("text")).to_series()

    def column(self, name: str) -> pl.Series:
        """Return one of the user's columns: (n,), null where a row lacks it.

        Values of mixed or nested types come as JSON text.

        Raises:
            NotFoundError: no row has this column.
        """
        if name not in self._columns:
            column = read_column(self.shards, self.shard, self.position, name, self.decoded_columns)
            if column is None:
                known = ", ".join(self.column_names)
                raise NotFoundError(
                    f"column '{name}' not found; there are: {known}{did_you_mean(name, self.column_names)}"
                )
            self._columns[name] = column
        return self._columns[name]

    def rows(self, indices: Indices) -> list[dict[str, Any]]:
        """Return the user's own rows, parsed, in the order of the indices.

        Where files name the classes of a column differently, the names stand for the numbers.
        """
        at = self._check_indices(indices)
        rows: list[dict[str, Any]] = [{}] * len(at)
        for number in np.unique(self.shard[at]).tolist():
            mine = np.flatnonzero(self.shard[at] == number)
            shard = self.shards[number]
            own = decode_rows(shard.rows(self.position[at[mine]]), shard.label_names, self.decoded_columns)
            for i, row in zip(mine.tolist(), own, strict=True):
                rows[i] = row
        return rows

    def messages(self, indices: Indices) -> list[Conversation]:
        """Return rows as conversations, in the order of the indices.

        Raises:
            InputError: the rows are not of kind "sft", or a file changed since it was read.
        """
        if self.kind != "sft":
            raise InputError(f"messages: rows of kind 'sft' are required, got '{self.kind}'; use frame or rows")
        rows, shard = self.rows(indices), self.shard[self._check_indices(indices)].tolist()
        try:
            return [
                build_conversation(row, self.schema, is_typed=self.shards[number].is_typed)
                for row, number in zip(rows, shard, strict=True)
            ]
        except BadRow as reason:
            raise InputError(f"messages: a file changed since it was read ({reason}); run again") from None

    def take(self, indices: Indices) -> Dataset:
        """Return the rows at these indices, in this order; nothing is read.

        The view counts as read what it holds, and nothing as rejected.
        """
        at = self._check_indices(indices)
        return replace(
            self,
            frame=self.frame[at],
            rejected=self.rejected.clear(),
            n_read=len(at),
            shard=self.shard[at],
            position=self.position[at],
            given={name: values[at] for name, values in self.given.items()},
            _columns={name: column.gather(at) for name, column in self._columns.items()},
        )

    def write(self, indices: Indices, folder: str | Path, stem: str) -> Path:
        """Write rows to one file in the user's own format, in the order of the indices.

        Rows of text files are copied byte for byte. Files of different formats are written as JSON
        lines.

        Args:
            indices: which rows.
            folder: an existing folder.
            stem: name of the file, without the suffix.

        Returns:
            The path of the file.

        Raises:
            InputError: a file changed since it was read.
        """
        at = self._check_indices(indices)
        return write_rows(self.shards, self.shard[at], self.position[at], Path(folder), stem, self.decoded_columns)

    def _check_indices(self, indices: Indices) -> Int64:
        at = np.asarray(indices)
        if at.dtype == np.bool_ or (len(at) and not np.issubdtype(at.dtype, np.integer)):
            raise InputError(f"indices must be whole numbers, got {at.dtype}")
        at = at.astype(np.int64)
        if len(at) and not (at.min() >= 0 and at.max() < len(self)):
            raise InputError(f"indices must be in 0..{len(self) - 1}, got {at.min()}..{at.max()}")
        return at
