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
