"""Settings of features: how answers are sampled and weighed, how gradients are sketched."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from thresher.checks import create_check
from thresher.models.generation.decoding import Decoding
from thresher.validation import Settings, option

Precondition = Literal["adam", "factors"]


@dataclass(frozen=True, kw_only=True)
class ConfidenceSettings(Settings):
    """How much a model's own answers and its own judgment say of a given answer."""

    where = "confidence"

    n_samples: int = option(5, "Answers sampled for each prompt.", ge=1)
    temperature: float = option(1.0, "Temperature of the samples.", ge=1e-3, le=100)
    max_new_tokens: int = option(256, "Maximum tokens of each answer.", ge=1)
    entailment: str | None = option(
        None,
        "Model that says whether two answers contradict each other: folder or Hub id of a sequence-classification "
        "model with a label for contradiction. Default: the encoder's cosine.",
        ge=1,
    )
    alpha: float = option(0.8, "Weight of agreement in meaning; the rest is the weight of equal words.", ge=0, le=1)
    beta: float = option(0.7, "Weight of agreement with the samples; the rest is the model's judgment.", ge=0, le=1)
    seed: int = option(0, "Random seed for the samples.", ge=0)
    labels: Literal["auto", "plain", "prior-divided"] = option(
        "auto", "Of labels: the plain probability, divided by the label's share, or as a rule decides."
    )

    @property
    def decoding(self) -> Decoding:
        """How the answers are sampled."""
        return _make_decoding(self)


@dataclass(frozen=True, kw_only=True)
class AnswerAccuracySettings(Settings):
    """How a model is asked for short answers behind examples."""

    where = "answer_accuracy"

    n_prompts: int = option(10, "Prompts per row, each with different examples.", ge=1)
    n_examples: int = option(4, "Examples in each prompt.", ge=0)
    n_samples: int = option(16, "Answers sampled for each prompt, besides the greedy one.", ge=1)
    temperature: float = option(0.5, "Temperature of the samples.", ge=1e-3, le=100)
    max_words: int = option(10, "Maximum words of a short response; rows with longer ones have no value.", ge=1)
    max_new_tokens: int = option(32, "Maximum tokens of each answer.", ge=1)
    by: str | None = option(
        None, "Column whose value a row and its examples share, such as a relation. Default: any row.", ge=1
    )
    seed: int = option(0, "Random seed for examples and samples.", ge=0)

    @property
    def likeliest(self) -> Decoding:
        """How the one likeliest answer is found."""
        return Decoding(max_new_tokens=self.max_new_tokens)

    @property
    def drawn(self) -> Decoding:
        """How the other answers are sampled."""
        return _make_decoding(self)


@dataclass(frozen=True, kw_only=True)
class PassRateSettings(Settings):
    """How a model's drawn answers are checked against those of the rows."""

    where = "pass_rate"

    check: str = option(
        "auto", "How answers are checked: auto, exact, number, choice, json, regex:PATTERN, or your own check.", ge=1
    )
    n_samples: int = option(8, "Answers sampled for each prompt.", ge=2)
    temperature: float = option(0.7, "Temperature of the samples.", ge=1e-3, le=100)
    max_new_tokens: int = option(256, "Maximum tokens of each answer.", ge=1)
    seed: int = option(0, "Random seed for the samples.", ge=0)

    def __post_init__(self) -> None:
        """Check the settings, and that there is such a check.

        Raises:
            SettingsError: a setting has an illegal value.
            NotFoundError: no check has this name.
        """
        super().__post_init__()
        create_check(self.check)

    @property
    def decoding(self) -> Decoding:
        """How the answers are sampled."""
        return _make_decoding(self)


@dataclass(frozen=True, kw_only=True)
class GradientSettings(Settings):
    """How the gradients of rows are taken at the stored states of an adapter."""

    where = "gradient"

    dim: int = option(1024, "Dimensions of a row's gradient sketch at one checkpoint.", ge=1)
    epochs: int = option(4, "Warm-up epochs, with one checkpoint each.", ge=1)
    precondition: Precondition = option("adam", "What a row's gradient goes through: AdamW's moments, or LoRA factors.")
    by: str | None = option(None, "Column of the target whose values are its tasks.")


def _make_decoding(settings: ConfidenceSettings | AnswerAccuracySettings | PassRateSettings) -> Decoding:
    names = ("n_samples", "temperature", "max_new_tokens", "seed")
    return Decoding(**{name: getattr(settings, name) for name in names})
