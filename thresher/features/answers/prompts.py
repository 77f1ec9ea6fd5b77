"""Rows as questions to a model: the conversation before the last answer, and that answer."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from thresher.errors import InputError
from thresher.models.causal_lm.tokenized_rows import SLICE_ROWS
from thresher.models.generation.generator import conversation_to_json, user_turn

if TYPE_CHECKING:
    from thresher.dataset import Dataset


@dataclass(frozen=True)
class PromptRows:
    """What a model is asked about each row, and the row's own answer.

    Attributes:
        conversations: (n,) the conversation before the last assistant turn, as
            `conversation_to_json` writes it.
        prompts: (n,) the same as plain text.
        responses: (n,) the last assistant turn, or the label.
    """

    conversations: list[str]
    prompts: list[str]
    responses: list[str]

    @classmethod
    def from_dataset(cls, dataset: Dataset, *, by: str) -> PromptRows:
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
        conversations = (
            [user_turn(prompt) for prompt in prompts] if dataset.kind == "classification" else _conversations(dataset)
        )
        return cls(conversations, prompts, responses)


def _conversations(dataset: Dataset) -> list[str]:
    conversations: list[str] = []
    for start in range(0, len(dataset), SLICE_ROWS):
        for conversation in dataset.messages(range(start, min(start + SLICE_ROWS, len(dataset)))):
            last = max(i for i, message in enumerate(conversation.messages) if message["role"] == "assistant")
            conversations.append(conversation_to_json(conversation.messages[:last], conversation.tools))
    return conversations


def missing_series(problems: list[str | None]) -> pl.Series:
    """Return the reasons of rows without a value as `FeatureValues` takes them."""
    return pl.Series("missing", problems, dtype=pl.String)


def plain(text: str) -> str:
    """Return a text with single spaces and none at the ends: what is compared word by word."""
    return " ".join(text.split())
