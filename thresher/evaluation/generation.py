"""Metrics of generated answers against references, one score per row."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from thresher.errors import MissingExtraError
from thresher.evaluation.estimate import Estimate, mean, proportion

_THOUGHT = re.compile(r"\s*<think>.*?</think>", re.DOTALL)


@dataclass(frozen=True, kw_only=True)
class GenerationScores:
    """Scores of each row.

    Attributes:
        exact_match: (n,) the answer is the reference, white space at the ends apart. A thought
            ("<think>...</think>") that opens the answer and not the reference counts in none of
            them: the templates of some models (Qwen3) show an empty one before every answer, so
            that it is learned.
        rouge_l: (n,) F-measure of the longest common subsequence of words, 0..1 (Lin 2004,
            rouge-score, stemmed).
        chrf: (n,) character n-gram F-score of the row, 0..100 (Popović 2015, sacrebleu).
    """

    exact_match: list[bool]
    rouge_l: list[float]
    chrf: list[float]

    def estimates(self) -> dict[str, Estimate]:
        """Return the mean of each metric over rows."""
        return {
            "exact_match": proportion(self.exact_match),
            "rouge_l": mean(self.rouge_l),
            "chrf": mean(self.chrf),
        }


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
    pairs = [(_spoken(answer, reference), reference) for answer, reference in zip(answers, references, strict=True)]
    return GenerationScores(
        exact_match=[answer.strip() == reference.strip() for answer, reference in pairs],
        rouge_l=[float(rouge.score(reference, answer)["rougeL"].fmeasure) for answer, reference in pairs],
        chrf=[float(chrf.sentence_score(answer, [reference]).score) for answer, reference in pairs],
    )


def _spoken(answer: str, reference: str) -> str:
    return (
        answer if _THOUGHT.match(reference) else _THOUGHT.sub("", answer, count=1) if _THOUGHT.match(answer) else answer
    )
