"""The churn report: rows in, rows out, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thresher.jobs.drift.distributions import Drift, count_top_values
from thresher.jobs.drift.gates import Alarm
from thresher.jobs.sources.incoming import Incoming
from thresher.jobs.sources.scan import Scan
from thresher.jobs.update.choose import Choice


def count_incoming(found: Scan, incoming: Incoming) -> dict[str, int]:
    """Return how many files and rows there were, and how many of them are new."""
    return {
        "files_new": len(found.fresh),
        "files_known": len(found.known),
        "files_gone": len(found.gone),
        "read": incoming.n_read,
        "unusable": incoming.n_unusable,
        "known": incoming.n_known,
        "repeated": incoming.n_repeated,
        "new": 0 if incoming.rows is None else len(incoming.rows),
    }


def count_all(counts: dict[str, int], choice: Choice) -> dict[str, int]:
    """Return the counts with those of the next snapshot."""
    return counts | {
        "passed": choice.n_passed,
        "entered": len(choice.entered),
        "left": choice.n_left,
        "masked": choice.n_masked,
        "rows": choice.table.num_rows,
    }


def build_change_report(
    choice: Choice, incoming: Incoming, counts: dict[str, int], drifts: Sequence[Drift], alarms: Sequence[Alarm]
) -> dict[str, Any]:
    """Return what changed and why, in JSON values."""
    why = (
        choice.dropped.group_by("stage", "rule", "reason", "was_kept")
        .len()
        .sort("len", "stage", "rule", "reason", "was_kept", descending=[True, False, False, False, False])
    )
    return {
        "counts": counts,
        "out": [
            {"stage": stage, "rule": rule, "reason": reason, "was_kept": was_kept, "rows": n}
            for stage, rule, reason, was_kept, n in why.iter_rows()
        ],
        "entered_by_source": count_top_values(choice.entered),
        "drift": [one.to_json() for one in drifts],
        **incoming_report(incoming, alarms),
    }


def incoming_report(incoming: Incoming, alarms: Sequence[Alarm]) -> dict[str, Any]:
    """Return what was odd about what was read, in JSON values."""
    return {
        "unusable": incoming.unusable,
        "skipped": [{"name": name, "why": why_not} for name, why_not in incoming.skipped],
        "alarms": [alarm.to_json() for alarm in alarms],
    }
