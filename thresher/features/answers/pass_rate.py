"""How often a language model's drawn answers pass a check against a row's own answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from thresher.cache.fingerprint import combine_fingerprints
from thresher.checks import create_check
from thresher.checks.contract import Check
from thresher.features.answers.prompts import PromptRows, missing_series
from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider, FeatureValues, describe_missing
from thresher.models.generation.load import load_generator

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thresher.dataset import Dataset
    from thresher.models.generation.generator import Generation

RECIPE = "pass-rate-2"
PASS_RATE = np.dtype([("passed", np.float64), ("drawn", np.float64)])
NOT_CHECKABLE = "the check '{}' finds nothing to compare in its response"
CUT = "none of its answers ended before max_new_tokens, and none was right; raise max_new_tokens"


class PassRate(FeatureProvider):
    """How many of a row's drawn answers are right: `passed` of `drawn`.

    The model answers the row's prompt `n_samples` times, and the check compares each answer with
    the row's response by reading alone. An answer that is cut off at `max_new_tokens` counts as it
    stands, right or wrong, as a trainer with that limit rewards it. A row in whose response the
    check finds nothing, of whose answers fewer than two count, or whose answers are all cut off
    before any is right, has no value. The answers are kept one by one: asking for more of
    them, or checking them in another way, pays for no answer twice.

    Source: pass@k as in Chen et al. 2021, arXiv:2107.03374.
    """

    name: ClassVar[str] = "pass_rate"
    passes: ClassVar[str] = "the language model generates n_samples answers to each of n prompts"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model, how it is asked and the check, and the fingerprint of all."""
        generator, settings = load_generator(context), context.pass_rate
        return {
            "model": generator.name,
            **{name: str(getattr(settings, name)) for name in ("check", "n_samples", "temperature", "seed")},
            "fingerprint": combine_fingerprints(RECIPE, generator.fingerprint, repr(settings)),
        }

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n,) of PASS_RATE, NaN with its reason for a row that cannot be checked.

        Raises:
            InputError: the rows are plain text, or a model or server cannot be asked.
        """
        rows = PromptRows.from_dataset(dataset, by=self.name)
        settings = context.pass_rate
        check, generator = create_check(settings.check), load_generator(context)
        # referenced, so that the features computed after this one share the model
        self._generator = generator
        problems: list[str | None] = [
            NOT_CHECKABLE.format(settings.check) if check.read(response) is None else None
            for response in rows.responses
        ]
        values = np.full(len(dataset), np.nan, dtype=PASS_RATE)
        askable = [row for row, problem in enumerate(problems) if problem is None]
        conversations = [rows.conversations[row] for row in askable]
        answers = generator.generate(conversations, settings.decoding, stage="pass_rate: answers", context=context)
        n_cut = 0
        for row, samples in zip(askable, answers, strict=True):
            outcomes = judge_samples(samples, rows.responses[row], check)
            counted = [outcome for outcome in outcomes if outcome is not None]
            n_failed = sum(
                answer.is_cut and outcome is False for answer, outcome in zip(samples, outcomes, strict=True)
            )
            n_cut += n_failed
            if len(counted) < 2 or n_failed == len(counted):
                problems[row] = next((each.problem for each in samples if each.problem is not None), CUT)
            else:
                values[row] = (sum(counted), len(counted))
        missing = missing_series(problems)
        notes = {"rows": len(dataset), "rows_missing": len(missing) - missing.null_count(), "answers_cut": n_cut}
        sentences = [*generator.notes(), *describe_missing(self.name, notes)]
        if n_cut:
            sentences.append(f"{self.name}: {n_cut:,} answers were cut off at max_new_tokens and count as wrong")
        context.report_notes(self.name, len(values), sentences)
        return FeatureValues(values=values, missing=missing, notes=notes)


def judge_samples(samples: Sequence[Generation], reference: str, check: Check) -> list[bool | None]:
    """Tell which answers are right, cut ones as they stand; None where there is no answer."""
    return [None if answer.text is None else check.is_right(answer.text, reference) for answer in samples]


def estimate_pass_k(n_drawn: int, n_passed: int, k: int) -> float:
    """Return the chance that at least one of k answers is right: 1 - C(n - c, k) / C(n, k).

    Args:
        n_drawn: answers drawn, n, at least k.
        n_passed: right ones among them, c.
        k: answers that one has.
    """
    if n_drawn - n_passed < k:
        return 1.0
    return float(1 - np.prod(1 - k / np.arange(n_drawn - n_passed + 1, n_drawn + 1)))
