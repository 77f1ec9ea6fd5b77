"""New rows: what the sources hold, without the rows that were evaluated before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from thresher.dataset import Dataset, Schema, load
from thresher.dataset.rejection import REJECTED_SCHEMA, NoRowsError, count_values
from thresher.dataset.schema import build_mapped_schema
from thresher.errors import InputError, SettingsError
from thresher.jobs.events import EventLog
from thresher.jobs.job_file import Job
from thresher.jobs.settings import Source
from thresher.jobs.snapshots.seen_ids import ID_DIGITS, PackedIds, mask_known, pack_row_ids
from thresher.jobs.sources.addresses import redact_address
from thresher.jobs.sources.database import read_query
from thresher.jobs.sources.scan import Scan, SourceFile

ATTEMPTS = 3
WAIT_S = 0.5


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


class SourceReader:
    """Reads the sources of a job.

    Attributes:
        schema: of the rows; None until the first ones were read.
        skipped: what could not be read and will be tried again: (name, why).
        empty_files: files without a usable row.
    """

    def __init__(self, job: Job, *, schema: Schema | None, since: datetime | None, log: EventLog) -> None:
        self._job = job
        self._since = since
        self._log = log
        self.schema = schema
        self.skipped: list[tuple[str, str]] = []
        self.empty_files: list[EmptyFile] = []

    def read_all(self, scan: Scan, unsettled: set[str]) -> list[SourceBatch]:
        """Read the new files, and the other sources whose content is new.

        Raises:
            InputError: a source cannot be read.
        """
        settled = [one for one in scan.new_files if str(one.file.path) not in unsettled]
        waiting = [one.name for one in scan.new_files if str(one.file.path) in unsettled]
        self.skipped += [*scan.skipped, *((name, "it kept changing while it was being read") for name in waiting)]
        batches = [self.read_files(settled), *self._read_others(scan.known_hashes)]
        return [batch for batch in batches if batch is not None]

    def read_files(self, files: Sequence[SourceFile]) -> SourceBatch | None:
        """Read files; those that keep changing, or that the job skips, wait for the next run.

        Raises:
            InputError: a file cannot be read.
        """
        for attempt in range(ATTEMPTS):
            if not files:
                return None
            try:
                batch = self._load_files(files)
            except InputError as error:
                if any(not one.file.path.exists() for one in files):
                    files = self._drop_gone(files)
                    continue
                if attempt < ATTEMPTS - 1 and _is_changing(error):
                    self._log.warn("changing", f"{error}; reading again")
                    time.sleep(WAIT_S)
                    continue
                if not self._is_tolerated(error):
                    raise
                break
            used = set(batch.files.unique())
            for name in (one.name for one in files if one.name not in used):
                self._log.warn("empty", f"{name} holds no usable row")
            return batch
        return self._read_one_by_one(files)

    def _drop_gone(self, files: Sequence[SourceFile]) -> list[SourceFile]:
        """Return the files that are still there: whoever delivers them may rotate them away."""
        for one in files:
            if not one.file.path.exists():
                self._log.warn("gone", f"{one.name} disappeared before it could be read")
        return [one for one in files if one.file.path.exists()]

    def _read_one_by_one(self, files: Sequence[SourceFile]) -> SourceBatch | None:
        """Read the files that can be read, after finding out which those are.

        Raises:
            InputError: a file cannot be read, and the job does not skip such.
        """
        for one in files if self.schema is None else ():
            with suppress(InputError):  # the first usable row decides how all files are read
                self._load_files([one])
                break
        good = []
        for one in files:
            try:
                self._load_files([one])
            except InputError as error:
                if not self._is_tolerated(error):
                    raise
                self._leave_out(one, error)
            else:
                good.append(one)
        return self._load_files(good) if good else None

    def _is_tolerated(self, error: InputError) -> bool:
        """Tell whether the run goes on without a file that gave this error."""
        return _is_changing(error) or isinstance(error, NoRowsError) or self._job.settings.rows.unreadable == "skip"

    def _leave_out(self, one: SourceFile, error: InputError) -> None:
        if isinstance(error, NoRowsError):
            rejected = error.rejected.with_columns(file=pl.lit(one.name))
            self.empty_files.append(EmptyFile(entry=_describe_file(one), rejected=rejected))
            self._log.warn("empty", f"{one.name} holds no usable row: {error}")
        else:
            self._skip(one.name, error)

    def _skip(self, name: str, error: InputError) -> None:
        self.skipped.append((name, str(error)))
        self._log.warn("skipped", f"{name} was left to the next run: {error}")

    def _load_files(self, files: Sequence[SourceFile]) -> SourceBatch:
        rows = self._load([str(one.file.path) for one in files])
        by_path = {str(one.file.path): one for one in files}
        sources = {path: one.source for path, one in by_path.items()}
        names = {path: one.name for path, one in by_path.items()}
        paths = rows.frame["file"].cast(pl.String)
        return SourceBatch(
            rows=replace(rows, rejected=rows.rejected.with_columns(pl.col("file").replace(names))),
            sources=paths.replace_strict(sources, return_dtype=pl.String),
            files=paths.replace_strict(names, return_dtype=pl.String),
            ledger=[
                _describe_file(by_path[one.path]) | {"bytes": one.bytes, "sha256": one.sha256} for one in rows.sources
            ],
        )

    def _read_others(self, known_hashes: frozenset[str]) -> list[SourceBatch]:
        """Read Hub datasets and databases whose content changed.

        Raises:
            InputError: one cannot be read.
        """
        batches = []
        for number, source in enumerate(self._job.settings.sources):
            if source.files is not None:
                continue
            name = self._job.source_name(number)
            where = f"sql:{name}" if source.hub is None else f"hub:{source.hub}"
            rows = self._read_other(where, source, name)
            if rows is None or rows.sources[0].sha256 in known_hashes:
                continue
            entry: dict[str, Any] = {"kind": where.partition(":")[0], "source": name, "name": where}
            entry |= {} if source.url is None else {"url": redact_address(source.url)}
            content = {"bytes": rows.sources[0].bytes, "sha256": rows.sources[0].sha256}
            batches.append(
                SourceBatch(
                    rows=rows,
                    sources=pl.Series([name], dtype=pl.String).new_from_index(0, len(rows)),
                    files=pl.Series([where], dtype=pl.String).new_from_index(0, len(rows)),
                    ledger=[entry | content],
                )
            )
        return batches

    def _read_other(self, where: str, source: Source, name: str) -> Dataset | None:
        try:
            if source.hub is not None:
                return self._load(source.hub, config=source.config, split=source.split)
            addresses, base = self._log.addresses, self._job.base
            url, query = source.url or "", source.sql or ""
            frame = read_query(url, query, since=self._since, addresses=addresses, where=name, base=base)
            return self._load(frame) if frame.height else None
        except InputError as error:
            if not self._is_tolerated(error):
                raise
            self._skip(where, error)
            return None

    def _load(self, source: Any, *, config: str | None = None, split: str | None = None) -> Dataset:
        """Load rows in the schema of the previous rows, which the first ones decide."""
        reading = self._job.settings.rows
        if self.schema is not None:
            how: dict[str, Any] = {"schema": self.schema}
        elif reading.columns is not None:
            how = {"columns": reading.columns}
        else:
            how = {"schema": reading.schema_name}
        rows = load(source, config=config, split=split, max_row_bytes=reading.max_row_bytes, **how)
        if self.schema is None:
            self.schema = replace(rows.schema, label_names=None, integer_columns=frozenset())
        return rows


def _describe_file(one: SourceFile) -> dict[str, Any]:
    """Return the entry of a file in the ledger."""
    return {"kind": "file", "source": one.source, "name": one.name, "bytes": one.bytes, "sha256": one.sha256}


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
                f"and {part.schema.name} in {part.sources[0].name}; name the columns in [rows], or make two jobs"
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
        _columns={},
    )


def check_same_columns(job: Job, schema: Schema | None) -> None:
    """Refuse a job file that reads other columns than the snapshots of its folder hold.

    Raises:
        SettingsError: it says so; the rows of one folder have one schema.
    """
    reading = job.settings.rows
    if schema is None:
        return
    mapped = None if reading.columns is None else build_mapped_schema(reading.columns)
    is_other = mapped is not None and (
        (mapped.kind, mapped.required) != (schema.kind, schema.required)
        or any(schema.columns.get(role) != names for role, names in mapped.columns.items())
    )
    if is_other or reading.schema_name not in (None, schema.name):
        asked = reading.schema_name if mapped is None else mapped.describe(mapped.column_names)
        raise SettingsError(
            f"{job.path}: [rows] must read what the snapshots in {job.output_folder} hold, "
            f"{schema.describe(schema.column_names)}, found {asked}; set it back, or name another folder in [output]"
        )


def _is_changing(error: InputError) -> bool:
    return "changed while it was being read" in str(error)


def find_changed_files(rows: Dataset | None) -> list[str]:
    """Return the files of some rows that changed since they were read."""
    changed = []
    for source in () if rows is None else rows.sources:
        try:
            source.check_unchanged()
        except InputError:
            changed.append(source.path)
    return changed
