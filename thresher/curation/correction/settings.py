"""How answers are corrected: each option of `correct` is described here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass, fields

from thresher.errors import SettingsError
from thresher.models.settings import ModelOptions
from thresher.validation import Settings, option

ABSTENTION = ("refusal", "n_samples", "temperature", "least_entropy", "entailment")


@dataclass(frozen=True, kw_only=True)
class CorrectSettings(Settings):
    """Who compares two answers, and when the new one replaces the old."""

    where = "correct"

    judge: str | None = option(None, "Model that compares the answers. Default: the base of the adapter.")
    eta: float = option(0.8, "Minimum confidence that the candidate is better.", ge=0.5, le=1)
    column: str = option("original_response", "Column for the original answers.", ge=1)
    max_new_tokens: int = option(256, "Maximum number of tokens in a candidate.", ge=1)
    abstain: bool = option(
        False,
        "Replace the answer by a refusal where the model does not know it: its sampled answers disagree in meaning, "
        "and none says what the row says. Needs no judge.",
        flag="--abstain",
    )
    refusal: str = option("I don't know.", "The refusal (abstain).", ge=1)
    n_samples: int = option(8, "Answers sampled for each prompt (abstain).", ge=2)
    temperature: float = option(1.0, "Sampling temperature (abstain).", ge=1e-3, le=100)
    least_entropy: float = option(
        0.5, "Semantic entropy from which answers disagree, as a share of its maximum (abstain).", ge=0, le=1
    )
    entailment: str | None = option(
        None,
        "Model for natural language inference, by folder or Hub id, that decides which answers mean the same "
        "(abstain). Default: the cosine of their embeddings.",
        ge=1,
    )

    def __post_init__(self) -> None:
        """Check the settings, and that none is given that would do nothing.

        Raises:
            SettingsError: a setting has an illegal value or no effect.
        """
        super().__post_init__()
        idle = ("judge", "eta") if self.abstain else ABSTENTION
        defaults = {field.name: field.default for field in fields(self)}
        given = [name for name in idle if getattr(self, name) != defaults[name]]
        if given:
            why = "asks no judge" if self.abstain else "is not set, which alone uses it"
            raise SettingsError(f"correct: {given[0]} has no effect, since abstain {why}; leave it out")


class CorrectOptions(ModelOptions, total=False):
    """Fields of `CorrectSettings` and `ModelSettings` as keyword arguments, for type checkers."""

    judge: str | None
    eta: float
    column: str
    max_new_tokens: int
    abstain: bool
    refusal: str
    n_samples: int
    temperature: float
    least_entropy: float
    entailment: str | None
