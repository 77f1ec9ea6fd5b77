"""Running a job: lock, transaction, gates, exit code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from thresher.artifacts.folder import MANIFEST
from thresher.errors import OutputError
from thresher.jobs.events import Event, Level, OnEvent
from thresher.jobs.job_file import Job, read_job
from thresher.jobs.locking.lock import BusyError, Lock
from thresher.jobs.pipeline import Run, parse_time
from thresher.jobs.run_record import EXIT_CODES, RunRecord
from thresher.jobs.snapshots.folder import JobFolder, format_version
from thresher.jobs.sources.addresses import Addresses, has_plaintext_password
from thresher.jobs.sources.scan import HashCache
from thresher.jobs.state import Outcome

Ended = Literal["done", "nothing-new", "gate", "busy"]


@dataclass(frozen=True, kw_only=True)
class RunResult:
    """How a run ended.

    Attributes:
        outcome: "done": there is a new snapshot; "nothing-new"; "gate": a drift or quality gate
            failed, nothing was published; "busy": another run is at work.
        snapshot: folder of the newest snapshot, or None when there is none.
        version: its number, or None.
        number: of the run in the history; None for a dry run, and when another was at work.
        report: counts, churn, drift and alarms, in JSON values.
        is_dry: nothing was written.
    """

    outcome: Ended
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
) -> RunResult:
    """Make the next snapshot of a job from what is new at its sources.

    The same job on the same sources gives the same snapshot, however often it was killed and
    started again.

    Args:
        path: of the job file.
        dry_run: work everything out, and write nothing but computed features.
        full: judge every row of the sources anew.
        since: pass over files that changed last before this date or time; `:since` in queries.
        accept: publish even when a gate fails.
        on_event: called with each Event.

    Raises:
        SettingsError: the job file has problems.
        InputError: a source cannot be read.
        OutputError: the output folder cannot be written.
        ManifestError: the newest snapshot is damaged.
    """
    job = read_job(path)
    after = None if since is None else parse_time(since)
    addresses = Addresses()
    tell = _silent if on_event is None else on_event
    folder = JobFolder(job.folder)
    if dry_run:
        run = Run(job, folder, full=full, since=after, addresses=addresses, on_event=tell)
        return _planned(folder, run.outcome(cache=HashCache(folder.path)), accept=accept)
    lock = Lock(
        folder.path,
        stale_s=job.settings.lock.stale_s,
        on_wait=lambda message: tell(Event(name="lock", message=message, level="warning")),
    )
    run = Run(job, folder, full=full, since=after, addresses=addresses, on_event=tell)
    account = RunRecord(job, folder, addresses, run, tell)
    try:
        folder.make()
        with lock, account:
            if lock.taken_from is not None:
                account.warn("lock", f"the lock was left by {lock.taken_from}, which is dead")
            return _locked(job, folder, lock, run, account, tell, accept=accept)
    except BusyError as error:
        tell(Event(name="busy", message=str(error), level="warning"))
        return RunResult(outcome="busy", snapshot=None, version=None, number=None)
    except OutputError as error:
        account.fail(error)
        raise


def _locked(
    job: Job, folder: JobFolder, lock: Lock, run: Run, account: RunRecord, tell: OnEvent, *, accept: bool
) -> RunResult:
    recovered = folder.recover()
    account.begin(None if recovered is None else recovered.version)
    if recovered is not None:
        account.warn(
            "recovered", f"{format_version(recovered.version)} was finished by a run that was killed; it is the newest"
        )
    if any(source.url is not None and has_plaintext_password(source.url) for source in job.settings.sources):
        account.warn("secret", "a database address holds a password in plain; write ${NAME}")
    cache = HashCache(folder.path)
    outcome = run.outcome(cache=cache)
    account.report = dict(outcome.report)
    latest = folder.latest()
    newest = None if latest is None else latest.version
    for alarm in outcome.alarms:
        level: Level = "error" if alarm.is_failure and not accept else "warning"
        tell(Event(name="gate", message=alarm.message, level=level, fields=alarm.to_json()))
    failures = [alarm for alarm in outcome.alarms if alarm.is_failure]
    if failures and not accept:
        cache.save()
        return _ended(folder, account, "gate", newest, message=failures[0].message)
    if outcome.choice is None:
        if newest is not None and outcome.incoming is not None:
            cache.spend([str(entry["sha256"]) for entry in outcome.incoming.ledger], newest)
        cache.save()
        return _ended(folder, account, "nothing-new" if recovered is None else "done", newest)
    version = _published(folder, lock, run, outcome, account)
    cache.save()
    tell(Event(name="published", message=_told(outcome), fields={"version": version, **outcome.report["counts"]}))
    _prune(folder, job.settings.output.keep, account, tell)
    return _ended(folder, account, "done", version)


def _published(folder: JobFolder, lock: Lock, run: Run, outcome: Outcome, account: RunRecord) -> int:
    try:
        run.write(outcome, run=account.facts())
        return folder.publish(outcome.version, check=lock.check).version
    except OSError:
        folder.discard(outcome.version)  # a full disk: features are cached, so nothing worth keeping is lost
        raise


def _prune(folder: JobFolder, keep: int, account: RunRecord, tell: OnEvent) -> None:
    """Delete old snapshots; that one cannot be deleted is told, and does not fail a run that has published."""
    try:
        deleted, held = folder.prune(keep)
        for version in deleted:
            tell(Event(name="pruned", message=f"{format_version(version)} was deleted, {keep} newer ones stay"))
        for version in held:
            tell(Event(name="held", message=f"{format_version(version)} stays for now, a reader holds its {MANIFEST}"))
    except OSError as error:
        account.warn("pruned", f"an old snapshot could not be deleted ({error.strerror or error})")


def _ended(
    folder: JobFolder, account: RunRecord, outcome: Ended, newest: int | None, *, message: str | None = None
) -> RunResult:
    account.end(outcome, version=newest if outcome == "done" else None, newest=newest, message=message)
    if outcome == "done":
        folder.mark_announced()
    return RunResult(
        outcome=outcome,
        snapshot=None if newest is None else folder.snapshot_path(newest),
        version=newest,
        number=account.number,
        report=account.report,
    )


def _planned(folder: JobFolder, outcome: Outcome, *, accept: bool) -> RunResult:
    latest = folder.latest()
    ended: Ended = "nothing-new" if outcome.choice is None else "done"
    if not accept and any(alarm.is_failure for alarm in outcome.alarms):
        ended = "gate"
    return RunResult(
        outcome=ended,
        snapshot=None if latest is None else latest.path,
        version=None if latest is None else latest.version,
        number=None,
        report=outcome.report,
        is_dry=True,
    )


def _told(outcome: Outcome) -> str:
    counts = outcome.report["counts"]
    return (
        f"{format_version(outcome.version)}: {counts['rows']:,} rows, {counts['entered']:,} of them new, "
        f"{counts['left']:,} left; of {counts['new']:,} new rows the rules kept {counts['passed']:,}"
    )


def _silent(event: Event) -> None:
    del event
