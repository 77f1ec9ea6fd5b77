"""Rows that a model does not know: its sampled answers disagree, and none says what the row says.

Training on facts that a model does not know teaches it to invent (Gekhman et al. 2024,
arXiv:2405.05904); a refusal in their place teaches it to say so (R-Tuning, Zhang et al. 2024,
arXiv:2311.09677). What is not known is seen by semantic entropy (Kuhn et al. 2023,
arXiv:2302.09664): answers that say the same are one cluster, H = -sum_c p_c ln p_c.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from thresher.curation.correction.settings import CorrectSettings
from thresher.features.answers.meaning import cluster_answers, compare_meaning, measure_entropy
from thresher.models.generation.decoding import Decoding
from thresher.numeric.arrays import Float64

if TYPE_CHECKING:
    from thresher.features import FeatureContext
    from thresher.features.answers.prompts import PromptRows
    from thresher.models.generation.generator import Generation, TextGenerator

FEWEST_WHOLE = 2  # answers of a row of which others were cut off


@dataclass(frozen=True)
class Abstention:
    """What is not known.

    Attributes:
        decisions: (n,) whether a row's answer gives way to the refusal, and why or why not.
        problems: position -> why a row has no sampled answer.
        entropy: (n,) in nats, nan where there is no answer.
    """

    decisions: list[tuple[bool, str]]
    problems: dict[int, str]
    entropy: Float64


def decide_abstentions(
    prompts: PromptRows, writer: TextGenerator, settings: CorrectSettings, context: FeatureContext
) -> Abstention:
    """Sample answers to each prompt; a row is unknown if they disagree and none says what it does.

    An answer that was cut off has not said all that it would, so it does not count; a row of whose
    answers fewer than two are whole is not decided.

    Args:
        prompts: what is asked and answered in each row.
        writer: the model that is to abstain.
        settings: the number of samples, and from which share of the largest entropy, its
            logarithm, answers disagree.
        context: of the models.
    """
    decoding = Decoding(
        n_samples=settings.n_samples, temperature=settings.temperature, max_new_tokens=settings.max_new_tokens
    )
    drawn = writer.generate(prompts.conversations, decoding, stage="correct: sampled answers", context=context)
    answers = [[each.text for each in samples if each.text and not each.is_cut] for samples in drawn]
    problems = {i: _explain_lack(samples) for i, samples in enumerate(drawn) if _is_lacking(samples, answers[i])}
    meaning = {"entailment": settings.entailment, "stage": "correct: meaning"}
    entropy = measure_entropy(cluster_answers(answers, context, **meaning))  # type: ignore[arg-type]
    pairs = [(prompts.responses[i], text) for i, own in enumerate(answers) for text in own]
    is_right = iter(compare_meaning(pairs, context, **meaning).tolist())  # type: ignore[arg-type]
    n_right = [sum(next(is_right) for _ in own) for own in answers]
    largest = float(np.log(settings.n_samples))
    decisions = []
    for i, own in enumerate(answers):
        agreement = f"{n_right[i]} of {len(own)} sampled answers say what the row says"
        is_unknown = n_right[i] == 0 and bool(entropy[i] >= settings.least_entropy * largest)
        decisions.append((is_unknown, f"{agreement}, entropy {entropy[i]:.2f} of {largest:.2f}"))
    return Abstention(decisions, problems, entropy)


def _is_lacking(samples: Sequence[Generation], whole: Sequence[str]) -> bool:
    """Tell whether a row has no answer, or too few that were not cut off."""
    return not whole or (len(whole) < FEWEST_WHOLE and any(each.is_cut for each in samples))


def _explain_lack(samples: Sequence[Generation]) -> str:
    """Return why a row has too few answers."""
    n_cut = sum(each.is_cut for each in samples)
    if n_cut:
        return f"{n_cut} of {len(samples)} sampled answers were truncated at max_new_tokens"
    return next((each.problem for each in samples if each.problem), None) or "the model's answers are empty"
