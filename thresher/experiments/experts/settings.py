"""What `experts`, and `train --experts`, can be asked."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar, Literal, TypedDict

from thresher.trainer.settings import TrainSettings
from thresher.validation import check_settings, option

_experts = partial(option, panel="Experts")


@dataclass(frozen=True, kw_only=True)
class ExpertSettings:
    """Options of `experts`.

    Raises:
        SettingsError: a field has an illegal value.
    """

    command: ClassVar[str] = "experts"

    k: int | None = _experts(
        2,
        "Train this many adapters, each on a cluster of the rows, and compare with one adapter and random clusters; "
        "needs --eval. 1 is plain training.",
        flag="--experts",
        ge=1,
        le=64,
    )
    clusters: Literal["embedding", "gradient"] = _experts(
        "embedding", "Cluster the rows by embeddings of their prompts, or by gradients at the common adapter."
    )
    common: float = _experts(
        0.5, "Share of the steps that train one common adapter on all rows, before the experts split.", ge=0, lt=1
    )
    encoder: str | None = _experts(None, "Sentence encoder that routes prompts to experts, as in select.")
    seeds: int = option(1, "Repetitions with seed, seed + 1, ...", flag="", ge=1, le=20)
    seed: int = option(0, "Random seed.", flag="", ge=0)
    settings: TrainSettings = option(TrainSettings(), "Of the training.", flag="")
    out: str | Path | None = option(None, "Folder for the result; a killed run resumes from it.", flag="")
    force: bool = option(False, "Replace an earlier result.", flag="")

    def __post_init__(self) -> None:
        """Check every field."""
        own = self.settings.metric
        check_settings(
            self, "experts", [] if own is None else [f"metric {own} is of train, curve and compare alone; leave it out"]
        )


class ExpertOptions(TypedDict, total=False):
    """`ExpertSettings`, for type checkers."""

    k: int | None
    clusters: Literal["embedding", "gradient"]
    common: float
    seeds: int
    seed: int
    encoder: str | None
    settings: TrainSettings
    out: str | Path | None
    force: bool
