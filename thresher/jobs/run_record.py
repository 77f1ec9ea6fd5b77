"""The account of a run: what is told of it at its end, whatever the end: history, textfile, webhook."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from thresher.errors import ThresherError
from thresher.jobs.events import Event, OnEvent
from thresher.jobs.history import History
from thresher.jobs.job_file import Job
from thresher.jobs.locking.lock import Owner
from thresher.jobs.notify import post, should_notify, write_metrics
from thresher.jobs.pipeline import Run
from thresher.jobs.snapshots.folder import JobFolder, Snapshot
from thresher.jobs.sources.addresses import Addresses

EXIT_CODES: Mapping[str, int] = {
    "done": 0,
    "nothing-new": 3,
    "gate": 4,
    "busy": 75,
    "error": 2,
    "bug": 1,
    "interrupted": 130,
}


class RunRecord:
    """What is told of a run at its end, whatever the end: history, textfile, webhook."""

    def __init__(self, job: Job, folder: JobFolder, addresses: Addresses, run: Run, tell: OnEvent) -> None:
        self._job = job
        self._folder = folder
        self._addresses = addresses
        self._tell = tell
        self._history = History(folder.path)
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._clock = time.monotonic()
        self._run = run
        self._is_ended = False
        self._before: Snapshot | None = None
        self.number: int | None = None
        self.report: dict[str, Any] = {}

    def __enter__(self) -> RunRecord:
        return self

    def begin(self, recovered: int | None) -> None:
        """Open the history; a damaged one is set aside.

        Args:
            recovered: version that a killed run had published, or None.
        """
        self._before = latest = self._folder.latest()
        parent = None if latest is None else latest.version
        owner = str(Owner.this())
        try:
            self.number = self._history.begin(started=self._started, owner=owner, parent=parent, recovered=recovered)
        except sqlite3.OperationalError as error:
            self._lost(error)
        except sqlite3.DatabaseError:
            aside = self._history.set_aside()
            self.warn("history", f"the history was damaged; it is now {aside.name}, and a new one begins")
            self.number = self._history.begin(started=self._started, owner=owner, parent=parent)

    def facts(self) -> dict[str, Any]:
        """Return what a manifest says in its section `run`."""
        seconds = round(time.monotonic() - self._clock, 3)
        return {"created": self._started, "seconds": seconds, "number": self.number, "notes": list(self._run.notes)}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Note an end that nobody planned; the error goes on."""
        if error is not None:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """Note an end that nobody planned, once; without the lock, others are told and the history is not touched."""
        if self._is_ended:
            return
        outcome = "bug"
        if isinstance(error, ThresherError | OSError):
            outcome = "error"
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            outcome = "interrupted"
        said = str(error) if outcome == "error" else f"{type(error).__name__}: {error}"
        self.end(outcome, version=None, newest=None, message=self._addresses.redact(said))

    def end(self, outcome: str, *, version: int | None, newest: int | None, message: str | None) -> None:
        """Note how the run ended, and tell others.

        Args:
            outcome: a key of `EXIT_CODES`.
            version: of the snapshot it published.
            newest: version of the newest snapshot.
            message: what went wrong.
        """
        self._is_ended = True
        seconds = round(time.monotonic() - self._clock, 3)
        told: list[dict[str, Any]] = []
        notify = self._job.settings.notify
        if notify.prometheus is not None:
            path = self._job.place(notify.prometheus)
            told.append(write_metrics(path, self._job.name, self._metrics(outcome, seconds, newest)))
        if notify.webhook is not None and should_notify(notify, outcome):
            payload = {
                "job": self._job.name,
                "run": self.number,
                "outcome": outcome,
                "exit_code": EXIT_CODES[outcome],
                "version": version,
                "seconds": seconds,
                "message": message,
                "report": self.report,
            }
            told.append(post(notify, payload, self._addresses))
        for one in told:
            if "error" in one:
                self.warn("notify", f"a notification failed ({one['error']}); the run itself is not touched by it")
        report = {**self.report, "notes": list(self._run.notes), "notified": told}
        if self.number is None:
            return
        try:
            self._history.end(
                self.number, seconds=seconds, outcome=outcome, exit_code=EXIT_CODES[outcome], version=version,
                message=message, report=report,
            )  # fmt: skip
        except sqlite3.Error as error:
            self._lost(error)

    def _metrics(self, outcome: str, seconds: float, newest: int | None) -> dict[str, tuple[str, float]]:
        found: dict[str, tuple[str, float]] = {
            "job_last_run_timestamp_seconds": ("When the last run ended.", time.time()),
            "job_last_run_seconds": ("How long the last run took.", seconds),
            "job_last_exit_code": ("Exit code of the last run.", EXIT_CODES[outcome]),
        }
        snapshot = self._before if newest is None else self._folder.open_snapshot(newest)
        if snapshot is not None:
            created = datetime.fromisoformat(snapshot.manifest.content["run"]["created"]).timestamp()
            found["job_snapshot_version"] = ("Version of the newest snapshot.", snapshot.version)
            found["job_snapshot_timestamp_seconds"] = ("When the run of the newest snapshot began.", created)
        for name, value in self.report.get("counts", {}).items():
            found[f'job_rows{{what="{name}"}}'] = ("Rows and files of the last run.", value)
        for drift in self.report.get("drift", []):
            name = f'job_drift{{measure="{drift["measure"]}",of="{drift["of"]}"}}'
            found[name] = ("Jensen-Shannon divergence from the run before.", drift["jensen_shannon"])
        return found

    def _lost(self, error: sqlite3.Error) -> None:
        self.warn("history", f"the history could not be written ({error}); the run itself is not touched by it")

    def warn(self, name: str, message: str) -> None:
        """Tell of something odd, without secrets."""
        self._tell(Event(name=name, message=self._addresses.redact(message), level="warning"))
