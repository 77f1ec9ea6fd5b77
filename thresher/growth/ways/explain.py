"""Explain: a reasoning in front of each answer, from which alone the model finds the answer."""

from __future__ import annotations

import re
from dataclasses import replace

from thresher.growth.candidate import CUT, NO_ANSWER, WRONG, Candidate
from thresher.growth.seeds import Seeds
from thresher.models.generation.generator import user_turn

EXPLAIN = (
    "Question:\n{prompt}\n\nThe right answer is:\n{response}\n\nWrite the reasoning that leads from the question to "
    "this answer, step by step, in a few sentences. Do not state the answer itself."
)
CONCLUDE = "{prompt}\n\nReasoning:\n{reasoning}\n\nGive the final answer alone."
HIDDEN = "..."


def propose_explanations(seeds: Seeds) -> tuple[list[Candidate], dict[str, float]]:
    """Write a reasoning for each seed's answer; it stays if the model concludes the answer from it.

    Where the reasoning states the answer, word by word, the model does not see it there.
    """
    likeliest = seeds.settings.likeliest
    rows = seeds.rows
    asked = [
        user_turn(EXPLAIN.format(prompt=prompt, response=response))
        for prompt, response in zip(rows.prompts, rows.responses, strict=True)
    ]
    written = [samples[0] for samples in seeds.writer.ask(asked, likeliest, stage="explanations")]
    candidates = []
    for number, text in enumerate(written):
        response = f"{text.text}\n{rows.responses[number]}" if text.text else None
        candidate = seeds.candidate(number, response=response)
        if not text.text:
            candidate = candidate.refuse(NO_ANSWER, text.problem or "the explanation is empty")
        elif text.is_cut:
            candidate = candidate.refuse(CUT, "the explanation ended at max_new_tokens")
        candidates.append(candidate)
    numbers = [number for number, each in enumerate(candidates) if each.reason is None]
    questions = [
        user_turn(
            CONCLUDE.format(
                prompt=rows.prompts[number], reasoning=_hide(str(written[number].text), rows.responses[number])
            )
        )
        for number in numbers
    ]
    concluded = seeds.model.ask(questions, likeliest, stage="conclusions")
    judged = seeds.judge_answers([(number, samples[0]) for number, samples in zip(numbers, concluded, strict=True)])
    for number, verdict in zip(numbers, judged, strict=True):
        if verdict.reason is not None:
            why = f"the model does not get the answer from it: {verdict.explanation}"
            candidates[number] = replace(candidates[number], reason=WRONG, explanation=why)
    return candidates, {}


def _hide(reasoning: str, response: str) -> str:
    """Return a reasoning without the answer, where it stands there as a text of its own."""
    pattern = rf"(?<!\w){re.escape(response.strip())}(?!\w)"
    return re.sub(pattern, HIDDEN, reasoning, flags=re.IGNORECASE) if response.strip() else reasoning
