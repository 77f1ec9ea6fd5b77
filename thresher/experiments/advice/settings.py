"""What `advise` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from thresher.experiments.settings import ExperimentOptions, ExperimentSettings
from thresher.numeric.units import parse_seconds
from thresher.trainer.untouched.settings import PANEL
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class AdviceSettings(ExperimentSettings):
    """Options of `advise`."""

    command: ClassVar[str] = "advise"

    general: str | Path = option(
        "auto", "Rows that are not of the task, to see what the model forgets: auto, none or a file.", panel=PANEL
    )
    target: Any = option(
        None, "Rows of the task you train for: the rows most like them are chosen, beside random rows."
    )
    budget: str | int | float | None = option(
        None, "Most rows to train on: a number, or a share (10%). Default: as many as the curve says are enough."
    )
    pilot: Literal["none", "train"] = option(
        "none", "train: race methods by short trainings of the model first; the best is used if it beats random rows."
    )
    curve: bool = option(
        True, "Walk the learning curve; without it, train on --budget rows, or all.", flag="--curve/--no-curve"
    )
    max_time: float | str | None = option(
        None,
        "Time for all steps: none begins after it, the curve takes half of it at most, and what is left out is listed: "
        "seconds, or 90s, 30m, 4h.",
    )
    seeds: int = option(3, "Runs at each size of the curve, at most.", ge=2)

    def find_problems(self) -> list[str]:
        """Return what is wrong with several fields together."""
        from thresher.subset.budget import parse_budget  # imports polars, which a help does without

        problems = [] if self.out is not None else ["out must be a folder: each step leaves its own in it"]
        if self.max_time is not None and not 0 < parse_seconds(self.max_time) < float("inf"):
            problems.append(f"max_time must be a time above 0, as 90s, 30m or 4h, got {self.max_time!r}")
        if self.budget is not None and parse_budget(self.budget).unit not in ("rows", "share"):
            problems.append(f"budget must be a number of rows or a share, as 500 or 10%, got {self.budget}")
        return problems


class AdviceOptions(ExperimentOptions, total=False):
    """`AdviceSettings`, for type checkers."""

    target: Any
    budget: str | int | float | None
    pilot: Literal["none", "train"]
    curve: bool
    max_time: float | str | None
    seeds: int
