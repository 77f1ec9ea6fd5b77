"""How answers are decoded: sampling temperature, length and number."""

from __future__ import annotations

from dataclasses import dataclass

from thresher.validation import check_settings, option


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are sampled from a model.

    An answer depends on these settings, the prompt and its place among the samples, on nothing
    else.
    """

    n_samples: int = option(1, "Answers of each prompt.", ge=1)
    temperature: float = option(0.0, "Of the probabilities; 0 takes the likeliest token.", ge=0, le=100)
    top_p: float = option(1.0, "Sample among the likeliest tokens of this total probability.", ge=1e-6, le=1)
    max_new_tokens: int = option(256, "Limit of an answer.", ge=1)
    seed: int = option(0, "Random seed.", ge=0)

    def __post_init__(self) -> None:
        """Check types and bounds, and that several answers can differ."""
        is_repeated = self.temperature == 0 and isinstance(self.n_samples, int) and self.n_samples > 1
        problem = f"n_samples must be 1 at temperature 0, where all answers are the same, got {self.n_samples}"
        check_settings(self, "decoding", [problem] if is_repeated else [])

    def __str__(self) -> str:
        """Return the settings as one word, for fingerprints."""
        return f"{self.n_samples}-{self.one_answer}"

    @property
    def one_answer(self) -> str:
        """What determines one of the answers, besides its place among them."""
        return f"{self.temperature}-{self.top_p}-{self.max_new_tokens}-{self.seed}"
