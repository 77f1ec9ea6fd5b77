"""The record of a run: however it ends, history, textfile and webhook hear of it."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from types import TracebackType
from typing import Any

from thresher.artifacts.locking.lock import Owner
from thresher.errors import INTERNAL_ERROR, find_exit_code
from thresher.jobs.events import EventLog
from thresher.jobs.history import History
from thresher.jobs.job_file import Job
from thresher.jobs.notify import post_webhook, should_notify, write_metrics
from thresher.jobs.snapshots.folder import JobFolder, Snapshot

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
    """Records a run; as a context manager, also an error that ends it."""

    def __init__(self, job: Job, folder: JobFolder, log: EventLog) -> None:
        self._job = job
        self._folder = folder
        self._log = log
        self._history = History(folder.path)
        self._started = datetime.now(UTC).isoformat(timespec="seconds")
        self._clock = time.monotonic()
        self._is_finished = False
        self._previous: Snapshot | None = None
        self.number: int | None = None
        self.report: dict[str, Any] = {}

    def __enter__(self) -> RunRecord:
        return self

    def start(self, recovered: int | None) -> None:
        """Start the entry in the history; `recovered` is what a killed run had published."""
        self._previous = latest = self._folder.latest()
        parent = None if latest is None else latest.version
        owner = str(Owner.current())
        try:
            self.number = self._history.start_run(
                started=self._started, owner=owner, parent=parent, recovered=recovered
            )
        except sqlite3.Error as error:
            if not self._history.is_damaged(error):
                self._warn_unwritten(error)
                return
            moved = self._history.move_damaged()
            self._log.warn("history", f"the history was damaged: it is now {moved.name}, and a new one was started")
            self.number = self._history.start_run(started=self._started, owner=owner, parent=parent)

    def describe_run(self) -> dict[str, Any]:
        """Return the section `run` of a manifest."""
        notes = list(self._log.notes)
        return {"created": self._started, "seconds": self._seconds(), "number": self.number, "notes": notes}

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Record an unplanned end; the error goes on."""
        if error is not None:
            self.finish_with_error(error)

    def finish_with_error(self, error: BaseException) -> None:
        """Record an unplanned end, once; a run that never had the lock leaves the history alone."""
        if self._is_finished:
            return
        code: str | int | None = find_exit_code(error)
        outcome = "bug" if code == INTERNAL_ERROR else "error"
        if isinstance(error, KeyboardInterrupt | SystemExit):
            outcome, code = "interrupted", error.code if isinstance(error, SystemExit) else None
        message = str(error) if outcome == "error" else f"{type(error).__name__}: {error}"
        message = self._log.addresses.redact(message)
        self.finish(outcome, version=None, newest=None, message=message, exit_code=code)

    def finish(
        self,
        outcome: str,
        *,
        version: int | None,
        newest: int | None,
        message: str | None,
        exit_code: str | int | None = None,
    ) -> None:
        """Record how the run ended, and notify others; by default with the outcome's exit code."""
        self._is_finished = True
        ending = {
            "outcome": outcome,
            "exit_code": exit_code if isinstance(exit_code, int) else EXIT_CODES[outcome],
            "version": version,
            "seconds": self._seconds(),
            "message": message,
        }
        report = {**self.report, "notes": list(self._log.notes), "notified": self._notify(ending, newest)}
        if self.number is None:
            return
        try:
            self._history.finish_run(self.number, ending, report)
        except sqlite3.Error as error:
            self._warn_unwritten(error)

    def _notify(self, ending: Mapping[str, Any], newest: int | None) -> list[dict[str, Any]]:
        """Write the textfile and call the webhook; return what came of it."""
        notified: list[dict[str, Any]] = []
        notify = self._job.settings.notify
        if notify.prometheus is not None:
            path = self._job.resolve_path(notify.prometheus)
            notified.append(write_metrics(path, self._job.name, self._collect_metrics(ending, newest)))
        if notify.webhook is not None and should_notify(notify, ending["outcome"]):
            payload = {"job": self._job.name, "run": self.number, **ending, "report": self.report}
            notified.append(post_webhook(notify, payload, self._log.addresses))
        for entry in notified:
            if "error" in entry:
                self._log.warn("notify", f"a notification failed ({entry['error']}); the run itself is not affected")
        return notified

    def _collect_metrics(self, ending: Mapping[str, Any], newest: int | None) -> dict[str, tuple[str, float]]:
        metrics: dict[str, tuple[str, float]] = {
            "job_last_run_timestamp_seconds": ("When the last run ended.", time.time()),
            "job_last_run_seconds": ("How long the last run took.", ending["seconds"]),
            "job_last_exit_code": ("Exit code of the last run.", ending["exit_code"]),
        }
        snapshot = self._previous if newest is None else self._folder.open_snapshot(newest)
        if snapshot is not None:
            created = datetime.fromisoformat(snapshot.manifest.content["run"]["created"]).timestamp()
            metrics["job_snapshot_version"] = ("Version of the newest snapshot.", snapshot.version)
            metrics["job_snapshot_timestamp_seconds"] = ("When the run of the newest snapshot began.", created)
        for name, value in self.report.get("counts", {}).items():
            metrics[f'job_rows{{what="{name}"}}'] = ("Rows and files of the last run.", value)
        for drift in self.report.get("drift", []):
            name = f'job_drift{{measure="{drift["measure"]}",of="{drift["of"]}"}}'
            metrics[name] = ("Jensen-Shannon divergence from the run before.", drift["jensen_shannon"])
        return metrics

    def _seconds(self) -> float:
        return round(time.monotonic() - self._clock, 3)

    def _warn_unwritten(self, error: sqlite3.Error) -> None:
        self._log.warn("history", f"the history could not be written ({error}); the run itself is not affected")
