"""What a training run tells its caller while it runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class TrainEvent:
    """One thing that happened.

    Attributes:
        kind: "start" (a run begins or resumes), "step", "eval", "save", "stop" (early), "done" (a
            run ended), or "note" (something the user should know).
        run: which run of several: "main/seed-0", "control/seed-1".
        step: optimizer steps done.
        n_steps: optimizer steps of the whole run.
        values: numbers of this step ("loss", "learning_rate", "eval_loss").
        message: one sentence for people, or the empty string.
    """

    kind: Literal["start", "step", "eval", "save", "stop", "done", "note"]
    run: str = ""
    step: int = 0
    n_steps: int = 0
    values: Mapping[str, float] = field(default_factory=dict)
    message: str = ""

    @property
    def stage(self) -> str:
        """What the run is for people: "main/seed-0" trains on your rows, seed 0."""
        side, _, seed = self.run.partition("/seed-")
        names = {"main": "train on your rows", "control": "train on random rows"}
        return f"{names.get(side, f'train {side}'.strip())}{f', seed {seed}' if seed else ''}"


OnEvent = Callable[[TrainEvent], None]


def ignore(event: TrainEvent) -> None:
    """Do nothing with an event: the listener when none is given."""
