"""Numbers as text: rates in percent, their differences in points, others to significant digits.

Imported as `fmt`, so that a call reads as verb and object: `fmt.count(n)`, `fmt.seconds(time)`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeGuard

from thresher.numeric import units

RATES = frozenset({"accuracy", "macro_f1", "balanced_accuracy", "exact_match", "rouge_l", "precision", "recall", "f1"})
NOTHING = "–"
PERCENT = "\u00a0%"  # the sign stays with its number


@dataclass(frozen=True)
class MetricDisplay:
    """How the values of a metric are shown.

    Attributes:
        name: as in the files.
        is_higher_better: its direction.
        is_rate: its values are shares in 0..1, shown as percent.
        task: of the model; the loss of a classifier is per row, that of others per token.
    """

    name: str
    is_higher_better: bool
    is_rate: bool
    task: str | None = None

    @property
    def label(self) -> str:
        """Return the name for people, with the unit."""
        nats = " (nats)" if self.task == "classification" else " (nats per token)"
        return readable_name(self.name) + (" (%)" if self.is_rate else nats if self.name == "loss" else "")

    def scaled(self, value: float) -> float:
        """Return the value on the axis: percent for a rate."""
        return 100 * value if self.is_rate else value

    def text(self, value: float | None, stderr: float | None = None) -> str:
        """Return "81.2 %" or "81.2 ± 0.9 %"; "1.234" if it is not a rate."""
        if not is_number(value):
            return NOTHING
        error = stderr if is_number(stderr) else None
        if self.is_rate:
            return f"{100 * value:.1f}{'' if error is None else f' ± {100 * error:.1f}'}{PERCENT}"
        if error is None or error <= 1e-6 * abs(value):  # only rounding
            return significant(value) + ("" if error is None else " ± 0")
        places = max(0, 1 - math.floor(math.log10(error)))  # two digits of the error
        return f"{value:,.{places}f} ± {error:.{places}f}"

    def difference(self, value: float | None) -> str:
        """Return "+1.2 points", or "-0.031" if it is not a rate."""
        if not is_number(value):
            return NOTHING
        return f"{signed(100 * value, 1)} points" if self.is_rate else signed(value, 3)

    def difference_range(self, low: float | None, high: float | None) -> str:
        """Return "+0.4 to +2.0 points"."""
        return f"{self.difference(low).removesuffix(' points')} to {self.difference(high)}"

    def text_range(self, low: float | None, high: float | None) -> str:
        """Return "80.1 to 82.3 %"."""
        return f"{self.text(low).removesuffix(PERCENT)} to {self.text(high)}"

    def amount(self, value: float | None) -> str:
        """Return the size of a difference without its sign: "1.2 points"."""
        return self.difference(value).lstrip("+−") if is_number(value) and value >= 0 else self.difference(value)


def describe_metric(
    name: str, values: Iterable[float | None], *, is_higher_better: bool, task: str | None = None
) -> MetricDisplay:
    """Tell from direction and values whether a metric is a rate."""
    known = [value for value in values if is_number(value)]
    is_rate = is_higher_better and bool(known) and all(0 <= value <= 1 for value in known)
    return MetricDisplay(name, is_higher_better, is_rate, task)


def is_number(value: Any) -> TypeGuard[float]:
    """Tell whether a value is there and finite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def significant(value: float, digits: int = 4) -> str:
    """Return a number with that many significant digits, without an exponent in everyday ranges."""
    if value == 0 or 1e-4 <= abs(value) < 1e7:
        places = max(0, digits - 1 - (math.floor(math.log10(abs(value))) if value else 0))
        return minus_sign(f"{value:,.{min(places, 6)}f}")
    return minus_sign(f"{value:.{digits - 1}g}")


def signed(value: float, places: int) -> str:
    """Return a number with its sign, without one if it rounds to zero."""
    text = f"{value:+,.{places}f}"
    return minus_sign(text if float(text.replace(",", "")) else text[1:])


def minus_sign(text: str) -> str:
    """Return the text with minus signs (as wide as a plus) for hyphens."""
    return text.replace("-", "−")


def rows(n: float | None) -> str:
    """Return "1 row" or "6,500 rows"."""
    return units.format_count(round(n), "row") if is_number(n) else NOTHING


def count(n: float | None) -> str:
    """Return "6,500"."""
    return f"{n:,.0f}" if is_number(n) else NOTHING


def rounded(n: float | None) -> str:
    """Return a number with two significant digits: "6,500" for 6,487."""
    return count(round(n, 1 - math.floor(math.log10(abs(n)))) if is_number(n) and n else n)


def share(part: float, whole: float) -> str:
    """Return "30 %", or "0.4 %" for a small share."""
    if not whole:
        return NOTHING
    percent = 100 * part / whole
    places = 0 if percent >= 10 or percent in (0, round(percent)) else 1
    return f"{percent:.{places}f}{PERCENT}"


def seconds(value: float | None) -> str:
    """Return "0.4 s", "12 s", "3 min 20 s" or "2 h 05 min"."""
    if not is_number(value):
        return NOTHING
    if value < 10:
        return f"{value:.1f} s"
    whole = round(value)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(n_bytes: float | None) -> str:
    """Return "12.3 MB"."""
    return units.format_bytes(n_bytes) if is_number(n_bytes) else NOTHING


def readable_name(name: str) -> str:
    """Return a name in a file as words."""
    return {"macro_f1": "macro F1", "f1": "F1", "rouge_l": "ROUGE-L", "chrf": "chrF"}.get(name, name.replace("_", " "))


def join_words(parts: Iterable[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    *first, last = [*parts] or [""]
    return f"{', '.join(first)} and {last}" if first else last


def truncate(text: str, length: int) -> str:
    """Return the text, cut with an ellipsis where it is longer."""
    return text if len(text) <= length else text[: length - 1].rstrip() + "…"
