"""How an adapter is tried; apart from `predict.py`, so that a help loads no table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypedDict

from thresher.models.settings import declare_device
from thresher.validation import Settings, option


@dataclass(frozen=True, kw_only=True)
class PredictSettings(Settings):
    """How an adapter is tried.

    Raises:
        SettingsError: a field has an illegal value.
    """

    where = "predict"

    max_new_tokens: int = option(256, "Maximum number of tokens in an answer.", ge=1)
    device: str | None = declare_device()


class PredictOptions(TypedDict, total=False):
    """The fields of `PredictSettings` as keyword arguments, for type checkers."""

    max_new_tokens: int
    device: str | None


@dataclass(frozen=True, kw_only=True)
class ContrastSettings(Settings):
    """How an adapter writes what its base would not.

    Raises:
        SettingsError: a field has an illegal value.
    """

    where = "novelty"

    write: int = option(10, "Texts to write.", ge=1, le=1000)
    prompt: str = option("", "What is asked, or continued where the adapter continues texts. Default: nothing.")
    gamma: float = option(1.0, "How much the contrast with the base counts; 0: the adapter alone.", ge=0)
    cut: float = option(0.1, "Share of the likeliest token's probability below which no token is drawn.", ge=0, le=1)
    max_new_tokens: int = option(64, "Limit of a text, in tokens.", ge=1)
    seed: int = option(0, "Random seed of the draws.", ge=0)
    device: str | None = option(None, "cpu, cuda, cuda:1, mps. Default: the fastest available.")


class ContrastOptions(TypedDict, total=False):
    """The fields of `ContrastSettings` as keyword arguments, for type checkers."""

    write: int
    prompt: str
    gamma: float
    cut: float
    max_new_tokens: int
    seed: int
    device: str | None
