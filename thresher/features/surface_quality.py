"""`surface_quality`: what can be told of an answer without a model, with reasons."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl

from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider, FeatureValues

if TYPE_CHECKING:
    from collections.abc import Iterator

    from thresher.dataset import Dataset

RECIPE = "surface-quality-1"
# letters that are written without spaces count as a word each
UNSPACED = "\u0e00-\u0e7f\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{UNSPACED}]|[^\W{UNSPACED}]+")
MIN_WORDS, MAX_WORDS = 3, 2_000
MIN_WORDS_REPEATED = 30  # of a text in which repetition is looked for
MAX_TRIGRAM = 0.12  # share of the most frequent three words in a row
MAX_REPEATED_LINES = 0.3
MIN_WORDS_VARIED, VARIED_WINDOW = 50, 100  # words that the type-token ratio is taken of
MIN_VARIETY = 0.3
MIN_WORDS_CUT = 20  # of a text that should come to an end
REFUSAL_CHARACTERS = 200  # in which a refusal begins
N_SIGNALS = 6
LIST_MARKS = ("-", "*", "•", "#", "|", *map(str, range(10)))
REFUSAL = re.compile(
    r"\bas an ai\b|\bas a(?:n ai)? (?:large )?language model\b|\bi(?:'m| am) (?:sorry|afraid),? but i\b"
    r"|(?:^|[.!?\n]\s*)i (?:cannot|can't|can not|won't) (?:fulfill|assist|help|comply|provide|do that)\b"
    r"|(?:^|[.!?\n]\s*)i(?:'m| am) (?:unable|not able) to (?:fulfill|assist|help|comply|provide)\b"
)
ENDINGS = frozenset(".!?…:;)]}>\"'`|*_~\u201d\u2019»。！？」』）】।؟۔")


class SurfaceQuality(FeatureProvider):
    """Share of six tests that a row's answer (or its text) passes, without any model: 0..1.

    Too short (under 3 words) or too long (over 2,000); three words in a row that make more than 12
    % of it, or over 30 % repeated lines; fewer than 30 % different words in the first 100; a
    refusal at its beginning; an end in the midst of a sentence or of a code block; other letters
    than the prompt's. Short texts are not searched for repetition or their end. The reasons name
    the tests that failed. Of classification data the text is looked at.
    """

    name: ClassVar[str] = "surface_quality"
    passes: ClassVar[str] = "none: words are counted"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the recipe."""
        return {"recipe": RECIPE}

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n,) float64 in 0..1, with reasons where it is below 1."""
        is_answer = dataset.kind == "sft"
        texts = dataset.frame["response"] if dataset.kind != "classification" else dataset.frame["prompt"]
        prompts = dataset.frame["prompt"].to_list() if is_answer else [""] * len(texts)
        faults = [list(find_faults(text, prompt)) for text, prompt in zip(texts.to_list(), prompts, strict=True)]
        counts = Counter(fault.split(":")[0] for row in faults for fault in row)
        return FeatureValues(
            values=np.array([1 - len(row) / N_SIGNALS for row in faults], dtype=np.float64),
            missing=pl.Series("missing", [None] * len(faults), dtype=pl.String),
            reasons=pl.Series("reasons", ["; ".join(row) or None for row in faults], dtype=pl.String),
            notes=dict(sorted(counts.items())),
        )


def find_faults(text: str, prompt: str = "") -> Iterator[str]:
    """Yield what is wrong with a text: the name of the test, a colon, and what was found.

    Args:
        text: an answer.
        prompt: that it answers; "" where there is none.
    """
    words = WORD.findall(text.lower())
    n = len(words)
    if not MIN_WORDS <= n <= MAX_WORDS:
        yield f"length: {n:,} words"
    if n >= MIN_WORDS_REPEATED and (repeated := _find_repetition(text, words)):
        yield f"repetition: {repeated}"
    first = words[:VARIED_WINDOW]
    if n >= MIN_WORDS_VARIED and len(set(first)) < MIN_VARIETY * len(first):
        yield f"few distinct words: {len(set(first))} of the first {len(first)}"
    refusal = REFUSAL.search(text[:REFUSAL_CHARACTERS].lower().replace("\u2019", "'"))
    if refusal:
        yield f"refusal: '{refusal[0].strip(' .!?')}'"
    if n >= MIN_WORDS_CUT and (cut := _find_cut(text)):
        yield f"cut off: {cut}"
    ours, theirs = _find_script(text), _find_script(prompt)
    if ours and theirs and ours != theirs:
        yield f"other letters: {ours.title()}, the prompt's are {theirs.title()}"


def _find_repetition(text: str, words: list[str]) -> str:
    """Return what is repeated, or ""."""
    trigram, times = Counter(zip(words, words[1:], words[2:], strict=False)).most_common(1)[0]
    if times > 1 and 3 * times > MAX_TRIGRAM * len(words) and times > 3:
        return f"'{' '.join(trigram)}' {times} times"
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    n_repeated = len(lines) - len(set(lines))
    is_listed = len(lines) >= 4 and n_repeated > MAX_REPEATED_LINES * len(lines)
    return f"{n_repeated} of {len(lines)} lines occurred before" if is_listed else ""


def _find_cut(text: str) -> str:
    """Return where a text breaks off, or ""."""
    if text.count("```") % 2:
        return "a code block is not closed"
    last = text.rstrip()[-1]
    # digits end tables and formulas, symbols and emoji end what people write
    is_open = last == "," or (last.isalpha() and not text.rstrip().splitlines()[-1].lstrip().startswith(LIST_MARKS))
    return f"it ends with '{text.rstrip()[-20:]}'" if is_open and last not in ENDINGS else ""


def _find_script(text: str) -> str:
    """Return the script that most letters are of, "" where there are fewer than ten letters."""
    scripts = Counter(
        unicodedata.name(letter, " ").split()[0] for letter in text[: 4 * VARIED_WINDOW] if letter.isalpha()
    )
    if sum(scripts.values()) < 10:
        return ""
    joined = Counter({"CJK": 0})
    for script, count in scripts.items():
        joined["CJK" if script in ("CJK", "HIRAGANA", "KATAKANA") else script] += count
    return joined.most_common(1)[0][0]
