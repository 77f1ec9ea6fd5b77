"""Joining rows that were read apart: their common columns, and one dataset of all of them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import polars as pl

from thresher.dataset.canonical import canonicalize_row
from thresher.dataset.dataset import Dataset, SourceReading
from thresher.dataset.formats.shard import Shard, sample_rows
from thresher.dataset.mixture.mapped_shard import MappedShard
from thresher.dataset.read_shards import reject_repeated
from thresher.dataset.rejection import BadRow, RejectedRows
from thresher.dataset.row_id import hash_contents, number_repeats
from thresher.dataset.schema import Schema
from thresher.dataset.sources import list_repeated_files
from thresher.dataset.values.class_names import Names, find_label_names, list_disagreeing_columns
from thresher.dataset.values.notes import count_labels, list_label_notes
from thresher.errors import InputError, first_three

HASH_DIGITS = 32  # of a content id, before the number of a repeat
_OPTIONAL = ("system", "history", "tools")
_TARGETS = {"classification": ("text", "label"), "text": ("text",), "sft": ("prompt", "response")}


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How the rows of a source are read, and which columns they have."""

    name: str
    schema: Schema
    column_names: Sequence[str]


def reads_alike(first: Schema, second: Schema) -> bool:
    """Tell whether rows of two schemas are read from the same columns in the same way."""
    return (first.kind, dict(first.columns), first.wanted) == (second.kind, dict(second.columns), second.wanted)


def choose_common_schema(readings: Sequence[Reading]) -> Schema:
    """Return the schema that rows of several sources get.

    Where all are read alike, it is theirs. Else its columns are called like the roles: text and
    label; text; prompt and response, with system, history and tools where any source has them; or
    messages and tools as soon as one source holds conversations.

    Raises:
        InputError: the sources are of several kinds.
    """
    first = readings[0]
    for other in readings:
        if other.schema.kind != first.schema.kind:
            raise InputError(
                f"{other.name}: sources side by side must hold rows of one kind, found {other.schema.kind} "
                f"({other.schema.name}) beside {first.schema.kind} ({first.schema.name}) in {first.name}; name its "
                f"columns, as in --source {other.name}:{_suggest_roles(first.schema)}, or read them apart"
            )
    if all(reads_alike(one.schema, first.schema) for one in readings):
        return first.schema
    if any(one.schema.is_chat for one in readings):
        roles: Iterable[str] = ("messages", "tools")
    else:
        present = [
            role
            for role in _OPTIONAL
            if any(set(one.schema.columns.get(role, ())) & set(one.column_names) for one in readings)
        ]
        roles = (*_TARGETS[first.schema.kind], *present)
    columns = {role: (role,) for role in roles}
    return Schema(name="mapped", kind=first.schema.kind, columns=columns, id_column=first.schema.id_column)


def _suggest_roles(schema: Schema) -> str:
    return ",".join(f"{role}=COLUMN" for role in _TARGETS[schema.kind])


def join_datasets(parts: Sequence[Dataset], names: Sequence[str], *, schema: Schema | None = None) -> Dataset:
    """Return the rows of several sources as one dataset, in the order of the sources.

    Ids that are hashes are numbered anew where a row repeats one of another source; rows whose id
    from a column occurs in an earlier source are rejected.

    Args:
        parts: rows of each source, as they were read.
        names: of the sources, for messages and manifests.
        schema: that the rows get; default: `choose_common_schema`.

    Raises:
        InputError: the sources are of several kinds, name a file twice, or one has class names for
            numbers and another does not; or no row of one fits the schema.
    """
    readings = [_describe_reading(part, name) for part, name in zip(parts, names, strict=True)]
    refuse_repeated_files(source.path for part in parts for source in part.sources if source.mtime_ns is not None)
    refuse_bare_numbers([[find_label_names(part.schema, shard) for shard in part.shards] for part in parts], names)
    if schema is None:
        schema = choose_common_schema(
            [
                Reading(name=name, schema=part.schema, column_names=list_used_columns(part.schema, part.shards))
                for part, name in zip(parts, names, strict=True)
            ]
        )
    mapped = [map_rows(part, schema) for part in parts]
    for part, name in zip(mapped, names, strict=True):
        if not len(part):
            reason, count = next(iter(part.rejected_by_reason.items()), ("the source is empty", 0))
            raise InputError(f"{name}: at least one usable row is required, found none ({count:,} x {reason})")
    return replace(_concatenate(mapped, schema), readings=tuple(readings))


def _describe_reading(part: Dataset, name: str) -> SourceReading:
    return SourceReading(
        name=name,
        schema=part.schema,
        column_names=tuple(part.column_names),
        n_files=len(part.shards),
        n_read=part.n_read,
        rejected=part.rejected_by_reason,
    )


def list_used_columns(schema: Schema, shards: Sequence[Shard]) -> list[str]:
    """Return the columns of some files without one called tools that holds something else."""
    names = dict.fromkeys(name for shard in shards for name in shard.column_names)
    unused = {name for name in schema.columns.get("tools", ()) if not _hold_lists(shards, name)}
    return [name for name in names if name not in unused]


def _hold_lists(shards: Sequence[Shard], name: str) -> bool:
    values = [row.get(name) for shard in shards if name in shard.column_names for row in sample_rows(shard)]
    return any(isinstance(value, list) or (isinstance(value, str) and "[" in value) for value in values)


def map_rows(part: Dataset, schema: Schema) -> Dataset:
    """Return rows in the columns of another schema; those that do not fit into them are rejected.

    Args:
        part: rows as they were read.
        schema: of the same kind.
    """
    if reads_alike(part.schema, schema):
        return part
    schema = replace(schema, id_column=part.schema.id_column)
    shards = tuple(MappedShard(shard, part.schema, schema) for shard in part.shards)
    mapped = replace(part, schema=schema, shards=shards, decoded_columns=frozenset(), _columns={})
    if part.kind == "sft" and _may_differ(part, schema):
        return _read_again(mapped)
    return mapped


def _may_differ(part: Dataset, schema: Schema) -> bool:
    """Tell whether rows may mean something else, or nothing, in the columns of a schema."""
    if part.schema.is_chat:
        return not schema.is_chat
    has_more = any(set(part.schema.columns.get(role, ())) & set(part.column_names) for role in _OPTIONAL)
    return has_more and (schema.is_chat or any(role not in schema.columns for role in _OPTIONAL))


def _read_again(mapped: Dataset) -> Dataset:
    """Return mapped rows with the ids of what they say now, without those that do not fit."""
    rejected = RejectedRows()
    usable: list[int] = []
    extra: list[str] = []
    for number, shard in enumerate(mapped.shards):
        at = np.flatnonzero(mapped.shard == number)
        lines, first = mapped.frame["line"].gather(at).to_list(), 0
        for block in shard.blocks(mapped.position[at]):
            for index in range(len(block.positions)):
                try:
                    text = canonicalize_row(block.row(index), mapped.schema)
                except BadRow as reason:
                    rejected.add(shard.name, lines[first + index], str(reason), block.preview(index))
                else:
                    usable.append(int(at[first + index]))
                    extra.append(text.extra)
            first += len(block.positions)
    rows = mapped.take(usable)
    if mapped.schema.id_column is None:
        more = pl.Series(extra, dtype=pl.String)
        ids = number_repeats(hash_contents("sft", rows.frame["prompt"], rows.frame["response"], more))
        rows = replace(rows, frame=rows.frame.with_columns(ids))
    return replace(rows, rejected=pl.concat([mapped.rejected, rejected.frame()]), n_read=mapped.n_read)


def refuse_repeated_files(paths: Iterable[str | Path]) -> None:
    """Refuse a file that several sources name.

    Raises:
        InputError: there is one.
    """
    if repeated := list_repeated_files(paths):
        raise InputError(f"load: each file is read once, {first_three(repeated)} is in two sources; name it in one")


def refuse_bare_numbers(kinds: Sequence[Sequence[Names | None]], names: Sequence[str]) -> None:
    """Refuse numbers of classes beside a source whose files name the classes.

    Args:
        kinds: of each source, what `find_label_names` says of each of its files.
        names: of the sources.

    Raises:
        InputError: nobody can tell which class a number stands for.
    """
    named = [name for name, own in zip(names, kinds, strict=True) if any(own)]
    bare = [name for name, own in zip(names, kinds, strict=True) if not any(own) and () in own]
    if named and bare:
        raise InputError(
            f"{bare[0]}: the numbers of its labels need names of classes as in {named[0]}, found none; write the names "
            "into the column, or read the sources apart"
        )


def _concatenate(parts: Sequence[Dataset], schema: Schema) -> Dataset:
    starts = np.cumsum([0, *(len(part.shards) for part in parts)])
    shards = tuple(shard for part in parts for shard in part.shards)
    shard = np.concatenate([part.shard + start for part, start in zip(parts, starts, strict=False)]).astype(np.int32)
    position = np.concatenate([part.position for part in parts])
    frame = pl.concat([part.frame for part in parts], rechunk=True)
    rejected = [part.rejected for part in parts]
    is_first = np.ones(len(frame), np.bool_)
    if schema.id_column is None:
        frame = frame.with_columns(number_repeats(frame["row_id"].str.slice(0, HASH_DIGITS)))
    else:
        is_first = frame["row_id"].is_first_distinct().to_numpy()
        at, more = np.flatnonzero(~is_first), RejectedRows()
        lines = frame["line"].to_numpy()[at]
        reject_repeated(shards, schema.id_column, np.stack([shard[at], position[at]]), lines, more)
        rejected.append(more.frame())
    joined = Dataset(
        schema=schema,
        frame=frame.filter(is_first),
        rejected=pl.concat(rejected),
        n_read=sum(part.n_read for part in parts),
        shards=shards,
        shard=shard[is_first],
        position=position[is_first],
        notes=tuple(dict.fromkeys(note for part in parts for note in part.notes)),
        file_notes=tuple(dict.fromkeys(note for part in parts for note in part.file_notes)),
        decoded_columns=_list_decoded_columns(shards, schema),
    )
    return replace(joined, notes=tuple(dict.fromkeys([*joined.notes, *list_label_notes(count_labels(joined))])))


def _list_decoded_columns(shards: Sequence[Shard], schema: Schema) -> frozenset[str]:
    """Return the columns in which names of classes stand for numbers: files differ in them."""
    names = [shard.label_names for shard in shards]
    labels = {name for name in schema.columns.get("label", ()) if any(name in one for one in names)}
    mixed = {name for name in labels if not all(name in one for one in names)}
    return list_disagreeing_columns(names) | mixed
