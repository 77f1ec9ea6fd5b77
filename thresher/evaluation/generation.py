"""Metrics of generated answers against references, one score per row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from thresher.errors import MissingExtraError
from thresher.evaluation.estimate import Estimate, mean, proportion

_NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")
LONGEST_WORDS = 8  # of a reference that is looked for word by word in an answer
_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class GenerationScores:
    """Scores of each row.

    Attributes:
        exact_match: (n,) whether the answer equals the reference, up to white space at the ends.
            None of the scores counts a thought ("<think>...</think>") that opens the answer but not
            the reference: the templates of some models (Qwen3) put an empty one before every
            answer, so the model learns it.
        rouge_l: (n,) F-measure of the longest common subsequence of words, 0..1 (Lin 2004,
            rouge-score, stemmed).
        chrf: (n,) character n-gram F-score of the row, 0..100 (Popović 2015, sacrebleu).
    """

    exact_match: list[bool]
    rouge_l: list[float]
    chrf: list[float]

    def estimates(self) -> dict[str, Estimate]:
        """Return the mean of each metric over rows."""
        return {"exact_match": proportion(self.exact_match), "rouge_l": mean(self.rouge_l), "chrf": mean(self.chrf)}


def score_answers(answers: Sequence[str], references: Sequence[str]) -> GenerationScores:
    """Score generated answers row by row.

    Args:
        answers: (n,) what the model wrote.
        references: (n,) what it should have written.

    Raises:
        MissingExtraError: rouge-score or sacrebleu is not installed.
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError:
        raise MissingExtraError("rouge-score", "ROUGE-L", "train") from None
    try:
        from sacrebleu.metrics import CHRF
    except ModuleNotFoundError:
        raise MissingExtraError("sacrebleu", "chrF", "train") from None
    rouge, chrf = RougeScorer(["rougeL"], use_stemmer=True), CHRF()
    pairs = [(_without_thought(*pair), pair[1]) for pair in zip(answers, references, strict=True)]
    return GenerationScores(
        exact_match=[answer.strip() == reference.strip() for answer, reference in pairs],
        rouge_l=[float(rouge.score(reference, answer)["rougeL"].fmeasure) for answer, reference in pairs],
        chrf=[float(chrf.sentence_score(answer, [reference]).score) for answer, reference in pairs],
    )


def _without_thought(answer: str, reference: str) -> str:
    has_own_thought = _THOUGHT.match(answer) and not _THOUGHT.match(reference)
    return _THOUGHT.sub("", answer, count=1) if has_own_thought else answer


def find_lenient_hits(answers: Sequence[str | None], references: Sequence[str]) -> list[bool | None]:
    """Tell which answers hold what was expected, whatever else they say.

    A model that knows an answer and was never shown its form fails an exact match. Where the
    reference has a number, the answer's first or last number must be the reference's last one;
    where it is short, its words must stand in the answer in their order, whatever their case.

    Args:
        answers: (n,) what the model wrote; None where it was not asked.
        references: (n,) what it should have written.

    Returns:
        (n,) None without an answer, and for long references without a number.
    """
    hits: list[bool | None] = []
    for answer, reference in zip(answers, references, strict=True):
        words, expected = _split_words(reference), _read_numbers(reference)
        if answer is None or not (expected or 0 < len(words) <= LONGEST_WORDS):
            hits.append(None)
            continue
        own = _without_thought(answer, reference)
        if expected:
            numbers = _read_numbers(own)
            hits.append(bool(numbers) and expected[-1] in (numbers[0], numbers[-1]))
        else:
            hits.append(f" {' '.join(words)} " in f" {' '.join(_split_words(own))} ")
    return hits


def score_leniently(answers: Sequence[str | None], references: Sequence[str]) -> Estimate | None:
    """Return the share of answers that hold what was expected; None where none can be looked at."""
    known = [hit for hit in find_lenient_hits(answers, references) if hit is not None]
    return proportion(known) if known else None


def _read_numbers(text: str) -> list[float]:
    return [float(number.replace(",", "")) for number in _NUMBER.findall(text)]


def _split_words(text: str) -> list[str]:
    return re.findall(r"\w+", text.casefold())
