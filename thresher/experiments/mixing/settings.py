"""What `mix` can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from thresher.experiments.settings import CELLS, MODEL, ExperimentOptions, ExperimentSettings
from thresher.validation import option

MOST_SOURCES = 8


@dataclass(frozen=True, kw_only=True)
class MixSettings(ExperimentSettings):
    """Options of `mix`."""

    command: ClassVar[str] = "mix"

    by: str = option(
        "source", "Column that defines the sources; without a column source, that is the file of each row."
    )
    rows: int | None = option(
        None,
        "Number of rows in the largest mixes, fewer than all sources have together; default: half of them, at most "
        "500.",
        ge=20,
    )
    mixes: int | None = option(None, "Number of mixes to train on; default: 8 per source.", ge=6, panel=CELLS)
    next_rows: int = option(1000, "Additional rows per source whose value is estimated.", ge=1)
    seeds: int = option(3, "Runs with the best and with equal shares; 0: skip this comparison.", ge=0, panel=CELLS)
    replay: Any = option(
        None,
        "Rows from outside the task, as another source to reduce forgetting: the best shares are the best ones "
        "within --forget.",
        panel=MODEL,
    )

    # of the untouched model, which is asked here what is forgotten alone: no options
    base: Literal["auto", "none"] = option("none")
    shots: tuple[int, ...] = option((0,))
    scale: Literal["trained", "front", "auto"] = option("trained")

    def find_problems(self) -> list[str]:
        """Return what is wrong with several fields together."""
        return ["seeds must be 0, or 2 or more for an interval, got 1"] if self.seeds == 1 else []


class MixOptions(ExperimentOptions, total=False):
    """`MixSettings`, for type checkers."""

    by: str
    rows: int | None
    mixes: int | None
    next_rows: int
    seeds: int
    replay: Any
