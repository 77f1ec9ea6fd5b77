"""What `base rank` can be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, Literal

from thresher.experiments.settings import CELLS, MODEL, ExperimentOptions, ExperimentSettings
from thresher.trainer.untouched.settings import PANEL
from thresher.validation import option

FEW_SHOTS = (0, 4)  # rows in the prompt of a language model
LEAST_ROWS = 20


@dataclass(frozen=True, kw_only=True)
class BaseRankSettings(ExperimentSettings):
    """Options of `base rank`; what is of one model only is not among them."""

    command: ClassVar[str] = "base rank"

    models: tuple[str, ...] = option(
        (),
        "Base models: Hub ids or folders, smollm2, tiny; for labels also minilm, static, and your own vectors "
        "(vectors.npy, one line per row of the pool).",
        panel=MODEL,
    )
    rows: int = option(2000, "Maximum number of rows that each model reads.", ge=LEAST_ROWS, panel=MODEL)
    layers: Literal["last", "mean"] = option(
        "last", "Vectors from the last layer, or the mean of all layers; labeled rows only.", panel=MODEL
    )
    confirm: int = option(
        0, "Train this many of the best models, and compare them row by row; 0: none.", ge=0, panel=CELLS
    )
    train_rows: int = option(1000, "Maximum number of random rows that --confirm trains on.", ge=2, panel=CELLS)
    seeds: int = option(3, "Runs per model in --confirm.", ge=2, panel=CELLS)
    shots: tuple[int, ...] = option(
        FEW_SHOTS,
        "Training rows in the prompt of a language model; models are ranked by the largest number; instruction "
        "rows only.",
        ge=0,
        panel=PANEL,
    )

    # of one model, or of what training changes: no options here
    model: str | Path | None = option(None)
    base: Literal["auto", "none"] = option("auto")
    general: str | Path = option("none")
    forget: float = option(0.02)
    scale: Literal["trained", "front", "auto"] = option("trained")

    def find_problems(self) -> list[str]:
        """Return what is wrong with several fields together."""
        problems = []
        if len(set(self.models)) < 2:
            named = ", ".join(self.models) or "none"
            problems.append(
                f"models must name at least 2 different models, got {named}; for example --models minilm,static"
            )
        if self.confirm == 1 or self.confirm > len(self.models):
            n = len(self.models)
            problems.append(f"confirm must be 0, or from 2 to the {n} models that are named, got {self.confirm}")
        return problems

    def choose_shots(self, kind: str) -> BaseRankSettings:
        """Return the settings with the rows in the prompt that fit rows of this kind."""
        return replace(self, shots=(0,)) if kind != "sft" and self.shots == FEW_SHOTS else self


class BaseRankOptions(ExperimentOptions, total=False):
    """`BaseRankSettings`, for type checkers: texts with commas are lists."""

    models: str | Sequence[str]
    rows: int
    layers: Literal["last", "mean"]
    confirm: int
    train_rows: int
    seeds: int
