"""The steps of one call of `advise`: their time, their folders, and what is left out."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import MANIFEST, write_atomic
from thresher.artifacts.seal import encode_record
from thresher.experiments.advice.curve_plan import CurvePlan, find_fewest_rows
from thresher.experiments.advice.settings import AdviceSettings
from thresher.experiments.experiment import Experiment
from thresher.numeric.units import format_count, parse_seconds
from thresher.progress import OnProgress, Progress
from thresher.subset.budget import parse_budget

CURVE_PLAN = ".curve.json"  # file with the curve that fitted into the time


@dataclass
class Steps:
    """The steps of a call: what they made, and which were left out.

    Attributes:
        out: folder of all steps.
        experiment: what is asked, checked.
        settings: of the call.
        on_progress: listener.
        started: when the call began.
        left_out: names of the steps that the time limit left out, or cut short.
        missing_seconds: that the smallest curve would have taken longer than there was time.
        is_too_small: there are too few rows for a learning curve.
        has_time_kept: time was kept for the final training, so that it runs even if the steps
            before it took longer than planned.
    """

    out: Path
    experiment: Experiment
    settings: AdviceSettings
    on_progress: OnProgress | None
    started: float = field(default_factory=time.monotonic)
    left_out: list[str] = field(default_factory=list)
    missing_seconds: float = 0.0
    is_too_small: bool = False
    has_time_kept: bool = False

    @property
    def max_seconds(self) -> float | None:
        """Seconds that all steps may take, or None without a limit."""
        limit = self.settings.max_time
        return None if limit is None else parse_seconds(limit)

    @property
    def seconds_left(self) -> float:
        """Seconds until the limit; endless without one."""
        return math.inf if self.max_seconds is None else self.max_seconds - (time.monotonic() - self.started)

    @property
    def most_rows(self) -> int | None:
        """Rows that the user would train on at most, or None; a share is one of the given pool."""
        return find_most_rows(self.settings, len(self.experiment.pool))

    def is_done(self, name: str) -> bool:
        """Tell whether an earlier call has finished a step."""
        return (self.out / name / MANIFEST).is_file()

    def keep_plan(self, plan: CurvePlan) -> None:
        """Keep the plan of the curve, as times that are measured again differ."""
        content = {**asdict(plan), "max_time": str(self.settings.max_time)}
        write_atomic(self.out / CURVE_PLAN, encode_record(content))

    def recall_plan(self) -> CurvePlan | None:
        """Return the plan of a curve that an earlier call with the same limit has finished."""
        path = self.out / CURVE_PLAN
        if not self.is_done("curve") or not path.is_file():
            return None
        content = json.loads(path.read_bytes())
        if content.pop("max_time") != str(self.settings.max_time):
            return None
        return CurvePlan(**{**content, "methods": tuple(content["methods"])})

    def describe_missing_curve(self, n_rows: int) -> str:
        """Return why there is no curve of so many rows, or "" where there is one or none was asked.

        It is what a curve would take that the time left out, or the rows of the smallest one.
        """
        if self.is_too_small:
            needed = find_fewest_rows(n_rows, len(self.experiment.labels))
            return f"A learning curve takes at least {format_count(needed, 'row')} here."
        if not self.missing_seconds or self.max_seconds is None:
            return ""
        enough = self.max_seconds + 2 * self.missing_seconds  # half may be kept for training
        minutes = math.ceil(enough / 60)
        return f"The smallest learning curve takes too long for --max-time; {minutes}m would be enough."

    def report(self, name: str, note: str) -> None:
        """Tell the listener of a step."""
        if self.on_progress is not None:
            self.on_progress(Progress(stage=name, done=0, total=1, note=f"{name}: {note}"))

    def take(self, name: str, step: Callable[[Path], Any], *, has_time_kept: bool = False) -> Any:
        """Run a step in its folder, or leave it out where the time is over; None then.

        Args:
            name: of the step.
            step: given its folder.
            has_time_kept: it runs even when the time is over, because its own was kept for it.
        """
        if self.seconds_left <= 0 and not has_time_kept and not self.is_done(name):
            self.leave_out(name, "time ran out")
            return None
        self.report(name, str(self.out / name))
        return step(self.out / name)

    def leave_out(self, name: str, reason: str) -> None:
        """Note that a step is left out."""
        self.left_out.append(name)
        self.report(name, f"left out: {reason}")


def find_most_rows(settings: AdviceSettings, n_pool: int) -> int | None:
    """Return the rows that the user would train on at most, or None; a share is one of the pool."""
    return None if settings.budget is None else parse_budget(settings.budget).n_rows(n_pool)
