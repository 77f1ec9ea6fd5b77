"""The check that fits a reference by its form."""

from __future__ import annotations

import re
from typing import ClassVar

from thresher.checks.contract import Check
from thresher.checks.number import MARK, Number
from thresher.checks.words import Choice, Exact, Json

_ALONE = re.compile(r"[-+\u2212\u2012\u2013]?[$\u20ac\u00a3]?\s?[\d.,/]*\d\s?%?\.?")
_LETTER = re.compile(r"\W*[A-Z]\W*")


class Automatic(Check):
    r"""By the form of the reference: `number`, `json`, `choice`, or else `exact`.

    `number` where it has ####, a \boxed{} or nothing but a number; `json` where it is an object or
    a list; `choice` where it is one capital letter.
    """

    name: ClassVar[str] = "auto"

    def read(self, text: str) -> str | None:
        """Return what a reference says by the check of its form."""
        return choose_check(text).read(text)

    def is_right(self, answer: str, reference: str) -> bool:
        """Tell whether an answer says the same, by the check of the reference's form."""
        return choose_check(reference).is_right(answer, reference)


def choose_check(reference: str) -> Check:
    """Return the check of a reference's form."""
    text = reference.strip()
    if (MARK in text or r"\boxed" in text or _ALONE.fullmatch(text)) and Number().read(text) is not None:
        return Number()
    if text[:1] in ("{", "[") and Json().read(text) is not None:
        return Json()
    return Choice() if _LETTER.fullmatch(text) else Exact()
