"""Language: rows that are not in a language that is wanted."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, ClassVar

import numpy as np
import polars as pl

from thresher.curation.rule import Rows, Rule
from thresher.curation.verdict import Verdict, drop_where
from thresher.dataset.normalize import Scope, plain_texts
from thresher.errors import MissingExtraError, SettingsError, did_you_mean
from thresher.validation import check_settings, option

READ_CHARACTERS = 2_000  # more characters do not make it surer


@dataclass(frozen=True, kw_only=True)
class Language(Rule):
    """Drop rows that are surely in another language than those wanted.

    A row is dropped when the most probable language is not among those wanted and its probability
    is at least `min_probability`: a row about which nothing is sure stays, and so does one that is
    too short to tell.

    Source: py3langid (BSD-3), a naive Bayes over byte n-grams for 97 and more languages (Lui and
    Baldwin 2012, aclanthology.org/P12-3005), with its model in the package. Cost: about 10,000
    rows/s on one core. Fails: code, names and tables have no language; short texts and close
    relatives (Norwegian and Danish) are guessed.

    Attributes:
        languages: ISO 639-1 codes that are wanted.
        min_probability: of another language, from which on a row is dropped.
        min_characters: shorter texts stay.
        scope: which text is looked at: "row", "prompt" or "response"; of classification data always
            the text.
    """

    name: ClassVar[str] = "language"

    languages: tuple[str, ...] = ("en",)
    min_probability: float = option(0.8, ge=0, le=1)
    min_characters: int = option(30, ge=0)
    scope: Scope = "row"

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: no language is wanted.
        """
        check_settings(self, self.name)
        if not self.languages:
            raise SettingsError(
                f"{self.name}: languages must hold at least one code such as 'en', got {self.languages!r}"
            )

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row that is surely in another language.

        Raises:
            SettingsError: the recognizer does not know a wanted language.
        """
        identifier = _load_identifier()
        for code in self.languages:
            if code not in identifier.labels:
                hint = did_you_mean(code, identifier.labels)
                raise SettingsError(f"{self.name}: languages must be ISO 639-1 codes, got '{code}'{hint}")
        texts = plain_texts(pool.dataset, self.scope)
        guesses = [identifier.classify(text) for text in texts.str.slice(0, READ_CHARACTERS).to_list()]
        frame = pl.DataFrame(guesses, schema={"code": pl.String, "probability": pl.Float64}, orient="row")
        is_other = ~frame["code"].is_in(list(self.languages)) & (frame["probability"] >= self.min_probability)
        is_other &= texts.str.len_chars() >= self.min_characters
        languages = ", ".join(self.languages)
        text = frame.select(
            pl.format(f"is in '{{}}' (probability {{}}), wanted: {languages}", "code", pl.col("probability").round(3))
        ).to_series()
        return drop_where(is_other.to_numpy(), "other-language", text)


@cache
def _load_identifier() -> Any:
    """Return the recognizer; its model takes half a second to read.

    Raises:
        MissingExtraError: py3langid is not installed.
    """
    try:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier
    except ModuleNotFoundError:
        raise MissingExtraError("py3langid", f"the rule '{Language.name}'", "language") from None
    return LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
