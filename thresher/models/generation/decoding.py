"""How answers are decoded: sampling temperature, length and number."""

from __future__ import annotations

from dataclasses import dataclass

from thresher.errors import SettingsError
from thresher.validation import check_number, check_whole


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How answers are sampled from a model.

    Attributes:
        n_samples: answers of each prompt.
        temperature: of the probabilities; 0 takes the likeliest token, and then there is one
            answer.
        top_p: the likeliest tokens of this total probability are sampled; 1 for all.
        max_new_tokens: limit of an answer.
        seed: of the samples. An answer depends on it, the prompt and its place among the samples, on
            nothing else.
    """

    n_samples: int = 1
    temperature: float = 0.0
    top_p: float = 1.0
    max_new_tokens: int = 256
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse illegal settings.

        Raises:
            SettingsError: a number is out of its range, or several greedy answers are asked for.
        """
        check_whole("decoding", "n_samples", self.n_samples, 1)
        check_number("decoding", "temperature", self.temperature, 0.0, 100.0)
        check_number("decoding", "top_p", self.top_p, 1e-6, 1.0)
        check_whole("decoding", "max_new_tokens", self.max_new_tokens, 1)
        check_whole("decoding", "seed", self.seed, 0)
        if self.temperature == 0 and self.n_samples > 1:
            raise SettingsError(
                f"decoding: answers at temperature 0 are all the same, got n_samples {self.n_samples}; "
                f"set n_samples to 1 or the temperature above 0"
            )

    def __str__(self) -> str:
        """Return the settings as one word, for fingerprints."""
        return f"{self.n_samples}-{self.one_answer}"

    @property
    def one_answer(self) -> str:
        """What determines one of the answers, besides its place among them."""
        return f"{self.temperature}-{self.top_p}-{self.max_new_tokens}-{self.seed}"
