"""Candidates: what a model wrote for a seed, and why it is refused."""

from __future__ import annotations

from dataclasses import dataclass, replace

WRONG, CUT, NO_ANSWER = "wrong", "cut", "no-answer"
SAME, REPEATED, ENOUGH = "same-as-the-row", "repeated", "enough"
UNREADABLE, BROKEN, UNCONFIRMED = "unreadable", "constraint-broken", "unconfirmed"
NOT_ASKED = "not-asked"


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """One text of a model, as a row that it might become.

    Attributes:
        seed: position of the seed in the pool.
        prompt: another prompt, or None for the seed's.
        response: another response, or None for the seed's.
        answer_from: of the way "own": own, reworded or gold; else None.
        reason: short name of why it is refused, or None.
        explanation: the same in a sentence.
    """

    seed: int
    prompt: str | None = None
    response: str | None = None
    answer_from: str | None = None
    reason: str | None = None
    explanation: str | None = None

    def refuse(self, reason: str, explanation: str) -> Candidate:
        """Return the candidate with the reason why it is no row."""
        return replace(self, reason=reason, explanation=explanation)
