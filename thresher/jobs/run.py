"""Running a job: lock, update, gates, publication, exit code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

from thresher.artifacts.folder import MANIFEST
from thresher.artifacts.locking.lock import BusyError, Lock
from thresher.errors import InputError, OutputError
from thresher.jobs.events import Event, EventLog, Level
from thresher.jobs.job_file import Job, read_job
from thresher.jobs.pipeline import RunContext, UpdateResult, build_update, write_update
from thresher.jobs.run_record import EXIT_CODES, RunRecord
from thresher.jobs.snapshots.folder import JobFolder, format_version
from thresher.jobs.snapshots.remote_folder import open_to_read, open_to_write
from thresher.jobs.sources.addresses import has_plaintext_password
from thresher.jobs.sources.scan import HashCache

Outcome = Literal["done", "nothing-new", "gate", "busy"]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        outcome: "done": there is a new snapshot; "nothing-new"; "gate": a drift or quality gate
            failed, nothing was published; "busy": another run is at work.
        snapshot: folder of the newest snapshot, or None when there is none.
        version: its number, or None.
        number: of the run in the history; None for a dry run, and when another was at work.
        report: counts, changes, drift and alarms, in JSON values.
        is_dry: nothing was written.
    """

    outcome: Outcome
    snapshot: Path | None
    version: int | None
    number: int | None
    report: Mapping[str, Any] = field(default_factory=dict)
    is_dry: bool = False

    @property
    def exit_code(self) -> int:
        """What the command exits with: 0 done, 3 nothing new, 4 gate, 75 busy."""
        return EXIT_CODES[self.outcome]


def run_job(
    path: str | Path,
    *,
    dry_run: bool = False,
    full: bool = False,
    since: str | None = None,
    accept: bool = False,
    on_event: Callable[[Event], None] | None = None,
    announce: Callable[[RunResult], None] | None = None,
) -> RunResult:
    """Add new rows from a job's sources, and write the next snapshot.

    The same job on the same sources gives the same snapshot, however often it was killed and
    started again.

    Args:
        path: of the job file.
        dry_run: work everything out, and write nothing but computed features; no adapter is
            trained.
        full: evaluate every row of the sources again.
        since: skip files that were last modified before this date or time; `:since` in queries.
        accept: publish even when a gate fails.
        on_event: called with each Event.
        announce: called with the result at the end. A new snapshot counts as announced when it has
            returned; until then, each further run reports that snapshot.

    Raises:
        SettingsError: the job file has problems.
        InputError: a source cannot be read.
        OutputError: the output folder cannot be written.
        ManifestError: the newest snapshot is damaged.
    """
    job = read_job(path)
    start = None if since is None else parse_time(since)
    log, folder = EventLog(on_event), open_to_read(job) if dry_run else open_to_write(job)
    open_run = partial(RunContext, job=job, folder=folder, log=log, is_full=full, since=start, is_training=not dry_run)
    if dry_run:
        update = build_update(open_run(cache=HashCache(folder.path)))
        result = _describe_dry_run(folder, update, accept=accept)
    else:
        result = _run_once(job, folder, log, open_run, accept=accept)
    if announce is not None:
        announce(result)
    if result.outcome == "done" and not dry_run and result.version is not None:
        folder.mark_announced(result.version)  # last: who is killed before has not said it
    return result


def _run_once(
    job: Job, folder: JobFolder, log: EventLog, open_run: Callable[..., RunContext], *, accept: bool
) -> RunResult:
    """Run under the lock of the folder, and record how that ended."""
    record = RunRecord(job, folder, log)
    try:
        folder.create()
        stale_s = job.settings.lock.stale_s
        lock = folder.make_lock(stale_s, partial(log.warn, "lock"))
        with lock, folder.opened(), record:
            if lock.taken_from is not None:
                log.warn("lock", f"took over the lock of {lock.taken_from}, which is no longer running")
            return _run_locked(open_run(cache=HashCache(folder.path)), lock, record, accept=accept)
    except BusyError as error:
        log.warn("busy", str(error))
        return RunResult(outcome="busy", snapshot=None, version=None, number=None)
    except OutputError as error:
        record.finish_with_error(error)
        raise


def parse_time(text: str) -> datetime:
    """Return the time of "2026-11-20" or "2026-11-20T03:00:00+01:00"; UTC without a zone.

    Raises:
        InputError: the text is no time.
    """
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InputError(f"--since: must be a date or time such as 2026-11-20T03:00, got '{text}'") from None
    return time.replace(tzinfo=UTC) if time.tzinfo is None else time


def _run_locked(run: RunContext, lock: Lock, record: RunRecord, *, accept: bool) -> RunResult:
    folder, log = run.folder, run.log
    recovered = folder.recover()
    record.start(None if recovered is None else recovered.version)
    folder.save_state()
    if recovered is not None:
        name = format_version(recovered.version)
        log.warn("recovered", f"{name} was completed by a run that was killed; it is the newest snapshot")
    if any(source.url is not None and has_plaintext_password(source.url) for source in run.job.settings.sources):
        log.warn("secret", "a database address contains a password in plain text; write ${NAME}")
    result = build_update(run)
    record.report = dict(result.report)
    latest = folder.latest()
    newest = None if latest is None else latest.version
    for alarm in result.alarms:
        level: Level = "error" if alarm.is_failure and not accept else "warning"
        log.send("gate", alarm.message, level, alarm.to_json())
    failures = [alarm for alarm in result.alarms if alarm.is_failure]
    if failures and not accept:
        run.cache.save()
        return _finish(folder, record, "gate", newest, message=failures[0].message)
    if result.choice is None:
        if newest is not None:
            run.cache.mark_exhausted([str(entry["sha256"]) for entry in result.inputs.incoming.ledger], newest)
        run.cache.save()
        return _finish(folder, record, "nothing-new" if recovered is None else "done", newest)
    version = _publish(run, lock, result, record)
    run.cache.save()
    counts = result.report["counts"]
    message = f"{counts['rows']:,} rows, {counts['entered']:,} of them new, {counts['left']:,} removed"
    passed = f"{counts['passed']:,} of {counts['new']:,} new rows passed the rules"
    log.send("published", f"{format_version(version)}: {message}; {passed}", fields={"version": version, **counts})
    _prune(folder, run.job.settings.output.keep, log)
    return _finish(folder, record, "done", version)


def _publish(run: RunContext, lock: Lock, result: UpdateResult, record: RunRecord) -> int:
    version = result.inputs.version
    try:
        write_update(run, result, run_section=record.describe_run())
        return run.folder.publish(version, check=lock.check).version
    except OSError:
        run.folder.discard(version)  # a full disk: computed features are in the cache
        raise


def _prune(folder: JobFolder, keep: int, log: EventLog) -> None:
    """Delete old snapshots; one that cannot be deleted does not fail a run that has published."""
    try:
        deleted, held = folder.prune(keep)
        for version in deleted:
            log.send("pruned", f"deleted {format_version(version)}; the {keep} newest snapshots are kept")
        for version in held:
            log.send("held", f"{format_version(version)} is kept for now: a reader has locked its {MANIFEST}")
    except OSError as error:
        log.warn("pruned", f"an old snapshot could not be deleted ({error.strerror or error})")


def _finish(
    folder: JobFolder, record: RunRecord, outcome: Outcome, newest: int | None, *, message: str | None = None
) -> RunResult:
    record.finish(outcome, version=newest if outcome == "done" else None, newest=newest, message=message)
    snapshot = None if newest is None else folder.snapshot_path(newest)
    return RunResult(outcome=outcome, snapshot=snapshot, version=newest, number=record.number, report=record.report)


def _describe_dry_run(folder: JobFolder, result: UpdateResult, *, accept: bool) -> RunResult:
    latest = folder.latest()
    outcome: Outcome = "nothing-new" if result.choice is None else "done"
    if not accept and any(alarm.is_failure for alarm in result.alarms):
        outcome = "gate"
    snapshot, version = (None, None) if latest is None else (latest.path, latest.version)
    return RunResult(
        outcome=outcome, snapshot=snapshot, version=version, number=None, report=result.report, is_dry=True
    )
