"""Rows of sources as they were read, and what of them is new."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from thresher.dataset import Dataset, Schema
from thresher.dataset.mixture.join import map_rows
from thresher.dataset.rejection import REJECTED_SCHEMA, count_values
from thresher.errors import InputError
from thresher.jobs.snapshots.seen_ids import ID_DIGITS, PackedIds, mask_known, pack_row_ids


@dataclass(frozen=True, kw_only=True)
class SourceBatch:
    """Rows of one kind of source as they were read.

    Attributes:
        rows: the rows.
        sources: (n,) string, name of the source of each row.
        files: (n,) string, where each row stands: a file's name, "hub:owner/name" or "sql:NAME".
        ledger: entries of what was read.
    """

    rows: Dataset
    sources: pl.Series
    files: pl.Series
    ledger: list[dict[str, Any]]


class EmptyFile(NamedTuple):
    """A file that was read and holds no usable row."""

    entry: dict[str, Any]  # for the ledger
    rejected: pl.DataFrame  # its rows, each with its reason


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """The rows of a run that no run before has evaluated.

    Attributes:
        rows: n rows, each content once; None when there are none.
        sources: (n,) string, name of the source.
        files: (n,) string, where each row stands.
        ledger: entries of everything that was read, new or not.
        n_read: rows read, usable or not.
        n_known: usable rows that were evaluated before.
        n_repeated: usable rows that repeat another of these.
        unusable: rows that cannot be used, by reason.
        rejected: the same as a table: file, line, reason, preview.
        skipped: what could not be read and will be tried again: (name, why).
    """

    rows: Dataset | None
    sources: pl.Series
    files: pl.Series
    ledger: list[dict[str, Any]]
    n_read: int
    n_known: int
    n_repeated: int
    unusable: dict[str, int]
    rejected: pl.DataFrame
    skipped: list[tuple[str, str]] = field(default_factory=list)

    @property
    def n_unusable(self) -> int:
        """Rows that cannot be used."""
        return self.rejected.height


def merge_batches(
    batches: Sequence[SourceBatch], known: PackedIds, skipped: list[tuple[str, str]], empty_files: Sequence[EmptyFile]
) -> Incoming:
    """Return the rows that are not among the known ones (sorted), each content once: the first."""
    ids = np.concatenate([np.zeros(0, known.dtype), *(pack_row_ids(batch.rows.frame["row_id"]) for batch in batches)])
    is_known = mask_known(ids, known)
    is_first = np.zeros(len(ids), np.bool_)
    is_first[np.unique(ids, return_index=True)[1]] = True
    is_fresh = is_first & ~is_known
    bounds = np.cumsum([0, *(len(batch.rows) for batch in batches)])
    fresh = [np.flatnonzero(is_fresh[low:high]) for low, high in pairwise(bounds)]
    parts = [batch.rows.take(at) for batch, at in zip(batches, fresh, strict=True) if len(at)]
    nothing = pl.Series([], dtype=pl.String)
    rejected = [pl.DataFrame(schema=REJECTED_SCHEMA), *(batch.rows.rejected for batch in batches)]
    rejected_rows = pl.concat([*rejected, *(one.rejected for one in empty_files)])
    return Incoming(
        rows=_concat_rows(parts) if parts else None,
        sources=pl.concat([nothing, *(batch.sources for batch in batches)]).filter(is_fresh),
        files=pl.concat([nothing, *(batch.files for batch in batches)]).filter(is_fresh),
        ledger=[*(entry for batch in batches for entry in batch.ledger), *(one.entry for one in empty_files)],
        n_read=sum(batch.rows.n_read for batch in batches) + sum(one.rejected.height for one in empty_files),
        n_known=int(is_known.sum()),
        n_repeated=int((~is_first & ~is_known).sum()),
        unusable=count_values(rejected_rows["reason"]),
        rejected=rejected_rows,
        skipped=skipped,
    )


def _concat_rows(parts: Sequence[Dataset]) -> Dataset:
    """Return rows of several datasets of one schema as one, named by their content alone."""
    first = parts[0]
    for part in parts[1:]:
        if part.schema.columns != first.schema.columns:
            raise InputError(
                f"sources: rows of one job must have one schema, found {first.schema.name} in {first.sources[0].name} "
                f"and {part.schema.name} in {part.sources[0].name}; name the columns of each in [[sources]]"
            )
    starts = np.cumsum([0, *(len(part.shards) for part in parts)])
    frame = pl.concat([part.frame.with_columns(pl.col("file").cast(pl.String)) for part in parts])
    return replace(
        first,
        frame=frame.with_columns(pl.col("row_id").str.slice(0, ID_DIGITS)),
        rejected=first.rejected.clear(),
        n_read=frame.height,
        shards=tuple(shard for part in parts for shard in part.shards),
        shard=np.concatenate([part.shard + start for part, start in zip(parts, starts, strict=False)]).astype(np.int32),
        position=np.concatenate([part.position for part in parts]),
        decoded_columns=frozenset(name for part in parts for name in part.decoded_columns),
        _columns={},
    )


def map_batch(batch: SourceBatch, schema: Schema) -> SourceBatch:
    """Return a batch in the columns of the snapshots; rows that do not fit are rejected."""
    mapped = map_rows(batch.rows, schema)
    if mapped is batch.rows:
        return batch
    paths = batch.rows.frame["file"].cast(pl.String)
    places = pl.DataFrame({"path": paths, "source": batch.sources, "file": batch.files}).unique("path")
    names = dict(places.select("path", "file").iter_rows())
    kept = mapped.frame.select(path=pl.col("file").cast(pl.String)).join(
        places, on="path", how="left", maintain_order="left"
    )
    rejected = mapped.rejected.with_columns(pl.col("file").replace(names))
    return replace(batch, rows=replace(mapped, rejected=rejected), sources=kept["source"], files=kept["file"])


def refuse_unusable_sources(
    batches: Sequence[SourceBatch], empty_files: Sequence[EmptyFile], *, known: Iterable[Mapping[str, Any]]
) -> None:
    """Refuse a source of which rows were read, and none was ever usable.

    A file of a source may be empty or unusable, and so may all that a night brings, where the
    source has had usable rows.

    Args:
        batches: rows of all sources.
        empty_files: files without usable rows.
        known: entries of the ledger of earlier runs.

    Raises:
        InputError: it names the source.
    """
    usable: Counter[str] = Counter({str(entry["source"]): 1 for entry in known if entry.get("bytes") != 0})
    rejected: dict[str, list[pl.Series]] = {}
    for batch in batches:
        usable.update(batch.sources.to_list())
        by_file = {entry["name"]: entry["source"] for entry in batch.ledger}
        alone = {entry["source"] for entry in batch.ledger}
        for file, rows in batch.rows.rejected.group_by("file"):
            source = by_file.get(file[0]) or (next(iter(alone)) if len(alone) == 1 else None)
            if source is not None:
                rejected.setdefault(source, []).append(rows["reason"])
    for one in empty_files:
        rejected.setdefault(one.entry["source"], []).append(one.rejected["reason"])
    for source, parts in rejected.items():
        reasons = pl.concat(parts)
        if not usable[source] and len(reasons):
            reason, count = next(iter(count_values(reasons).items()))
            raise InputError(
                f"source {source}: at least one usable row is required, found none in its {len(reasons):,} rows "
                f"({count:,} x {reason}); give its schema or columns in [[sources]], or take it out"
            )
