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
