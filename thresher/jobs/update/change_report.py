"""The report of a run: how many rows were read, entered and left, why, and what was odd."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from thresher.jobs.drift.distributions import Drift, count_top_values
from thresher.jobs.drift.gates import Alarm
from thresher.jobs.state import UpdateInputs
from thresher.jobs.update.choose import Choice


def build_read_report(inputs: UpdateInputs, alarms: Sequence[Alarm]) -> dict[str, Any]:
    """Return the report of a run that found nothing new, in JSON values."""
    return {"counts": _count_read(inputs), **_describe_oddities(inputs, alarms)}


def build_change_report(
    inputs: UpdateInputs, choice: Choice, drifts: Sequence[Drift], alarms: Sequence[Alarm]
) -> dict[str, Any]:
    """Return what changed since the previous snapshot and why, in JSON values."""
    keys = ["stage", "rule", "reason", "was_kept"]
    reasons = choice.dropped.group_by(keys).len("rows").sort("rows", *keys, descending=[True, *[False] * len(keys)])
    counts = {
        "passed": choice.n_passed,
        "entered": len(choice.entered),
        "left": choice.n_left,
        "masked": choice.n_masked,
        "rows": choice.table.num_rows,
    }
    return {
        "counts": _count_read(inputs) | counts,
        "out": reasons.to_dicts(),
        "decisions": list(choice.decisions),
        "entered_by_source": count_top_values(choice.entered),
        "drift": [drift.to_json() for drift in drifts],
        **_describe_oddities(inputs, alarms),
    }


def _count_read(inputs: UpdateInputs) -> dict[str, int]:
    """Return how many files and rows there were, and how many of them are new."""
    scan, incoming = inputs.scan, inputs.incoming
    return {
        "files_new": len(scan.new_files),
        "files_known": len(scan.known_files),
        "files_gone": len(scan.gone),
        "read": incoming.n_read,
        "unusable": incoming.n_unusable,
        "known": incoming.n_known,
        "repeated": incoming.n_repeated,
        "new": inputs.n_new,
    }


def _describe_oddities(inputs: UpdateInputs, alarms: Sequence[Alarm]) -> dict[str, Any]:
    return {
        "unusable": inputs.incoming.unusable,
        "skipped": [{"name": name, "why": why} for name, why in inputs.incoming.skipped],
        "alarms": [alarm.to_json() for alarm in alarms],
    }
