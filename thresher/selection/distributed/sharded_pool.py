"""The rows of a pool without its texts: their ids, as on one machine, and facts for manifests."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.artifacts.folder import atomic_file, write_parquet
from thresher.dataset import Dataset, Schema
from thresher.dataset.dataset import SourceReading
from thresher.dataset.formats.files import SourceFile
from thresher.dataset.mixture.join import refuse_bare_numbers
from thresher.dataset.mixture.mapped_shard import find_original
from thresher.dataset.read_shards import DUPLICATED_ID, reject_repeated
from thresher.dataset.rejection import RejectedRows
from thresher.dataset.row_id import hash_row_ids, number_repeats
from thresher.dataset.values.class_names import Names, check_label_names, find_label_names, list_disagreeing_columns
from thresher.dataset.values.notes import count_labels, list_notes
from thresher.errors import InputError
from thresher.selection.distributed.pool_files import PoolFiles
from thresher.selection.distributed.stage import FILES, Record, shard_name

HASH_DIGITS = 32  # of a content id, before the number of a repeat


@dataclass(frozen=True, kw_only=True)
class ReadShard:
    """Reads a shard for the first time: its ids, and what a manifest tells of it."""

    files: PoolFiles
    folder: Path
    name: str = "read"
    memory_bytes: int = 0

    def __call__(self, number: int) -> Record:
        """Write the ids of a shard, repeats not numbered yet."""
        rows = self.files.read(number)
        ids = rows.frame["row_id"]
        if rows.id_column is None:
            ids = ids.str.slice(0, HASH_DIGITS)
        written = ids_path(self.folder, number)
        with atomic_file(written) as path:
            write_parquet(ids.to_frame(), path)
        source = rows.sources[0]
        return {
            FILES: [written],
            "rows": len(rows),
            "read": rows.n_read,
            "rejected": rows.rejected_by_reason,
            "columns": rows.column_names,
            "notes": list(rows.file_notes),
            "labels": count_labels(rows),
            "label_names": find_label_names(self.files.find_schema(number), find_original(rows.shards[0])),
            "class_names": dict(rows.shards[0].label_names),
            "source": {"bytes": source.bytes, "sha256": source.sha256, "mtime_ns": source.mtime_ns},
        }


def ids_path(folder: Path, number: int) -> Path:
    """Return where the ids of a shard lie."""
    return folder / f"{shard_name(number)}.ids.parquet"


@dataclass(frozen=True, kw_only=True)
class ShardReader:
    """Reads a shard again, with the ids that its rows have in the pool. Small enough to be sent.

    Attributes:
        files: of the pool.
        sha256: of each file when it was read first.
        folder: of the ids.
        renamed: shards in which rows have other ids than the shard alone would give, or are
            rejected.
        column_names: of the whole pool; a shard may lack some.
        decoded_columns: those whose classes have other numbers in other shards.
    """

    files: PoolFiles
    sha256: tuple[str, ...]
    folder: Path
    renamed: frozenset[int]
    column_names: tuple[str, ...]
    decoded_columns: frozenset[str] = frozenset()

    def rows(self, number: int) -> Dataset:
        """Return the rows of a shard.

        Raises:
            InputError: the file has changed.
        """
        rows = self.files.read(number)
        if rows.sources[0].sha256 != self.sha256[number]:
            raise InputError(f"{self.files.names[number]}: the file changed while it was being read; run again")
        rows = replace(rows, decoded_columns=self.decoded_columns)
        if number not in self.renamed:
            return rows
        final = pl.read_parquet(final_path(self.folder, number))
        usable = rows.take(final["index"])
        repeated = np.setdiff1d(np.arange(len(rows)), final["index"].to_numpy())
        rejected = RejectedRows()
        if len(repeated):
            place = np.stack([np.zeros(len(repeated), np.int64), rows.position[repeated]])
            reject_repeated(rows.shards, str(rows.id_column), place, rows.frame["line"].to_numpy()[repeated], rejected)
        frame = usable.frame.with_columns(final["row_id"])
        aside = rejected.frame().with_columns(pl.lit(self.files.names[number]).alias("file"))
        return replace(usable, frame=frame, rejected=pl.concat([rows.rejected, aside]), n_read=rows.n_read)


def final_path(folder: Path, number: int) -> Path:
    """Return where the final ids of a shard lie that differ from those it has alone."""
    return folder / f"{shard_name(number)}.final.parquet"


@dataclass(frozen=True, kw_only=True)
class ShardedPool:
    """What identities and manifests need of a `Dataset`, and the id of every row, but no text.

    Attributes:
        reader: of its shards.
        row_id: (n,) in the order of the files.
        start: (n_shards + 1,) position of the first row of each shard.
        n_read: rows, usable or not.
        rejected_by_reason: rows that cannot be used, the most frequent reason first.
        sources: the files as they were when they were read.
        notes: what a user should know of how they were read.
    """

    reader: ShardReader
    row_id: pl.Series
    start: NDArray[np.int64]
    n_read: int
    rejected_by_reason: Mapping[str, int]
    sources: list[SourceFile]
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        """Return the number of usable rows."""
        return len(self.row_id)

    @property
    def n_shards(self) -> int:
        """Number of files."""
        return len(self.start) - 1

    @property
    def readings(self) -> tuple[SourceReading, ...]:
        """How each source is read, of several side by side."""
        return self.reader.files.readings

    @property
    def schema(self) -> Schema:
        """Of all rows."""
        return self.reader.files.schema

    @property
    def column_names(self) -> tuple[str, ...]:
        """The user's columns, in their order."""
        return self.reader.column_names

    @property
    def kind(self) -> str:
        """What the rows are for."""
        return self.schema.kind

    @property
    def id_column(self) -> str | None:
        """The user's column that names the rows."""
        return self.schema.id_column

    @property
    def n_rejected(self) -> int:
        """Number of rows that cannot be used."""
        return sum(self.rejected_by_reason.values())

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the row ids, as `Dataset.fingerprint`."""
        return hash_row_ids(self.row_id)

    @cached_property
    def order(self) -> NDArray[np.int64]:
        """(n,) positions of the rows sorted by id: the order in which selectors see them."""
        return self.row_id.arg_sort().to_numpy().astype(np.int64)

    @cached_property
    def rank(self) -> NDArray[np.int64]:
        """(n,) place of each row in that order: its number in files that pass between stages."""
        rank = np.empty(len(self.order), np.int64)
        rank[self.order] = np.arange(len(rank))
        return rank

    @cached_property
    def whole(self) -> Dataset:
        """All rows with their texts, in this process's memory: for methods that need them at once.

        Raises:
            InputError: a file has changed.
        """
        rows = self.reader.files.load()
        if not rows.frame["row_id"].equals(self.row_id):
            raise InputError(f"{self.reader.files.names[0]}: the files changed while they were being read; run again")
        return rows

    def shard(self, number: int) -> slice:
        """Return the positions of the rows of a shard."""
        return slice(int(self.start[number]), int(self.start[number + 1]))


def gather_pool(files: PoolFiles, work: ReadShard, records: Sequence[Record]) -> ShardedPool:
    """Join what was read; repeats are numbered in the order of the files, as on one machine.

    Raises:
        InputError: no row is usable, some are not and the user is strict, or the rows are not those
            expected.
    """
    parts = [pl.read_parquet(ids_path(work.folder, number))["row_id"] for number in range(len(files))]
    counts = np.array([len(part) for part in parts], np.int64)
    ids = pl.concat(parts)
    shard = np.repeat(np.arange(len(files)), counts)
    is_usable = np.ones(len(ids), np.bool_)
    if files.schema.id_column is None:
        row_id = number_repeats(ids)
    else:
        is_usable = ids.is_first_distinct().to_numpy()
        row_id = ids.filter(pl.Series(is_usable))
    renamed = _write_final(work.folder, parts, row_id, is_usable, counts)
    reasons: Counter[str] = Counter()
    for record in records:
        reasons.update(record["rejected"])
    if not is_usable.all():
        reasons[DUPLICATED_ID.format(files.schema.id_column)] += int((~is_usable).sum())
    labels: Counter[str] = Counter()
    for record in records:
        labels.update(record["labels"])
    empty = [name for name, record in zip(files.names, records, strict=True) if not record["read"]]
    _check_label_names(files, [record["label_names"] for record in records])
    pool = ShardedPool(
        reader=ShardReader(
            files=files,
            sha256=tuple(record["source"]["sha256"] for record in records),
            folder=work.folder,
            renamed=renamed,
            column_names=tuple(dict.fromkeys(name for record in records for name in record["columns"])),
            decoded_columns=list_disagreeing_columns([record["class_names"] for record in records]),
        ),
        row_id=row_id,
        start=np.concatenate([[0], np.cumsum(np.bincount(shard[is_usable], minlength=len(files)))]).astype(np.int64),
        n_read=sum(record["read"] for record in records),
        rejected_by_reason=dict(sorted(reasons.items(), key=lambda item: (-item[1], item[0]))),
        sources=[SourceFile(path=name, **record["source"]) for name, record in zip(files.names, records, strict=True)],
        notes=list_notes([note for record in records for note in record["notes"]], labels, reasons, empty),
    )
    _check(pool, files)
    return pool


def _check_label_names(files: PoolFiles, kinds: Sequence[Names | None]) -> None:
    """Refuse numbers of classes that nobody can name, from what each file says of its labels.

    Raises:
        InputError: there are such.
    """
    source = [files.find_source(number) for number in range(len(files))]
    groups = [[at for at, own in enumerate(source) if own == number] for number in range(max(source) + 1)]
    for group in groups:
        names = {files.names[at]: kinds[at] for at in group}
        check_label_names(names, *files.find_schema(group[0]).columns.get("label", ("",)))
    if files.readings:
        refuse_bare_numbers([[kinds[at] for at in group] for group in groups], [one.name for one in files.readings])


def _write_final(
    folder: Path,
    parts: Sequence[pl.Series],
    row_id: pl.Series,
    is_usable: NDArray[np.bool_],
    counts: NDArray[np.int64],
) -> frozenset[int]:
    """Write the ids of shards whose rows repeat rows of other shards; return which these are."""
    renamed = set()
    first_usable = first = 0  # of the shard, among the usable rows and among all
    for number, part in enumerate(parts):
        index = np.flatnonzero(is_usable[first : first + counts[number]])
        final = row_id[first_usable : first_usable + len(index)]
        first_usable, first = first_usable + len(index), first + int(counts[number])
        if len(index) == len(part) and final.equals(number_repeats(part)):
            continue  # what the shard alone gives
        renamed.add(number)
        with atomic_file(final_path(folder, number)) as path:
            write_parquet(pl.DataFrame({"row_id": final, "index": index}), path)
    return frozenset(renamed)


def _check(pool: ShardedPool, files: PoolFiles) -> None:
    first = next(iter(pool.rejected_by_reason), "the files are empty")
    if not len(pool):
        raise InputError(
            f"{files.names[0]}: at least one usable row is required, found none in {pool.n_read} rows ({first})"
        )
    if files.is_strict and pool.n_rejected:
        raise InputError(
            f"{pool.n_rejected} of {pool.n_read} rows cannot be used ({first}); fix them, or load without strict to "
            f"reject them"
        )
    if files.expected is not None and files.expected != pool.fingerprint:
        raise InputError(
            f"engine ray: the pool must be all rows of its files, and these are others than the {len(pool):,} in "
            f"{files.names[0]}; write the rows to files of their own"
        )


def describe_files(files: PoolFiles) -> dict[str, Any]:
    """Return what determines the records of the first reading, in JSON values."""
    schema = files.schema
    return {
        "files": [[path, *size] for path, size in zip(files.paths, files.read_states(), strict=True)],
        **_describe_schema(schema),
        **(
            {"sources": [[one.n_files, _describe_schema(one.schema)] for one in files.readings]}
            if files.readings
            else {}
        ),
        "max_row_bytes": files.max_row_bytes,
    }


def _describe_schema(schema: Schema) -> dict[str, Any]:
    return {
        "schema": [schema.name, schema.kind, {role: list(names) for role, names in schema.columns.items()}],
        "types": [
            list(schema.label_names or ()),
            schema.id_column,
            sorted(schema.integer_columns),
            schema.has_number_labels,
            *([] if schema.wanted is None else [schema.wanted]),
        ],
    }
