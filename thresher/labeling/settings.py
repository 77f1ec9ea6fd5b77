"""What is asked of `label ask` and `label add`; each option is described here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypedDict

from thresher.validation import Settings, option

By = Literal["auto", "cover", "doubt", "cover-doubt", "random"]


@dataclass(frozen=True, kw_only=True)
class AskSettings(Settings):
    """Which rows to label next, and who is asked."""

    where = "label ask"

    batch: int = option(50, "Rows to ask for.", ge=1)
    by: By = option(
        "auto",
        "cover-doubt: rows that stand for those the classifier doubts, among the doubtful half; doubt: the most "
        "doubtful; cover: rows that stand for all others; random. Default: cover until two labels are known, then "
        "cover-doubt.",
    )
    classes: tuple[str, ...] | None = option(
        None, "Labels to choose from, with commas; default: those of the labeled rows."
    )
    label_column: str | None = option(None, "Column that gets the label; default: that of the labeled rows, or label.")
    delta: float = option(
        0.01, "Say stop when the next batch is expected to raise the accuracy by less: 0.01 is one point.", ge=0, le=1
    )
    page: bool = option(False, "Also write label.html, a page to label in a browser.", flag="--page")
    annotator: str | None = option(
        None, "Let a model answer: address of a server (http://HOST:PORT/v1#MODEL), Hub id or folder."
    )
    check: str = option("10%", "Share of the batch that people label besides the annotator, who never sees theirs.")
    guide: str | None = option(None, "What the labels mean, in a few sentences: for the page and for the annotator.")
    seed: int = option(0, "Random seed.", ge=0)


class AskOptions(TypedDict, total=False):
    """The fields of `AskSettings` as keyword arguments, for type checkers."""

    batch: int
    by: By
    classes: tuple[str, ...] | None
    label_column: str | None
    delta: float
    page: bool
    annotator: str | None
    check: str
    guide: str | None
    seed: int
