"""What `base sources` can be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

from thresher.experiments.settings import CELLS, MODEL, Equal, ExperimentOptions, ExperimentSettings
from thresher.validation import option

MOST_COMPARED = 2000  # rows of which the cheapest pairing is found in seconds


@dataclass(frozen=True, kw_only=True)
class SourceRankSettings(ExperimentSettings):
    """Options of `base sources`."""

    command: ClassVar[str] = "base sources"

    candidates: tuple[Any, ...] = option(
        (),
        "Another data set that may help: file, folder or Hub id, with settings as for --source.",
        flag="--candidate",
        is_repeatable=True,
        parse=tuple,
    )
    encoder: str | None = option(None, "minilm, static, or a sentence-transformers model.", panel=MODEL)
    rows: int = option(500, "Maximum number of rows to compare per data set.", ge=20, le=MOST_COMPARED, panel=MODEL)
    confirm: int = option(3, "Train with and without this many of the nearest data sets; 0: none.", ge=0, panel=CELLS)
    shares: tuple[float, ...] = option(
        (0.25, 0.5), "Shares of the other data set in the mixes that --confirm trains on.", gt=0, lt=1, panel=CELLS
    )
    before: bool = option(
        True,
        "Also train on the other data set first, then on your own rows.",
        flag="--before/--no-before",
        panel=CELLS,
    )
    train_rows: int = option(
        500, "Maximum number of your own rows that --confirm trains on, sampled at random.", ge=2, panel=CELLS
    )
    seeds: int = option(3, "Runs per mix in --confirm.", ge=2, panel=CELLS)
    equal: Equal = option("steps", "What is held equal for all mixes.", panel=CELLS)

    # of the untouched model, which plays no part here: no options
    base: Literal["auto", "none"] = option("none")
    shots: tuple[int, ...] = option((0,))
    general: str | Path = option("none")
    forget: float = option(0.02)
    scale: Literal["trained", "front", "auto"] = option("trained")

    def find_problems(self) -> list[str]:
        """Return what is wrong with several fields together."""
        problems = [] if self.candidates else ["at least one candidate is needed, got none; give --candidate FILE"]
        if not (self.shares or self.before) and self.confirm:
            problems.append("shares must hold at least one share, without --before, got none")
        if self.engine == "ray" and self.before and self.confirm:
            problems.append("before continues adapters on this machine, which a cluster may not see; add --no-before")
        return problems


class SourceRankOptions(ExperimentOptions, total=False):
    """`SourceRankSettings`, for type checkers: texts with commas are lists."""

    candidates: Sequence[Any]
    encoder: str | None
    rows: int
    confirm: int
    shares: Sequence[float]
    before: bool
    train_rows: int
    seeds: int
    equal: Equal
