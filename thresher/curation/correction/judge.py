"""A judge of two answers: shown in both orders, it says how likely the second one is better."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thresher.errors import InputError

if TYPE_CHECKING:
    from thresher.features import FeatureContext
    from thresher.models.generation.generator import TextGenerator

LETTERS = ("A", "B")
VERDICT = (
    "Question:\n{prompt}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\nWhich answer is better?\n(A) Answer A\n"
    "(B) Answer B\n\nThe output should be the letter A or B only."
)


def ask_judge(
    triples: Sequence[tuple[str, str, str]],
    judge: TextGenerator,
    context: FeatureContext,
    *,
    stage: str = "correct: verdicts",
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[str | None]]:
    """Return how likely the candidate is better, shown first and second, (m, 2), and problems.

    Args:
        triples: prompt, original and candidate of each row.
        judge: who is asked.
        context: of the judge.
        stage: that listeners are told of.
    """
    from thresher.models.generation.generator import user_turn

    first = [VERDICT.format(prompt=p, first=candidate, second=original) for p, original, candidate in triples]
    second = [VERDICT.format(prompt=p, first=original, second=candidate) for p, original, candidate in triples]
    conversations = [user_turn(text) for text in (*first, *second)]
    answers = judge.score_options(conversations, LETTERS, stage=stage, context=context)
    m = len(triples)
    shown = np.stack([answers.probabilities[:m, 0], answers.probabilities[m:, 1]], axis=1)
    return shown, [a or b for a, b in zip(answers.problems[:m], answers.problems[m:], strict=True)]


def find_judge(model: str) -> str:
    """Return the name of an adapter's base, which judges where nobody else is named.

    Raises:
        InputError: the model is no adapter.
    """
    from thresher.models.adapter_files import ADAPTER_CONFIG
    from thresher.models.causal_lm.adapter import read_base_name
    from thresher.models.server_address import ServerAddress, is_server

    folder = Path(model).expanduser()
    if (folder / ADAPTER_CONFIG).is_file():
        return read_base_name(folder)
    # an address may hold a password
    shown = ServerAddress.parse(model).url if is_server(model) else model
    raise InputError(
        f"correct: '{shown}' is not an adapter whose base could judge; name the judge (--judge MODEL), ideally "
        f"the model before fine-tuning"
    )
