"""Looking at a job without running it: what it would read, its runs, and their differences."""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.remote.address import is_address, parse_address
from thresher.artifacts.remote.fetch import localize
from thresher.artifacts.remote.places import show_place
from thresher.artifacts.stored import read_table
from thresher.curation.rule import check_order
from thresher.errors import InputError, ManifestError, NotFoundError
from thresher.jobs.drift.distributions import Drift, count_top_values, measure_drifts
from thresher.jobs.history import FILE, History, HistoryEntry
from thresher.jobs.job_file import Job, read_job
from thresher.jobs.settings import Source
from thresher.jobs.snapshots.folder import JobFolder, Snapshot, format_version
from thresher.jobs.snapshots.read import DATA, DISTRIBUTIONS, TOPICS, read_json
from thresher.jobs.snapshots.remote_folder import open_to_read
from thresher.jobs.snapshots.table import ROW_ID, SOURCE
from thresher.jobs.sources.addresses import find_references, has_plaintext_password, redact_address
from thresher.jobs.sources.scan import HashCache, scan_sources
from thresher.jobs.sources.source_settings import check_same_columns
from thresher.jobs.state import PreviousSnapshot

_VERSION = re.compile(r"v0*(\d+)")
MAX_NUMBER = (1 << 63) - 1  # that SQLite can hold


def check_job(path: str | Path) -> dict[str, Any]:
    """Check a job file, and describe what a run would read; no row is read, nothing is written.

    Returns:
        `job`, `steps`, `sources`, `files_new`, `files_known`, `output`, `latest`, `notes`.

    Raises:
        SettingsError: the job file has problems.
        InputError: a named file is not there.
        OutputError: the output folder holds something else.
    """
    job = read_job(path)
    folder = open_to_read(job)
    folder.check_free()
    latest = folder.latest()
    previous, cache = PreviousSnapshot.read(latest), HashCache(folder.path)
    check_same_columns(job, previous.schema)
    hashes = previous.list_known_hashes(cache)
    scan = scan_sources(job, previous.ledger, known_hashes=hashes, since=None, cache=cache)
    return {
        "job": job.name,
        "steps": [rule.name for rule in job.rules],
        "sources": [
            {"name": job.source_name(number), "what": _describe_source(source)}
            for number, source in enumerate(job.settings.sources)
        ],
        "files_new": len(scan.new_files),
        "files_known": len(scan.known_files),
        "output": show_place(folder.path),
        "latest": None if latest is None else format_version(latest.version),
        "notes": [*scan.notes, *_find_problems(job, folder)],
    }


def _describe_source(source: Source) -> str:
    if source.files is not None:
        return ", ".join(str(parse_address(name)) if is_address(name) else name for name in source.files)
    return f"Hub dataset {source.hub}" if source.hub is not None else f"query at {redact_address(source.url or '')}"


def _find_problems(job: Job, folder: JobFolder) -> list[str]:
    """Return what may go wrong in a run, in sentences."""
    notes = check_order(job.rules)
    addresses = [source.url for source in job.settings.sources if source.url is not None]
    addresses += [job.settings.notify.webhook] if job.settings.notify.webhook is not None else []
    unset = sorted({name for address in addresses for name in find_references(address)} - set(os.environ))
    notes += [f"the environment variable {name} is not set here" for name in unset]
    if any(has_plaintext_password(address) for address in addresses):
        notes.append("an address contains a password in plain text; write ${NAME}, and set it where the job runs")
    if job.output_address is not None:
        return notes
    parent = next((path for path in (folder.path, *folder.path.parents) if path.exists()), None)
    if parent is None or not os.access(parent, os.W_OK):
        notes.append(f"{folder.path} cannot be written")
    return notes


def open_job_folder(where: str | Path) -> JobFolder:
    """Return the output folder that a job file or the folder itself names.

    Raises:
        InputError: it is neither.
    """
    path = Path(localize(where))
    if path.is_dir():
        folder = JobFolder(path)
        if not folder.snapshots.is_dir():
            raise InputError(f"{path}: must be a job file or the output folder of a job, found another folder")
        return folder
    return open_to_read(read_job(path), with_all_rows=True)


def list_runs(where: str | Path, *, limit: int | None = None) -> list[HistoryEntry]:
    """Return the runs of a job file or an output folder, newest first, at most `limit`."""
    with _open_history(open_job_folder(where)) as history:
        return history.list_runs(limit=limit)


@contextmanager
def _open_history(folder: JobFolder) -> Iterator[History]:
    try:
        yield History(folder.path)
    except sqlite3.Error as error:
        if not History(folder.path).is_damaged(error):
            raise ManifestError(
                f"{folder.path / FILE}: the history must be readable, got '{error}'; try again"
            ) from None
        raise ManifestError(
            f"{folder.path / FILE}: the history must be a SQLite database, got '{error}'; the next run begins a new one"
        ) from None


def find_run(where: str | Path, name: str) -> HistoryEntry:
    """Return the run of a number, or the one that made a version ("v12", "latest").

    Raises:
        NotFoundError: there is none.
    """
    folder = open_job_folder(where)
    with _open_history(folder) as history:
        if name.isdecimal():
            entries = history.list_runs(limit=1, number=min(int(name), MAX_NUMBER))
        else:
            entries = history.list_runs(limit=1, version=min(_parse_version(folder, name), MAX_NUMBER))
        numbers = None if entries else history.find_number_range()
    if not entries:
        known = "none" if numbers is None else f"{numbers[0]} to {numbers[1]}"
        raise NotFoundError(f"run '{name}' not found; there are: {known}; or give a version such as v1, or latest")
    return entries[0]


def _parse_version(folder: JobFolder, name: str) -> int:
    match = _VERSION.fullmatch(name)
    if match is not None:
        return int(match[1])
    latest = folder.latest()
    if name != "latest" or latest is None:
        there = folder.describe_versions()
        raise NotFoundError(f"snapshot '{name}' not found; there are: {there}; or give the number of a run, or latest")
    return latest.version


def _open_snapshot(where: str | Path, name: str) -> Snapshot:
    folder = open_job_folder(where)
    version = find_run(where, name).version if name.isdecimal() else _parse_version(folder, name)
    if version is None:
        raise NotFoundError(f"run {name} published no snapshot; choose one that did from 'thresher curate history'")
    return folder.open_snapshot(version)


def compare_snapshots(where: str | Path, before: str, after: str) -> dict[str, Any]:
    """Compare two snapshots that are still there.

    Args:
        where: the job file, or the output folder.
        before: number of a run, a version, or "latest".
        after: the same.

    Returns:
        `before`, `after` (versions), `rows_before`, `rows_after`, `entered`, `left`, `stayed`,
        `entered_by_source`, `left_by_source`, `drift`.

    Raises:
        NotFoundError: there is no such run.
    """
    first, second = _open_snapshot(where, before), _open_snapshot(where, after)
    old, new = _read_ids(first), _read_ids(second)
    entered = new.join(old, on=ROW_ID, how="anti")
    left = old.join(new, on=ROW_ID, how="anti")
    return {
        "before": first.version,
        "after": second.version,
        "rows_before": old.height,
        "rows_after": new.height,
        "entered": entered.height,
        "left": left.height,
        "stayed": old.height - left.height,
        "entered_by_source": count_top_values(entered[SOURCE]),
        "left_by_source": count_top_values(left[SOURCE]),
        "drift": [one.to_json() for one in _measure_drifts(first, second)],
    }


def _measure_drifts(before: Snapshot, after: Snapshot) -> list[Drift]:
    hashes = [one.manifest.content["hashes"].get(TOPICS) for one in (before, after)]
    return measure_drifts(
        read_json(before, DISTRIBUTIONS), read_json(after, DISTRIBUTIONS), same_topics=hashes[0] == hashes[1]
    )


def _read_ids(snapshot: Snapshot) -> pl.DataFrame:
    names = [snapshot.path / DATA / entry["name"] for entry in snapshot.manifest.content["files"]]
    if not snapshot.manifest.content["counts"]["rows"]:
        return pl.DataFrame(schema={ROW_ID: pl.String, SOURCE: pl.String})
    return pl.concat([read_table(name, columns=[ROW_ID, SOURCE]) for name in names])
