"""How answers are corrected: each option of `correct` is described here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass

from thresher.models.settings import ModelOptions
from thresher.validation import Settings, option


@dataclass(frozen=True, kw_only=True)
class CorrectSettings(Settings):
    """Who compares two answers, and when the new one replaces the old."""

    where = "correct"

    judge: str | None = option(None, "Model that compares the answers. Default: the base of the adapter.")
    eta: float = option(0.8, "Minimum confidence that the candidate is better.", ge=0.5, le=1)
    column: str = option("original_response", "Column for the original answers.", ge=1)
    max_new_tokens: int = option(256, "Maximum number of tokens in a candidate.", ge=1)


class CorrectOptions(ModelOptions, total=False):
    """Fields of `CorrectSettings` and `ModelSettings` as keyword arguments, for type checkers."""

    judge: str | None
    eta: float
    column: str
    max_new_tokens: int
