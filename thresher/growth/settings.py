"""How rows are grown: each option of `grow` is described here and nowhere else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from thresher.checks import create_check
from thresher.errors import SettingsError
from thresher.models.generation.decoding import Decoding
from thresher.models.settings import ModelOptions
from thresher.validation import Settings, option

How = Literal["accept", "own", "failures", "constraints", "reword", "explain"]
JUDGE = "judge"


@dataclass(frozen=True, kw_only=True)
class GrowSettings(Settings):
    """Which rows a model writes, and which of them are kept."""

    where = "grow"

    how: How = option(
        "accept",
        "accept: right answers among sampled ones. own: the model's own right answer instead of the row's. "
        "failures: rows similar to those that the model fails on. constraints: texts for a label, with its "
        "keywords. reword: paraphrased prompts. explain: reasoning before the answer.",
    )
    teacher: str | None = option(
        None, "Model that writes, given like --model, ideally a server. Default: the model itself.", ge=1
    )
    check: str = option(
        "auto",
        "How answers are checked: auto (by the format of the row's answer), exact, number, choice, json, "
        "regex:PATTERN, judge, or your own check.",
        ge=1,
    )
    n_samples: int = option(8, "Answers sampled for each prompt (accept).", ge=1)
    temperature: float = option(0.7, "Sampling temperature.", ge=1e-3, le=100)
    max_new_tokens: int = option(256, "Maximum number of tokens in an answer.", ge=1)
    most: int = option(4, "Maximum number of rows kept per seed.", ge=1)
    per_seed: int = option(1, "Rows written for each seed (failures, constraints, reword).", ge=1)
    least_similarity: float = option(0.8, "Minimum cosine between a paraphrased prompt and the row's.", ge=-1, le=1)
    most_similarity: float = option(0.98, "Cosine above which a paraphrased prompt counts as a copy.", ge=-1, le=1)
    entailment: str | None = option(
        None,
        "Model for natural language inference, by folder or Hub id: a reworded prompt must follow from the row's, and "
        "that from it (reword). Default: the cosine alone.",
        ge=1,
    )
    least_probability: float = option(
        0.5, "Minimum probability of the intended label, by a classifier trained on the pool (constraints).", ge=0, le=1
    )
    calls: int | None = option(None, "Maximum number of requested answers; remaining seeds are skipped.", ge=1)
    round: int = option(1, "Number of this round, stored in each row.", ge=1)
    seed: int = option(0, "Random seed for sampling.", ge=0)

    def __post_init__(self) -> None:
        """Check the settings, and that there is such a check.

        Raises:
            SettingsError: a setting has an illegal value.
            NotFoundError: no check has this name.
        """
        super().__post_init__()
        if self.how == "reword" and self.least_similarity >= self.most_similarity:
            raise SettingsError(
                f"grow: least_similarity must be below most_similarity, got {self.least_similarity:g} and "
                f"{self.most_similarity:g}, between which no prompt lies"
            )
        if self.entailment is not None and self.how != "reword":
            raise SettingsError(f"grow: entailment compares reworded prompts, got how={self.how}; leave it out")
        if self.check != JUDGE:
            create_check(self.check)

    def draw(self, n_samples: int) -> Decoding:
        """Return how so many answers of one prompt are drawn."""
        return Decoding(
            n_samples=n_samples, temperature=self.temperature, max_new_tokens=self.max_new_tokens, seed=self.seed
        )

    @property
    def likeliest(self) -> Decoding:
        """How the one likeliest answer is found."""
        return Decoding(max_new_tokens=self.max_new_tokens)

    @property
    def calls_per_seed(self) -> int:
        """Answers that a seed may cost, at most."""
        written = {
            "accept": self.n_samples,
            "own": 2,
            "failures": 1 + self.per_seed * (1 + N_VOTES),
            "constraints": self.per_seed,
            "reword": self.per_seed,
            "explain": 2,
        }
        return written[self.how]


N_VOTES = 3  # answers by which a writer confirms its own


class GrowOptions(ModelOptions, total=False):
    """Fields of `GrowSettings` and `ModelSettings` as keyword arguments, for type checkers."""

    how: How
    teacher: str | None
    check: str
    n_samples: int
    temperature: float
    max_new_tokens: int
    most: int
    per_seed: int
    least_similarity: float
    most_similarity: float
    entailment: str | None
    least_probability: float
    calls: int | None
    round: int
    seed: int
