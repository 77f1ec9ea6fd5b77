"""Accept: right and different answers among the ones that a model draws (RFT, ReST-EM, STaR)."""

from __future__ import annotations

from collections.abc import Sequence

from thresher.checks.automatic import choose_check
from thresher.checks.number import Number, list_numbers
from thresher.features.answers.pass_rate import estimate_pass_k
from thresher.features.answers.prompts import plain
from thresher.growth.candidate import ENOUGH, NO_ANSWER, REPEATED, SAME, Candidate
from thresher.growth.seeds import Seeds


def propose_answers(seeds: Seeds) -> tuple[list[Candidate], dict[str, float]]:
    """Draw answers of each seed's prompt; return them all, and pass@1 and pass@k.

    Of the right ones at most `most` of a seed stay, the first ones, each different from the seed's
    own answer and from the others: for numbers by the list of numbers on the way, else by words.
    """
    settings = seeds.settings
    drawn = seeds.writer.ask(seeds.rows.conversations, settings.draw(settings.n_samples), stage="answers")
    answers = [(number, answer) for number, samples in enumerate(drawn) for answer in samples]
    judged = seeds.judge_answers(answers)
    rates = _measure_pass_rates(judged, len(drawn), settings.n_samples)
    candidates: list[Candidate] = []
    for number in range(len(drawn)):
        own = judged[number * settings.n_samples : (number + 1) * settings.n_samples]
        candidates += _keep_different(own, seeds.rows.responses[number], seeds)
    return candidates, rates


def _keep_different(candidates: Sequence[Candidate], response: str, seeds: Seeds) -> list[Candidate]:
    is_number = isinstance(seeds.check, Number) or isinstance(choose_check(response), Number)
    known = {_sign(response, is_number=is_number)}
    kept, n_kept = [], 0
    for each in candidates:
        sign = None if each.reason is not None else _sign(str(each.response), is_number=is_number)
        if sign is None:
            kept.append(each)
        elif sign == _sign(response, is_number=is_number):
            kept.append(each.refuse(SAME, "the row's own answer, by its words or intermediate numbers"))
        elif sign in known:
            kept.append(each.refuse(REPEATED, "another kept answer of this row, by its words or intermediate numbers"))
        elif n_kept == seeds.settings.most:
            kept.append(each.refuse(ENOUGH, f"{n_kept} answers of this row are already kept"))
        else:
            known.add(sign)
            kept.append(each)
            n_kept += 1
    return kept


def _sign(text: str, *, is_number: bool) -> tuple[object, ...]:
    """Return what is the same for answers that say the same in the same way."""
    numbers = tuple(list_numbers(text)) if is_number else ()
    # a bare final number says nothing of the way
    return numbers if len(numbers) > 1 else (plain(text).casefold(),)


def _measure_pass_rates(judged: Sequence[Candidate], n_seeds: int, k: int) -> dict[str, float]:
    """Return the mean of pass@1 and pass@k of seeds with all k answers; cut ones are wrong."""
    first, best, n = 0.0, 0.0, 0
    for number in range(n_seeds):
        own = [each.reason for each in judged[number * k : (number + 1) * k]]
        if NO_ANSWER not in own:
            n_passed = sum(reason is None for reason in own)
            n += 1
            first += n_passed / k
            best += estimate_pass_k(k, n_passed, k)
    return {"pass_at_1": round(first / n, 4), f"pass_at_{k}": round(best / n, 4), "seeds_decided": n} if n else {}
