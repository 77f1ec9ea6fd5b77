"""Length: rows that are too short or too long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from thresher.curation.normalize import SCOPES, plain_texts
from thresher.curation.rule import Rows
from thresher.curation.verdict import Verdict
from thresher.errors import SettingsError
from thresher.validation import check_one_of, check_whole

UNITS = ("tokens", "words", "characters")


@dataclass(frozen=True, kw_only=True)
class Length:
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

    min_tokens: int | None = None
    max_tokens: int | None = None
    min_words: int | None = None
    max_words: int | None = None
    min_characters: int | None = None
    max_characters: int | None = None
    scope: str = "row"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: there is no limit, or one is above its counterpart.
        """
        check_one_of(self.name, "scope", self.scope, SCOPES)
        for unit in UNITS:
            low, high = self._limits(unit)
            for bound, value in (("min", low), ("max", high)):
                if value is not None:
                    check_whole(self.name, f"{bound}_{unit}", value, 0)
            if low is not None and high is not None and low > high:
                raise SettingsError(f"{self.name}: min_{unit} must not be above max_{unit}, got {low} and {high}")
        if all(self._limits(unit) == (None, None) for unit in UNITS):
            raise SettingsError(f"{self.name}: at least one limit is required, found none; set max_tokens=2048 or such")

    def _limits(self, unit: str) -> tuple[int | None, int | None]:
        return getattr(self, f"min_{unit}"), getattr(self, f"max_{unit}")

    @property
    def needs(self) -> frozenset[str]:
        """The length in tokens, if it is limited."""
        return frozenset() if self._limits("tokens") == (None, None) else frozenset({"length"})

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row outside of the limits."""
        texts = plain_texts(pool.dataset, self.scope)
        count = {
            "words": texts.str.count_matches(r"\S+"),
            "characters": texts.str.len_chars(),
        }
        if self.needs:
            count["tokens"] = pl.Series(pool.features["length"])
        frame = pl.DataFrame(count)
        reason, text = pl.lit(None, pl.String), pl.lit(None, pl.String)
        for unit in reversed(frame.columns):
            for bound, limit in zip(("min", "max"), self._limits(unit), strict=True):
                if limit is None:
                    continue
                is_out = pl.col(unit) < limit if bound == "min" else pl.col(unit) > limit
                reason = pl.when(is_out).then(pl.lit("too-short" if bound == "min" else "too-long")).otherwise(reason)
                allowed = f"at {'least' if bound == 'min' else 'most'} {limit:,}"
                text = pl.when(is_out).then(pl.format(f"has {{}} {unit}, {allowed} are allowed", unit)).otherwise(text)
        judged = frame.select(reason=reason, explanation=text)
        return Verdict(reason=judged["reason"], explanation=judged["explanation"])
