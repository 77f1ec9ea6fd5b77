"""Rows that are new: what the sources hold, read once, without the rows that were judged before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

import numpy as np
import polars as pl

from thresher.dataset import Dataset, Schema, load
from thresher.dataset.rejection import REJECTED_SCHEMA, NoRowsError, count_values
from thresher.dataset.schema import build_mapped_schema
from thresher.errors import InputError, SettingsError
from thresher.jobs.events import Event, OnEvent
from thresher.jobs.job_file import Job
from thresher.jobs.settings import Source
from thresher.jobs.snapshots.seen_ids import ID_DIGITS, PackedIds, mask_known, pack_row_ids
from thresher.jobs.sources.addresses import Addresses, redact_address
from thresher.jobs.sources.database import read_query
from thresher.jobs.sources.scan import SourceFile

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


@dataclass(frozen=True, kw_only=True)
class EmptyFile:
    """A file that was read and holds no usable row.

    Attributes:
        entry: for the ledger.
        rejected: its rows, each with its reason.
    """

    entry: dict[str, Any]
    rejected: pl.DataFrame


@dataclass(frozen=True, kw_only=True)
class Incoming:
    """The rows of a run that no run before has judged.

    Attributes:
        rows: n rows, each content once; None when there are none.
        sources: (n,) string, name of the source.
        files: (n,) string, where each row stands.
        ledger: entries of everything that was read, new or not.
        n_read: rows read, usable or not.
        n_known: usable rows that were judged before.
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


class Reader:
    """Reads the sources of a job.

    Args:
        job: the job.
        schema: of the rows before, or None.
        since: for `:since` in queries.
        addresses: for databases.
        on_event: told of files that change or cannot be read.
    """

    def __init__(
        self, job: Job, *, schema: Schema | None, since: datetime | None, addresses: Addresses, on_event: OnEvent
    ) -> None:
        self._job = job
        self.schema = schema
        self._since = since
        self._addresses = addresses
        self._on_event = on_event
        self.skipped: list[tuple[str, str]] = []
        self.empty_files: list[EmptyFile] = []

    def files(self, found: Sequence[SourceFile]) -> SourceBatch | None:
        """Read files; one that keeps changing, or is damaged where the job skips such, is left to the next run.

        Raises:
            InputError: a file cannot be read.
        """
        for attempt in range(ATTEMPTS):
            if not found:
                return None
            try:
                return self._files(found)
            except InputError as error:
                if any(not one.file.path.exists() for one in found):
                    found = self._without_gone(found)
                    continue
                if attempt < ATTEMPTS - 1 and _is_changing(error):
                    self._tell("changing", f"{error}; reading again")
                    time.sleep(WAIT_S)
                    continue
                if not self._is_borne(error):
                    raise
                break
        return self._files_singly(found)

    def _without_gone(self, found: Sequence[SourceFile]) -> list[SourceFile]:
        """Return the files that are still there: others are rotated away by those who deliver them."""
        for one in found:
            if not one.file.path.exists():
                self._tell("gone", f"{one.name} was there and is gone, before it could be read")
        return [one for one in found if one.file.path.exists()]

    def _files_singly(self, found: Sequence[SourceFile]) -> SourceBatch | None:
        """Read the files that can be read, after finding out which those are.

        Raises:
            InputError: a file cannot be read, and the job does not skip such.
        """
        for one in found if self.schema is None else ():
            with suppress(InputError):  # the first file with a usable row decides how all of them are read
                self._files([one])
                break
        good = []
        for one in found:
            try:
                self._files([one])
            except InputError as error:
                if not self._is_borne(error):
                    raise
                self._leave_out(one, error)
            else:
                good.append(one)
        return self._files(good) if good else None

    def _is_borne(self, error: InputError) -> bool:
        """Tell whether the run goes on without a file that gave this error."""
        is_borne = _is_changing(error) or isinstance(error, NoRowsError)
        return is_borne or self._job.settings.rows.unreadable == "skip"

    def _leave_out(self, one: SourceFile, error: InputError) -> None:
        if isinstance(error, NoRowsError):
            size = {"bytes": one.bytes, "sha256": one.sha256}
            entry = {"kind": "file", "source": one.source, "name": one.name, **size}
            rejected = error.rejected.with_columns(file=pl.lit(one.name))
            self.empty_files.append(EmptyFile(entry=entry, rejected=rejected))
            self._tell("empty", f"{one.name} holds no usable row: {error}")
            return
        self.skipped.append((one.name, str(error)))
        self._tell("skipped", f"{one.name} is left to the next run: {error}")

    def _files(self, found: Sequence[SourceFile]) -> SourceBatch:
        rows = self._load([str(one.file.path) for one in found])
        by_path = {str(one.file.path): one for one in found}
        where = rows.frame["file"].cast(pl.String)
        rejected = rows.rejected.with_columns(pl.col("file").replace({path: one.name for path, one in by_path.items()}))
        rows = replace(rows, rejected=rejected)
        ledger = []
        for source in rows.sources:
            one = by_path[source.path]
            size = {"bytes": source.bytes, "sha256": source.sha256}
            ledger.append({"kind": "file", "source": one.source, "name": one.name, **size})
        return SourceBatch(
            rows=rows,
            sources=where.replace_strict({path: one.source for path, one in by_path.items()}, return_dtype=pl.String),
            files=where.replace_strict({path: one.name for path, one in by_path.items()}, return_dtype=pl.String),
            ledger=ledger,
        )

    def others(self, known_hashes: set[str]) -> list[SourceBatch]:
        """Read Hub datasets and databases whose content is another than before.

        Raises:
            InputError: one cannot be read.
        """
        found = []
        for number, source in enumerate(self._job.settings.sources):
            if source.files is not None:
                continue
            name = self._job.source_name(number)
            where = f"sql:{name}" if source.hub is None else f"hub:{source.hub}"
            rows = self._guarded(where, source, name)
            entry: dict[str, Any] = {"kind": where.partition(":")[0], "source": name, "name": where}
            entry |= {} if source.url is None else {"url": redact_address(source.url)}
            if rows is None:
                continue
            content = rows.sources[0]
            if content.sha256 in known_hashes:
                continue
            n = len(rows)
            found.append(
                SourceBatch(
                    rows=rows,
                    sources=pl.Series([name], dtype=pl.String).new_from_index(0, n),
                    files=pl.Series([where], dtype=pl.String).new_from_index(0, n),
                    ledger=[entry | {"bytes": content.bytes, "sha256": content.sha256}],
                )
            )
        return found

    def _guarded(self, where: str, source: Source, name: str) -> Dataset | None:
        try:
            if source.hub is not None:
                return self._load(source.hub, config=source.config, split=source.split)
            return self._query(source, name)
        except InputError as error:
            if not self._is_borne(error):
                raise
            self.skipped.append((where, str(error)))
            self._tell("skipped", f"{where} is left to the next run: {error}")
            return None

    def _query(self, source: Source, name: str) -> Dataset | None:
        url, query = source.url or "", source.sql or ""
        frame = read_query(url, query, since=self._since, addresses=self._addresses, where=name, base=self._job.base)
        return self._load(frame) if frame.height else None

    def _load(self, source: Any, *, config: str | None = None, split: str | None = None) -> Dataset:
        """Load rows in the schema of the rows before, which the first ones decide."""
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

    def _tell(self, name: str, message: str) -> None:
        self._on_event(Event(name=name, message=self._addresses.redact(message), level="warning"))


def join(
    batches: Sequence[SourceBatch],
    known: PackedIds,
    *,
    skipped: list[tuple[str, str]],
    empty_files: Sequence[EmptyFile],
) -> Incoming:
    """Return the rows of all batches that are new, each content once: the first stays.

    Args:
        batches: rows of one schema.
        known: sorted names of the rows judged before.
        skipped: what could not be read.
        empty_files: files without a usable row.
    """
    ids = [pack_row_ids(delivery.rows.frame["row_id"]) for delivery in batches]
    every = np.concatenate([np.zeros(0, known.dtype), *ids])
    is_known = mask_known(every, known)
    is_first = np.zeros(len(every), np.bool_)
    is_first[np.unique(every, return_index=True)[1]] = True
    is_fresh = is_first & ~is_known
    parts, sources, files, start = [], [], [], 0
    for delivery in batches:
        at = np.flatnonzero(is_fresh[start : start + len(delivery.rows)])
        start += len(delivery.rows)
        if len(at):
            parts.append(delivery.rows.take(at))
            sources.append(delivery.sources.gather(at))
            files.append(delivery.files.gather(at))
    nothing = pl.Series([], dtype=pl.String)
    rejected = pl.concat(
        [
            pl.DataFrame(schema=REJECTED_SCHEMA),
            *(delivery.rows.rejected for delivery in batches),
            *(one.rejected for one in empty_files),
        ]
    )
    return Incoming(
        rows=_joined(parts) if parts else None,
        sources=pl.concat([nothing, *sources]),
        files=pl.concat([nothing, *files]),
        ledger=[*(entry for delivery in batches for entry in delivery.ledger), *(one.entry for one in empty_files)],
        n_read=sum(delivery.rows.n_read for delivery in batches) + sum(one.rejected.height for one in empty_files),
        n_known=int(is_known.sum()),
        n_repeated=int((~is_first & ~is_known).sum()),
        unusable=count_values(rejected["reason"]),
        rejected=rejected,
        skipped=skipped,
    )


def _joined(parts: Sequence[Dataset]) -> Dataset:
    """Return rows of several datasets of one schema as one, named by their content alone."""
    first = parts[0]
    for part in parts[1:]:
        if part.schema.columns != first.schema.columns:
            raise InputError(
                f"sources: rows of one job must have one schema, found {first.schema.name} in {first.sources[0].name} "
                f"and {part.schema.name} in {part.sources[0].name}; name the columns in [rows], or make two jobs"
            )
    offsets = np.cumsum([0, *(len(part.shards) for part in parts)])
    frame = pl.concat([part.frame.with_columns(pl.col("file").cast(pl.String)) for part in parts])
    return replace(
        first,
        frame=frame.with_columns(pl.col("row_id").str.slice(0, ID_DIGITS)),
        rejected=first.rejected.clear(),
        n_read=frame.height,
        shards=tuple(shard for part in parts for shard in part.shards),
        shard=np.concatenate([part.shard + offset for part, offset in zip(parts, offsets, strict=False)]).astype(
            np.int32
        ),
        position=np.concatenate([part.position for part in parts]),
        _columns={},
    )


def check_same_columns(job: Job, schema: Schema | None) -> None:
    """Refuse a job file that says to read other columns than those in which the snapshots of its folder were read.

    Args:
        job: the job.
        schema: of the rows before; None when there are none.

    Raises:
        SettingsError: it says so; the rows of one folder have one schema.
    """
    reading = job.settings.rows
    if schema is None:
        return
    wanted = None if reading.columns is None else build_mapped_schema(reading.columns)
    is_other = wanted is not None and (
        (wanted.kind, wanted.required) != (schema.kind, schema.required)
        or any(schema.columns.get(role) != names for role, names in wanted.columns.items())
    )
    if is_other or reading.schema_name not in (None, schema.name):
        found = reading.schema_name if wanted is None else wanted.describe(wanted.column_names)
        raise SettingsError(
            f"{job.path}: [rows] must read what the snapshots in {job.folder} hold, "
            f"{schema.describe(schema.column_names)}, found {found}; set it back, or name another folder in [output]"
        )


def _is_changing(error: InputError) -> bool:
    return "changed while it was being read" in str(error)


def find_changed_files(rows: Dataset) -> list[str]:
    """Return the files of the rows that changed since they were read."""
    found = []
    for source in rows.sources:
        try:
            source.check_unchanged()
        except InputError:
            found.append(source.path)
    return found
