"""Settings of what a model is asked to write: how answers are drawn, and how they are judged."""

from __future__ import annotations

from dataclasses import dataclass

from thresher.errors import SettingsError
from thresher.models.generation.decoding import Decoding
from thresher.validation import check_number, check_whole


@dataclass(frozen=True, kw_only=True)
class ConfidenceSettings:
    """How much a model's own answers and its own judgment say of a given answer.

    Attributes:
        n_samples: answers drawn of each prompt.
        temperature: they are drawn at.
        max_new_tokens: limit of each.
        entailment: model that says whether two answers contradict each other: folder or Hub id of a
            sequence-classification model with a label for contradiction; None: the encoder's cosine
            takes its place.
        alpha: weight of agreement in meaning; 1 - alpha is that of equality word by word.
        beta: weight of agreement with the samples; 1 - beta is that of the model's judgment.
        seed: of the draws.
    """

    n_samples: int = 5
    temperature: float = 1.0
    max_new_tokens: int = 256
    entailment: str | None = None
    alpha: float = 0.8
    beta: float = 0.7
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse illegal settings.

        Raises:
            SettingsError: a number is out of its range, or entailment names nothing.
        """
        check_number("confidence", "temperature", self.temperature, 1e-3, 100.0)
        check_number("confidence", "alpha", self.alpha, 0.0, 1.0)
        check_number("confidence", "beta", self.beta, 0.0, 1.0)
        check_whole("confidence", "n_samples", self.n_samples, 1)
        check_whole("confidence", "max_new_tokens", self.max_new_tokens, 1)
        check_whole("confidence", "seed", self.seed, 0)
        if self.entailment is not None and not self.entailment:
            raise SettingsError(f"confidence: entailment must name a model, got {self.entailment!r}")

    @property
    def decoding(self) -> Decoding:
        """How the answers are drawn."""
        return Decoding(
            n_samples=self.n_samples,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class AnswerAccuracySettings:
    """How a model is asked for short answers behind examples.

    Attributes:
        n_prompts: prompts of each row, each with other examples.
        n_examples: examples in each prompt.
        n_samples: answers drawn of each prompt, besides the likeliest one.
        temperature: they are drawn at.
        max_words: of a response that counts as short; rows with longer ones have no value.
        max_new_tokens: limit of each answer.
        by: column whose value a row and its examples share, such as a relation; None: any row can
            be an example.
        seed: of the choice of examples, and of the draws.
    """

    n_prompts: int = 10
    n_examples: int = 4
    n_samples: int = 16
    temperature: float = 0.5
    max_words: int = 10
    max_new_tokens: int = 32
    by: str | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse illegal settings.

        Raises:
            SettingsError: a number is out of its range, or by names nothing.
        """
        for setting in ("n_prompts", "n_samples", "max_words", "max_new_tokens"):
            check_whole("answer_accuracy", setting, getattr(self, setting), 1)
        for setting in ("n_examples", "seed"):
            check_whole("answer_accuracy", setting, getattr(self, setting), 0)
        check_number("answer_accuracy", "temperature", self.temperature, 1e-3, 100.0)
        if self.by is not None and not self.by:
            raise SettingsError(f"answer_accuracy: by must name a column, got {self.by!r}")

    @property
    def likeliest(self) -> Decoding:
        """How the one likeliest answer is found."""
        return Decoding(max_new_tokens=self.max_new_tokens)

    @property
    def drawn(self) -> Decoding:
        """How the other answers are drawn."""
        return Decoding(
            n_samples=self.n_samples,
            temperature=self.temperature,
            max_new_tokens=self.max_new_tokens,
            seed=self.seed,
        )
