"""Length: rows that are too short or too long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from thresher.curation.rule import Rows, Rule
from thresher.curation.verdict import Verdict
from thresher.dataset.normalize import Scope, plain_texts
from thresher.errors import SettingsError
from thresher.features.requirements import Requirements
from thresher.validation import check_settings, option


@dataclass(frozen=True, kw_only=True)
class Length(Rule):
    """Drop rows whose text is outside of given limits, in tokens, words or characters.

    Cost: linear in the length of the texts. Needs: `length` if a limit is in tokens, which are
    those of the tokenizer that the request names. At least one limit must be set; a row at a limit
    stays.

    Attributes:
        min_tokens: fewest tokens, of the whole row.
        max_tokens: most tokens, of the whole row.
        min_words: fewest words (divided by white space), of the scope.
        max_words: most words.
        min_characters: fewest characters, of the scope.
        max_characters: most characters.
        scope: what words and characters are counted in: "row", "prompt" or "response".
    """

    name: ClassVar[str] = "length"

    min_tokens: int | None = option(None, ge=0)
    max_tokens: int | None = option(None, ge=0)
    min_words: int | None = option(None, ge=0)
    max_words: int | None = option(None, ge=0)
    min_characters: int | None = option(None, ge=0)
    max_characters: int | None = option(None, ge=0)
    scope: Scope = "row"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: there is no limit, or one is above its counterpart.
        """
        check_settings(self, self.name)
        for unit, (low, high) in self._limits.items():
            if low is not None and high is not None and low > high:
                raise SettingsError(f"{self.name}: min_{unit} must not be above max_{unit}, got {low} and {high}")
        if all(limits == (None, None) for limits in self._limits.values()):
            raise SettingsError(f"{self.name}: at least one limit is required, found none; set max_tokens=2048 or such")

    @property
    def _limits(self) -> dict[str, tuple[int | None, int | None]]:
        """Fewest and most by unit; of a row that breaks several limits the first is its reason."""
        return {
            "tokens": (self.min_tokens, self.max_tokens),
            "words": (self.min_words, self.max_words),
            "characters": (self.min_characters, self.max_characters),
        }

    @property
    def requirements(self) -> Requirements:
        """The length in tokens, if it is limited."""
        return Requirements(features=frozenset() if self._limits["tokens"] == (None, None) else {"length"})

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row outside of the limits."""
        texts = plain_texts(pool.dataset, self.scope)
        count = {"words": texts.str.count_matches(r"\S+"), "characters": texts.str.len_chars()}
        if self.requirements.features:
            count["tokens"] = pl.Series(pool.features["length"])
        frame = pl.DataFrame(count)
        reason, text = pl.lit(None, pl.String), pl.lit(None, pl.String)
        for unit in reversed(frame.columns):
            for bound, limit in zip(("min", "max"), self._limits[unit], strict=True):
                if limit is None:
                    continue
                is_out = pl.col(unit) < limit if bound == "min" else pl.col(unit) > limit
                reason = pl.when(is_out).then(pl.lit("too-short" if bound == "min" else "too-long")).otherwise(reason)
                allowed = f"at {'least' if bound == 'min' else 'most'} {limit:,}"
                text = pl.when(is_out).then(pl.format(f"has {{}} {unit}, {allowed} are allowed", unit)).otherwise(text)
        return Verdict.from_frame(frame.select(reason=reason, explanation=text))
