"""What `base transfer` can be asked."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from thresher.experiments.settings import MODEL, ComparisonOptions, ComparisonSettings
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class TransferSettings(ComparisonSettings):
    """Options of `base transfer`: those of `compare`, on a ladder of models."""

    command: ClassVar[str] = "base transfer"

    models: tuple[str, ...] = option((), "Base models, two or more: a,b,c; they are put in order of size.", panel=MODEL)
    model: str | Path | None = option(None)
    detect: float = option(0.01)

    # of the untouched model, which plays no part here: no options
    base: Literal["auto", "none"] = option("none")
    shots: tuple[int, ...] = option((0,))
    general: str | Path = option("none")
    forget: float = option(0.02)
    scale: Literal["trained", "front", "auto"] = option("trained")

    def find_problems(self) -> list[str]:
        """Return what is wrong with several fields together."""
        problems = super().find_problems()
        if len(set(self.models)) < 2:
            named = ", ".join(self.models) or "none"
            problems.append(
                f"models must name at least 2 different models, got {named}; for example --models tiny,smollm2"
            )
        if self.trainer is not None:
            problems.append("models are of our trainer; leave trainer out")
        return problems


class TransferOptions(ComparisonOptions, total=False):
    """`TransferSettings`, for type checkers: texts with commas are lists."""

    models: str | Sequence[str]
