"""What `advise` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from thresher.errors import SettingsError
from thresher.experiments.settings import MODEL, ExperimentOptions, ExperimentSettings
from thresher.numeric.units import parse_seconds
from thresher.selection.settings import Pilot, PilotSettings
from thresher.trainer.untouched.settings import PANEL
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class AdviceSettings(ExperimentSettings, PilotSettings):
    """Options of `advise`."""

    command: ClassVar[str] = "advise"

    general: str | Path = option(
        "auto", "Rows from outside the task, to measure what the model forgets: auto, none or a file.", panel=PANEL
    )
    encoder: str | None = option(
        None,
        "Sentence encoder that the selection methods use: minilm, static, or a sentence-transformers model.",
        panel=MODEL,
    )
    target: Any = option(None, "Rows of the task you train for: compares the most similar rows with random rows.")
    budget: str | int | float | None = option(
        None, "Maximum number of rows to train on, or a share (10%). Default: as many as the curve says are enough."
    )
    curve: bool = option(
        True, "Run the learning curve; without it, train on --budget rows, or all.", flag="--curve/--no-curve"
    )
    max_time: float | str | None = option(
        None,
        "Time limit for all steps (seconds, or 90s, 30m, 4h): the curve is made small enough to leave time for the "
        "final training, no other step starts after the limit, and skipped steps are listed.",
    )
    seeds: int = option(3, "Maximum number of runs at each size of the curve.", ge=2)

    def require_out(self) -> Path:
        """Return the folder of all steps.

        Raises:
            SettingsError: none is given.
        """
        if self.out is None:
            raise SettingsError("advise: out must be a folder: each step leaves its own in it")
        return Path(self.out)

    def find_problems(self) -> list[str]:
        """Return what is wrong with several fields together."""
        from thresher.subset.budget import parse_budget  # imports polars, which a help does without

        problems = []
        if self.max_time is not None and not 0 < parse_seconds(self.max_time) < float("inf"):
            problems.append(f"max_time must be a time above 0, such as 90s, 30m or 4h, got {self.max_time!r}")
        if self.budget is not None and parse_budget(self.budget).unit not in ("rows", "share"):
            problems.append(f"budget must be a number of rows or a share, as 500 or 10%, got {self.budget}")
        return problems


class AdviceOptions(ExperimentOptions, total=False):
    """`AdviceSettings`, for type checkers."""

    encoder: str | None
    target: Any
    budget: str | int | float | None
    pilot: Pilot
    curve: bool
    max_time: float | str | None
    seeds: int
