"""Gates: limits beyond which a run warns, or fails instead of publishing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from thresher.jobs.drift.distributions import MEASURES, Drift
from thresher.jobs.settings import Gates

_NAMES = {"jensen-shannon": "Jensen-Shannon divergence", "psi": "population stability index"}


@dataclass(frozen=True)
class Alarm:
    """A value beyond its limit.

    Attributes:
        gate: key in [gates].
        is_failure: it fails the run.
        value: what was measured.
        limit: what it was held to.
        message: both in a sentence.
        what: what was measured, in words, where value and limit alone do not say it.
    """

    gate: str
    is_failure: bool
    value: float
    limit: float
    message: str
    what: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        level = "fail" if self.is_failure else "warn"
        what = {"what": self.what} if self.what else {}
        return {"gate": self.gate, "level": level, "value": round(self.value, 6), "limit": self.limit, **what}


def check_drift(gates: Gates, drifts: Sequence[Drift]) -> list[Alarm]:
    """Return the drifts beyond their limits that chance does not explain."""
    alarms = []
    for drift in drifts:
        if drift.of != gates.of or drift.measure not in MEASURES or not drift.is_beyond_chance:
            continue
        limits = getattr(gates, drift.measure)
        value = drift.value(gates.measure)
        for limit, is_failure in ((limits.fail, True), (limits.warn, False)):
            if limit is not None and value > limit:
                message = (
                    f"drift of {drift.measure} ({gates.of} rows): {_NAMES[gates.measure]} must be at most {limit:g}, "
                    f"got {value:.3g}; compare the rows with 'thresher curate diff', or accept them with --accept"
                )
                alarms.append(Alarm(drift.measure, is_failure, value, limit, message))
                break
    return alarms


def check_quality(gates: Gates, *, n_rows: int, n_new: int, n_dropped: int) -> list[Alarm]:
    """Return the counts beyond their limits."""
    alarms = []
    if gates.min_rows is not None and n_rows < gates.min_rows:
        message = f"min_rows: a snapshot must have at least {gates.min_rows:,} rows, got {n_rows:,}"
        alarms.append(Alarm("min_rows", True, n_rows, gates.min_rows, message))
    return alarms + _check_share("max_dropped_share", gates.max_dropped_share, n_dropped, n_new, "the rules may drop")


def check_unusable(gates: Gates, *, n_read: int, n_unusable: int) -> list[Alarm]:
    """Return whether too many of the rows read were unusable, also where nothing is new."""
    return _check_share("max_unusable_share", gates.max_unusable_share, n_unusable, n_read, "unusable rows may be")


def _check_share(name: str, limit: float | None, part: int, whole: int, what: str) -> list[Alarm]:
    if limit is None or not whole or part / whole <= limit:
        return []
    message = f"{name}: {what} at most {limit:.1%} of {whole:,} rows, got {part / whole:.1%}"
    return [Alarm(name, True, part / whole, limit, message)]
