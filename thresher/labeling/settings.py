"""What is asked of `label ask` and `label add`; each option is described here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from thresher.validation import Settings, option

By = Literal["auto", "cover", "doubt", "cover-doubt", "change", "disagree", "random"]


@dataclass(frozen=True, kw_only=True)
class AskSettings(Settings):
    """Which rows to label next, and who is asked."""

    where = "label ask"

    batch: int = option(50, "Rows to ask for.", ge=1)
    by: By = option(
        "auto",
        "cover-doubt: from the more uncertain half, rows that represent the uncertain ones; doubt: the most "
        "uncertain; cover: rows that represent all others; change: rows on which training changed the predictions of "
        "--adapter; disagree: rows on which sampled answers of --model disagree; random. Default: cover until two "
        "labels are known, then cover-doubt.",
    )
    adapter: str | None = option(None, "Classifier trained on the labels so far, for --by change.")
    n_samples: int = option(5, "Answers sampled for each row, for --by disagree.", ge=2)
    classes: tuple[str, ...] | None = option(
        None, "Possible labels, separated by commas; default: those of the labeled rows."
    )
    label_column: str | None = option(None, "Column for the label; default: that of the labeled rows, or label.")
    delta: float = option(
        0.01, "Say stop if the next batch is expected to add less accuracy than this: 0.01 is one point.", ge=0, le=1
    )
    page: bool = option(False, "Also write label.html, a page for labeling in a browser.", flag="--page")
    annotator: str | None = option(
        None, "Let a model label: address of a server (http://HOST:PORT/v1#MODEL), Hub id or folder."
    )
    check: str = option(
        "10%", "Share of the batch that people also label, to check the annotator; neither sees the other's answers."
    )
    guide: str | None = option(None, "What the labels mean, in a few sentences, for the page and the annotator.")
    seed: int = option(0, "Random seed.", ge=0)


class AskOptions(TypedDict, total=False):
    """The fields of `AskSettings` as keyword arguments, for type checkers."""

    batch: int
    by: By
    adapter: str | None
    n_samples: int
    classes: tuple[str, ...] | None
    label_column: str | None
    delta: float
    page: bool
    annotator: str | None
    check: str
    guide: str | None
    seed: int


@dataclass(frozen=True, kw_only=True)
class RefineSettings(Settings):
    """How weak labels are refined."""

    where = "label refine"

    least: float = option(
        0.6, "Confidence, 1 - entropy / log classes, from which a row is learned from and given out.", ge=0, le=1
    )
    seeds: int = option(3, "Networks that are trained, for the verdict and for the mean of their labels.", ge=2)
    seed: int = option(0, "Random seed.", ge=0)


class RefineOptions(TypedDict, total=False):
    """The fields of `RefineSettings` as keyword arguments, for type checkers."""

    least: float
    seeds: int
    seed: int
