"""Rows of a dataset as questions to a model: the conversation before the last answer, and that answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from thresher.errors import InputError
from thresher.models.causal_lm.tokenized_rows import SLICE_ROWS
from thresher.models.generation.generator import question, talk_text

if TYPE_CHECKING:
    from thresher.dataset import Dataset


@dataclass(frozen=True)
class AskedRows:
    """What a model is asked of each row, and what the row answers; a dataset has set aside rows that lack either.

    Attributes:
        talks: (n,) the conversation before the last assistant turn, as `talk_text` writes it.
        prompts: (n,) the same as plain text.
        responses: (n,) the last assistant turn, or the label.
    """

    talks: list[str]
    prompts: list[str]
    responses: list[str]

    @classmethod
    def of(cls, dataset: Dataset, *, by: str) -> AskedRows:
        """Read the rows of a dataset.

        Args:
            dataset: rows with prompts and responses.
            by: who asks, for the message.

        Raises:
            InputError: the rows are plain text.
        """
        if dataset.kind == "text":
            raise InputError(f"{by}: rows need a prompt and a response, found plain text")
        prompts, responses = (dataset.frame[name].to_list() for name in ("prompt", "response"))
        talks = [question(prompt) for prompt in prompts] if dataset.kind == "classification" else _talks(dataset)
        return cls(talks, prompts, responses)


def _talks(dataset: Dataset) -> list[str]:
    found: list[str] = []
    for start in range(0, len(dataset), SLICE_ROWS):
        for talk in dataset.messages(range(start, min(start + SLICE_ROWS, len(dataset)))):
            last = max(i for i, message in enumerate(talk.messages) if message["role"] == "assistant")
            found.append(talk_text(talk.messages[:last], talk.tools))
    return found


def missing_series(problems: list[str | None]) -> pl.Series:
    """Return the reasons of rows without a value as `Measured` takes them."""
    return pl.Series("missing", problems, dtype=pl.String)


def plain(text: str) -> str:
    """Return a text with each run of white space as one space and none at the ends: what is compared word by word."""
    return " ".join(text.split())
