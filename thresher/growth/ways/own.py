"""Own: the model's own right answer in place of the row's, so that it has less to learn (S3FT)."""

from __future__ import annotations

from dataclasses import replace

from thresher.growth.candidate import Candidate
from thresher.growth.seeds import Seeds
from thresher.models.generation.generator import user_turn

SAY_IT = (
    "Question:\n{prompt}\n\nA right answer:\n{response}\n\nGive this answer to the question in your own words. Keep "
    "what it says, numbers and names included. Write the answer alone."
)
OWN, REWORDED, GOLD = "own", "reworded", "gold"


def propose_own_answers(seeds: Seeds) -> tuple[list[Candidate], dict[str, float]]:
    """Return each seed with the model's right answer, else its rewording, else the row's answer.

    The answers that were tried and wrong come along, refused.
    """
    likeliest = seeds.settings.likeliest
    first = seeds.model.ask(seeds.rows.conversations, likeliest, stage="own answers")
    tried = seeds.judge_answers([(number, samples[0]) for number, samples in enumerate(first)])
    missed = [number for number, each in enumerate(tried) if each.reason is not None]
    asked = [
        user_turn(SAY_IT.format(prompt=seeds.rows.prompts[number], response=seeds.rows.responses[number]))
        for number in missed
    ]
    second = seeds.model.ask(asked, likeliest, stage="answers in own words")
    reworded = seeds.judge_answers([(number, samples[0]) for number, samples in zip(missed, second, strict=True)])
    candidates = [replace(each, answer_from=OWN) for each in tried]
    candidates += [replace(each, answer_from=REWORDED) for each in reworded]
    candidates += [
        replace(seeds.candidate(number), answer_from=GOLD)
        for number, each in zip(missed, reworded, strict=True)
        if each.reason is not None
    ]
    return sorted(candidates, key=lambda each: each.seed), {}
