"""New rows: what the sources hold, without the rows that were evaluated before."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from datetime import datetime
from typing import Any

import polars as pl

from thresher.dataset import Dataset, Schema
from thresher.dataset.rejection import NoRowsError
from thresher.errors import InputError
from thresher.jobs.events import EventLog
from thresher.jobs.job_file import Job
from thresher.jobs.settings import Source
from thresher.jobs.sources.addresses import redact_address
from thresher.jobs.sources.batches import EmptyFile, SourceBatch, map_batch, refuse_unusable_sources
from thresher.jobs.sources.database import read_query
from thresher.jobs.sources.scan import Scan, SourceFile
from thresher.jobs.sources.source_settings import SourceSettings

ATTEMPTS = 3
WAIT_S = 0.5


class SourceReader:
    """Reads the sources of a job.

    Attributes:
        skipped: what could not be read and will be tried again: (name, why).
        empty_files: files without a usable row.
    """

    def __init__(self, job: Job, *, schema: Schema | None, since: datetime | None, log: EventLog) -> None:
        self._job = job
        self._since = since
        self._log = log
        self._settings = SourceSettings(job, schema)
        self._known: set[str] = set()
        self.skipped: list[tuple[str, str]] = []
        self.empty_files: list[EmptyFile] = []

    @property
    def schema(self) -> Schema | None:
        """Schema of the rows; None until the first ones were read."""
        return self._settings.schema

    def read_all(self, scan: Scan, unsettled: set[str], *, ledger: Sequence[dict[str, Any]] = ()) -> list[SourceBatch]:
        """Read the new files, and the other sources whose content is new.

        Args:
            scan: of the sources.
            unsettled: paths of files that are left to the next run.
            ledger: what earlier runs read of the sources, where its rows are not read again.

        Raises:
            InputError: a source cannot be read, or none of its rows was ever usable.
        """
        settled = [one for one in scan.new_files if str(one.file.path) not in unsettled]
        waiting = [one.name for one in scan.new_files if str(one.file.path) in unsettled]
        self.skipped += [*scan.skipped, *((name, "it kept changing while it was being read") for name in waiting)]
        self._known = {str(entry["source"]) for entry in ledger}
        groups = [self.read_files(group) for group in self._settings.group_files(settled)]
        batches = [batch for batch in [*groups, *self._read_others(scan.known_hashes)] if batch is not None]
        schema = self._settings.choose_schema([(batch.ledger[0]["source"], batch.rows) for batch in batches])
        if schema is not None and self._settings.is_mixture:
            batches = [map_batch(batch, schema) for batch in batches]
        refuse_unusable_sources(batches, self.empty_files, known=ledger)
        return batches

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
        rows = self._settings.load(files[0].source, [str(one.file.path) for one in files])
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
                return self._settings.load(name, source.hub, config=source.config, split=source.split)
            addresses, base = self._log.addresses, self._job.base
            url, query = source.url or "", source.sql or ""
            frame = read_query(url, query, since=self._since, addresses=addresses, where=name, base=base)
            return self._settings.load(name, frame) if frame.height else None
        except InputError as error:
            if isinstance(error, NoRowsError) and name not in self._known:
                raise InputError(f"source {name}: {error}") from None
            if not self._is_tolerated(error):
                raise
            self._skip(where, error)
            return None


def _describe_file(one: SourceFile) -> dict[str, Any]:
    """Return the entry of a file in the ledger."""
    return {"kind": "file", "source": one.source, "name": one.name, "bytes": one.bytes, "sha256": one.sha256}


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
