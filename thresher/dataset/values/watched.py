"""What columns hold that are not read, over all rows of a file: marks, pictures, names of splits.

A column is watched for its name. Of its values one of each kind is kept, with the number of rows.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from thresher.dataset.formats.shard import Block, Shard
from thresher.dataset.schema import Schema
from thresher.dataset.values.marks import MARK_NAMES, REJECTED_PREFIX, parse_mark
from thresher.dataset.values.series import to_series
from thresher.numeric.arrays import Int64

PARTS = frozenset(
    {
        *("image", "images", "image_path", "image_paths", "image_url", "image_urls", "img", "imgs"),
        *("video", "videos", "video_path", "video_paths", "audio", "audios", "audio_path", "audio_paths"),
    }
)
GRADES = frozenset(
    prefix + name for name in ("correct", "passed", "accepted", "valid", "verified") for prefix in ("", "is_")
)
RATINGS = frozenset({"rating", "ratings", "stars", "star_rating"})  # beside plain text
SPLITS = frozenset({"split", "splits", "data_split", "subset", "partition"})
WATCHED = MARK_NAMES | PARTS | GRADES | RATINGS | SPLITS
_LONGEST_NAME = 30  # characters of a split
_MOST_LAYOUTS = 1_000  # sets of columns that are remembered


@dataclass
class ColumnValues:
    """The values of one column in the usable rows of a file.

    Attributes:
        examples: a value of each kind: each mark is one, each short text of a column of splits; all
            other texts are one, all numbers, all lists, all objects.
        counts: how many rows have each kind.
    """

    examples: dict[Hashable, Any] = field(default_factory=dict)
    counts: dict[Hashable, int] = field(default_factory=dict)

    @property
    def values(self) -> list[Any]:
        """The examples."""
        return list(self.examples.values())

    def add(self, value: Any, n: int, *, is_split: bool) -> None:
        """Count n rows with a value; none for null and an empty one."""
        if value is None or (isinstance(value, str | list | dict) and not value):
            return
        kind: tuple[Any, ...] = (type(value),)
        is_short = is_split and isinstance(value, str) and len(value) <= _LONGEST_NAME
        if is_short or (not isinstance(value, list | dict) and parse_mark(value) is not None):
            kind = (type(value), value)
        self.examples.setdefault(kind, value)
        self.counts[kind] = self.counts.get(kind, 0) + n


class ColumnWatch:
    """Collects the values of the watched columns of one file, row by row or by column.

    Args:
        shard: the file.
        schema: by which its rows are read; what it reads is not watched.
    """

    def __init__(self, shard: Shard, schema: Schema) -> None:
        self.columns: dict[str, ColumnValues] = {}
        self._read = frozenset(schema.column_names)
        self._is_fixed = shard.has_fixed_columns
        self._names: dict[tuple[str, ...], list[str]] = {}
        self._words = _list_words(schema)
        self.column_names = tuple(self._list_watched(tuple(shard.column_names)))

    @property
    def fixed_columns(self) -> Sequence[str]:
        """The watched columns where the file has the same ones in all rows, else none."""
        return self.column_names if self._is_fixed else ()

    def add_row(self, row: Mapping[str, Any]) -> None:
        """Take the values of a usable row that was read singly."""
        keys = tuple(row)
        names = self._names.get(keys)
        if names is None:
            names = self._list_watched(keys)
            if len(self._names) < _MOST_LAYOUTS:
                self._names[keys] = names
        for name in names:
            self._add(name, row[name], 1)

    def add_part(self, block: Block, table: pa.Table, at: Int64, used: Int64) -> None:
        """Take the values of usable rows that were read by column.

        Args:
            block: of the rows.
            table: some rows of it; the watched columns are in it where the file's are fixed.
            at: place in the block of each row of the table.
            used: the usable rows of the table.
        """
        if not self._is_fixed:
            if block.may_name(self._words):
                for index in at[used].tolist():
                    self.add_row(block.row(index))
            return
        for name in self.column_names:
            if name in table.column_names:
                column = table[name] if len(used) == table.num_rows else table[name].take(pa.array(used))
                for value, n in _count_values(column):
                    self._add(name, value, n)

    def _list_watched(self, names: Iterable[str]) -> list[str]:
        folded = ((name, name.casefold()) for name in names if name not in self._read)
        return [name for name, word in folded if word in self._words or word.startswith(REJECTED_PREFIX)]

    def _add(self, name: str, value: Any, n: int) -> None:
        if name not in self.columns:
            self.columns[name] = ColumnValues()
        self.columns[name].add(value, n, is_split=name.casefold() in SPLITS)


def _list_words(schema: Schema) -> frozenset[str]:
    """Return the names that mean something beside a schema: beside a class few of them do."""
    if schema.kind == "classification":
        return SPLITS | PARTS | {name for name in MARK_NAMES if name.startswith("kto")}
    words = WATCHED - (RATINGS if schema.kind == "sft" else GRADES)
    return words | {REJECTED_PREFIX}


def _count_values(column: pa.ChunkedArray) -> Iterable[tuple[Any, int]]:
    """Return the values of a column with their numbers; of nested ones only how many are filled."""
    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        import pyarrow.compute as pc  # takes as long as reading a thousand rows

        return [([True], pc.sum(pc.fill_null(pc.greater(pc.list_value_length(column), 0), False)).as_py() or 0)]
    if pa.types.is_nested(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [({"": True}, len(column) - column.null_count)]
    return to_series(column, "value").value_counts().iter_rows()
