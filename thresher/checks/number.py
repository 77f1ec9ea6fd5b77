r"""The final number of a text: behind ####, in \boxed{}, or the last one, with its sign."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import ClassVar

from thresher.checks.contract import Check

MARK = "####"
_BOXED = re.compile(r"\\boxed\s*\{((?:[^{}]|\{[^{}]*\})*)\}")
_FRACTION = re.compile(r"\\d?frac\s*\{\s*(-?\d+)\s*\}\s*\{\s*(\d+)\s*\}")
_CURRENCY = re.compile(r"\\?[$\u20ac\u00a3\u00a5]\s?")
# A minus behind a digit or a bracket subtracts. Commas separate thousands and nothing else. No
# number is longer than 40 digits, and exponents have two, so that a text cannot ask for much work.
_NUMBER = re.compile(
    r"(?<![\w.])(?:(?<![\d)\]])[-+])?(?:\d{1,3}(?:,\d{3})+(?!\d)|\d{1,40})(?:\.\d{1,40})?(?:[eE][-+]?\d{1,2}(?!\d))?"
    r"(?:\s?/\s?\d{1,40}(?![\d/]))?"
    r"|(?<![\w.])-?\.\d{1,40}"
)
_MINUS = str.maketrans({"\u2212": "-", "\u2013": "-", "\u2012": "-"})


class Number(Check):
    """The final numbers are equal: 18, 18.0, $18, 1,800/100, -5 unlike 5."""

    name: ClassVar[str] = "number"

    def read(self, text: str) -> str | None:
        """Return the final number as a fraction in lowest terms, or None."""
        value = find_final_number(text)
        return None if value is None else str(value)


def find_final_number(text: str) -> Fraction | None:
    r"""Return the number that a text ends with, or None.

    It is the first one behind the last "####", else the last one in the last \boxed{}, else the
    last of the text.
    """
    plain = text.translate(_MINUS)
    if MARK in plain:
        numbers = list_numbers(plain.rpartition(MARK)[2])
        if numbers:
            return numbers[0]
    boxed = _BOXED.findall(plain)
    numbers = list_numbers(boxed[-1]) if boxed else list_numbers(plain)
    return numbers[-1] if numbers else None


def list_numbers(text: str) -> list[Fraction]:
    """Return all numbers of a text, in order."""
    plain = _CURRENCY.sub("", _FRACTION.sub(r"\1/\2", text.translate(_MINUS)))
    numbers = []
    for match in _NUMBER.finditer(plain):
        whole, _, below = match.group().replace(",", "").replace(" ", "").partition("/")
        if below and not int(below):
            continue
        numbers.append(Fraction(whole) / int(below or 1))
    return numbers
