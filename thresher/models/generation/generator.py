"""Who is asked: a causal language model here, or a server that answers for one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from thresher.artifacts.json_text import encode_json
from thresher.models.generation.decoding import Decoding

if TYPE_CHECKING:
    from thresher.models.context import ModelContext


@dataclass(frozen=True)
class Generation:
    """What a model wrote.

    Attributes:
        text: without special tokens; None where there is a problem.
        is_cut: it ended at the limit of an answer, not where the model wanted to.
        problem: why there is no answer, or None.
    """

    text: str | None
    is_cut: bool = False
    problem: str | None = None


@dataclass(frozen=True)
class OptionProbabilities:
    """What a model chose among options.

    Attributes:
        probabilities: (n, m) float64 probability of each option among the options; NaN where there
            is a problem.
        problems: (n,) why there is no choice, or None.
    """

    probabilities: NDArray[np.float64]
    problems: list[str | None]


class TextGenerator(Protocol):
    """Answers conversations, and questions with options; nothing is loaded before it is needed."""

    @property
    def name(self) -> str:
        """The name for people and manifests; it holds no secret."""

    @property
    def fingerprint(self) -> str:
        """Hash of what determines the answers: weights and tokenizer, or a server's address."""

    def generate(
        self, conversations: Sequence[str], decoding: Decoding, *, stage: str, context: ModelContext
    ) -> list[list[Generation]]:
        """Return `decoding.n_samples` answers of each conversation (`conversation_to_json`)."""

    def score_options(
        self, conversations: Sequence[str], options: Sequence[str], *, stage: str, context: ModelContext
    ) -> OptionProbabilities:
        """Return how likely each answer begins with each option, such as "A" and "B"."""

    def notes(self) -> list[str]:
        """Return what the user should know of how the model was asked."""


def conversation_to_json(messages: Sequence[Any], tools: Sequence[Any] | None = None) -> str:
    """Return a conversation that waits for an answer as JSON, equal for equal ones only."""
    return encode_json({"messages": messages, "tools": tools}).decode()


def user_turn(text: str) -> str:
    """Return a conversation of one question."""
    return conversation_to_json([{"role": "user", "content": text}])
