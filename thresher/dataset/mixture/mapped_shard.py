"""A file in the columns of another schema: roles are renamed, labels are written by name."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa

from thresher.dataset.canonical import build_conversation, format_label, holds_messages, join_text, read_optional
from thresher.dataset.conversation import WHITE_SPACE, Conversation, drop_nulls
from thresher.dataset.formats.copy_rows import encode_line
from thresher.dataset.formats.files import SourceFile, open_compressed
from thresher.dataset.formats.shard import Block, Shard
from thresher.dataset.rejection import BadRow
from thresher.dataset.schema import Schema
from thresher.dataset.values.class_names import decode_rows, use_own_names
from thresher.numeric.arrays import Int64

Row = dict[str, Any]
_SHAREGPT = {"user": "human", "assistant": "gpt", "tool": "observation"}  # its own words
_SHAREGPT_COLUMNS = ("conversations", "conversation")


class MappedBlock:
    """Some consecutive rows of a file, in the columns of another schema.

    Attributes:
        positions: (n,) int64, the rows' positions in the shard.
        lines: (n,) int64, where they are in the user's file, from 1.
    """

    def __init__(self, block: Block, map_row: Callable[[Row], Row]) -> None:
        """Map a block by a function of rows."""
        self.positions, self.lines = block.positions, block.lines
        self._block, self._map_row = block, map_row

    def columns(self, types: Mapping[str, pa.DataType]) -> Iterator[tuple[Int64, pa.Table]]:
        """Yield nothing: each row is mapped singly."""
        yield from ()

    def row(self, index: int) -> Row:
        """Return one row; BadRow when it cannot be read or mapped."""
        return self._map_row(self._block.row(index))

    def preview(self, index: int) -> str:
        """Return the beginning of one row as the file has it."""
        return self._block.preview(index)

    def may_name(self, words: Collection[str]) -> bool:
        """Tell whether any row may have a column of these names, whatever their case."""
        return self._block.may_name(words)


class MappedShard:
    """One file of rows, in the columns of another schema. Copies of its rows are JSON lines.

    Attributes are those of `Shard`; the file itself is as it was.
    """

    def __init__(self, shard: Shard, schema: Schema, target: Schema) -> None:
        """Map a file.

        Args:
            shard: the file.
            schema: how its rows are read.
            target: the columns that they shall have.
        """
        self.name, self.suffix = shard.name, ".jsonl"
        self.advice, self.notes = shard.advice, shard.notes
        self.is_typed = self.has_fixed_columns = False
        self.late_positions = shard.late_positions
        self.label_names: Mapping[str, tuple[str, ...]] = {}
        self._shard, self._schema, self._target = shard, use_own_names(schema, shard), target
        self._changed: Mapping[int, Row] = {}

    @property
    def source(self) -> SourceFile:
        """The file as it was when it was read."""
        return self._shard.source

    @property
    def column_names(self) -> Sequence[str]:
        """The columns of the target that the rows fill, and the others of the user."""
        own = self._schema.columns
        present = set(self._shard.column_names)
        roles = [role for role in self._target.columns if self._target.is_chat or set(own.get(role, ())) & present]
        names = [self._target.columns[role][0] for role in roles]
        names += [name for name in (self._target.id_column, self._target.wanted) if name is not None]
        return list(dict.fromkeys([*names, *(name for name in self._shard.column_names if self._is_other(name))]))

    @property
    def layout(self) -> object:
        """All mapped files can be copied into one."""
        return "mapped"

    def blocks(self, positions: Int64 | None = None, *, columns: Sequence[str] | None = None) -> Iterator[MappedBlock]:
        """Yield all rows, or those at ascending positions."""
        needed = None if columns is None else [*self._schema.column_names, *filter(self._is_other, columns)]
        for block in self._shard.blocks(positions, columns=needed):
            yield MappedBlock(block, self.map_row)

    def rows(self, positions: Int64) -> list[Row]:
        """Return rows in the order of the positions, changed ones as they are now."""
        rows = self._shard.rows(positions)
        return [
            self._changed[at] if at in self._changed else self.map_row(row)
            for at, row in zip(positions.tolist(), rows, strict=True)
        ]

    def replace_rows(self, changed: Mapping[int, Row]) -> MappedShard:
        """Return a shard with other contents at some positions, given in the target's columns."""
        shard = copy.copy(self)
        shard._changed = {**self._changed, **changed}
        return shard

    @contextmanager
    def open_copy(self, path: Path) -> Iterator[Callable[[Shard, Int64], None]]:
        """Open a file of JSON lines and yield a function that appends rows of a shard."""
        with open_compressed(path, "") as write:

            def copy_rows(shard: Shard, positions: Int64) -> None:
                for row in shard.rows(positions):
                    write(encode_line(row))

            yield copy_rows

    def map_row(self, row: Row) -> Row:
        """Return a row in the target's columns, with the user's other ones; BadRow if it cannot be.

        Columns that the target does not read keep their names; one that is called like a column of
        the target is left out, because it would be read as that.
        """
        others = {name: value for name, value in row.items() if self._is_other(name)}
        names = self._shard.label_names
        (others,) = decode_rows([others], names, frozenset(names))
        mapped = self._map_roles(row)
        if self._target.id_column is not None:
            mapped[self._target.id_column] = row.get(self._target.id_column)
        if self._target.wanted is not None:
            mapped[self._target.wanted] = True
        return {**mapped, **others}

    def _is_other(self, name: str) -> bool:
        return name not in self._schema.column_names and name not in self._target.column_names

    def _map_roles(self, row: Row) -> Row:
        schema, columns = self._schema, self._target.columns
        if schema.kind == "text":
            return {columns["text"][0]: join_text(row, schema.columns["text"])}
        if schema.kind == "classification":
            return {
                columns["text"][0]: join_text(row, schema.columns["text"]),
                columns["label"][0]: format_label(row, schema),
            }
        if schema.is_chat or self._target.is_chat:
            conversation = build_conversation(row, schema, is_typed=self._shard.is_typed)
            return self._map_conversation(conversation) if self._target.is_chat else self._map_single(conversation)
        return self._rename_roles(row)

    def _map_conversation(self, conversation: Conversation) -> Row:
        name, turns = self._target.columns["messages"][0], conversation.messages
        if name in _SHAREGPT_COLUMNS:
            turns = [
                {"from": _SHAREGPT.get(turn["role"], turn["role"]), "value": turn["content"]}
                | {key: value for key, value in turn.items() if key not in ("role", "content")}
                for turn in turns
            ]
        if conversation.tools is None:
            return {name: turns}
        return {name: turns, self._require_column("tools", "tools"): conversation.tools}

    def _map_single(self, conversation: Conversation) -> Row:
        """Return a conversation of one question in the columns of prompt and response."""
        turns, columns = conversation.messages, self._target.columns
        has_system = turns[0]["role"] == "system"
        roles = [turn["role"] for turn in turns[has_system:]]
        if roles != ["user", "assistant"] or any(turn.keys() != {"role", "content"} for turn in turns):
            raise BadRow(
                "a conversation of more than a question and an answer does not fit the columns "
                f"'{columns['prompt'][0]}' and '{columns['response'][0]}'"
            )
        mapped = {columns["prompt"][0]: turns[-2]["content"], columns["response"][0]: turns[-1]["content"]}
        if has_system:
            mapped[self._require_column("system", "a system prompt")] = turns[0]["content"]
        if conversation.tools is not None:
            mapped[self._require_column("tools", "tools")] = conversation.tools
        return mapped

    def _rename_roles(self, row: Row) -> Row:
        """Return prompt and response in other columns; lists of messages stay lists."""
        schema, mapped = self._schema, {}
        for role in ("prompt", "response"):
            names = schema.columns[role]
            if holds_messages(row, schema):
                mapped[self._target.columns[role][0]] = self._as_plain(row.get(names[0]))
            else:
                mapped[self._target.columns[role][0]] = join_text(row, names)
        system = read_optional(row, schema.columns.get("system", ()))
        if system is not None:
            mapped[self._require_column("system", "a system prompt")] = system
        for role in ("history", "tools"):
            value = row.get(schema.columns[role][0]) if role in schema.columns else None
            is_other = role == "tools" and role not in self._target.columns and _is_no_list(value)
            if value is not None and value != "" and value != [] and not is_other:
                mapped[self._require_column(role, role)] = self._as_plain(value)
        return mapped

    def _as_plain(self, value: Any) -> Any:
        return drop_nulls(value) if self._shard.is_typed else value

    def _require_column(self, role: str, what: str) -> str:
        """Return the target's column of a role; BadRow where it has none."""
        if role not in self._target.columns:
            names = ", ".join(name for names in self._target.columns.values() for name in names)
            raise BadRow(f"the row has {what}, which does not fit the columns {names}")
        return self._target.columns[role][0]


def find_original(shard: Shard) -> Shard:
    """Return the file as the user has it; of a shard that is not mapped, the shard."""
    return shard._shard if isinstance(shard, MappedShard) else shard


def _is_no_list(value: Any) -> bool:
    """Tell whether a column called tools holds something else, which is not read."""
    return not isinstance(value, list) and not (isinstance(value, str) and value.lstrip(WHITE_SPACE).startswith("["))
