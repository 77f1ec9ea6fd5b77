"""Charts as data: marks in the units of the data.

`svg.py` draws them for the page, `figure_files.py` as PNG and SVG files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from thresher.reporting import formatting as fmt

Floats: TypeAlias = Sequence[float]
Style = Literal["solid", "dashed", "thin", "dotted"]


@dataclass(frozen=True)
class Tick:
    """A place on an axis with its text."""

    at: float
    text: str


@dataclass(frozen=True, kw_only=True)
class Axis:
    """A numeric axis.

    Attributes:
        label: what it shows, with the unit.
        low: where it starts.
        high: where it ends.
        ticks: places with grid lines.
        is_log: spaced by ratio.
    """

    label: str
    low: float
    high: float
    ticks: tuple[Tick, ...]
    is_log: bool = False

    def share(self, value: float) -> float:
        """Return where a value lies, 0 at the low end and 1 at the high end."""
        if self.is_log:
            return (math.log(value) - math.log(self.low)) / (math.log(self.high) - math.log(self.low))
        return (value - self.low) / (self.high - self.low)


@dataclass(frozen=True)
class Rows:
    """A vertical axis of names, the first at the top; row i lies at y = i."""

    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Band:
    """The area between two lines."""

    tone: str
    x: Floats
    low: Floats
    high: Floats


@dataclass(frozen=True, kw_only=True)
class Points:
    """Points in order, in one color."""

    tone: str
    x: Floats
    y: Floats


@dataclass(frozen=True, kw_only=True)
class Line(Points):
    """A line; with a label it is named at its right end."""

    style: Style = "solid"
    label: str | None = None


@dataclass(frozen=True, kw_only=True)
class Dots(Points):
    """Dots; `tips` are read out at each."""

    shape: str = "circle"
    size: float = 4.5
    is_faint: bool = False
    tips: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Note:
    """A short text next to a point, left out where there is no room: the page has it elsewhere."""

    tone: str
    x: float
    y: float
    text: str
    is_left: bool = False


@dataclass(frozen=True, kw_only=True)
class Whiskers:
    """Intervals: from low to high at each place, vertical or (in a chart with rows) horizontal."""

    tone: str
    at: Floats
    low: Floats
    high: Floats
    is_lying: bool = False
    width: float = 1.6


@dataclass(frozen=True, kw_only=True)
class Rule:
    """A straight line through the whole chart; an upright one can end above the axis."""

    at: float
    is_upright: bool = True
    down_to: float | None = None
    tone: str = "ink"
    label: str | None = None
    style: Style = "thin"


@dataclass(frozen=True, kw_only=True)
class Bars:
    """Bars from zero: (k,) heights between (k + 1,) edges."""

    tone: str
    edges: Floats
    heights: Floats
    is_outline: bool = False


Mark: TypeAlias = Band | Line | Dots | Note | Whiskers | Rule | Bars


@dataclass(frozen=True)
class LegendEntry:
    """A name with what stands for it.

    Attributes:
        text: the name.
        tone: its color.
        shape: "line", "dashed", "box" (a band), "bar", "step" (outlined bars), or that of points.
        is_direct: the chart itself also shows the name, where there is room.
    """

    text: str
    tone: str
    shape: str
    is_direct: bool = False


@dataclass(frozen=True, kw_only=True)
class Chart:
    """One chart.

    Attributes:
        x: horizontal axis.
        y: vertical axis, or the names of the rows.
        marks: drawn in this order.
        legend: what the tones mean.
        title: of a panel among several, or None.
    """

    x: Axis
    y: Axis | Rows
    marks: Sequence[Mark]
    legend: Sequence[LegendEntry] = ()
    title: str | None = None


def points_with_errors(
    *,
    tone: str,
    x: Floats,
    y: Floats,
    errors: Floats,
    shape: str,
    tips: Sequence[str],
    is_lying: bool = False,
    limits: tuple[float, float] = (-math.inf, math.inf),
    size: float = 4.5,
    width: float = 1.6,
) -> list[Mark]:
    """Return points with whiskers of one error along y, or along x (lying), cut at the limits."""
    low, high = (
        [
            min(max(value + sign * error, limits[0]), limits[1])
            for value, error in zip(x if is_lying else y, errors, strict=True)
        ]
        for sign in (-1, 1)
    )
    whiskers = Whiskers(tone=tone, at=y if is_lying else x, low=low, high=high, is_lying=is_lying, width=width)
    return [whiskers, Dots(tone=tone, x=x, y=y, shape=shape, size=size, tips=tuple(tips))]


def linear_axis(
    label: str, low: float, high: float, *, n_ticks: int = 5, is_from_zero: bool = False, pad: float = 0.05
) -> Axis:
    """Return an axis over the values with ticks at round numbers."""
    if is_from_zero:
        low = min(0.0, low)
    largest = max(abs(low), abs(high))
    if not high - low > max(largest * 1e-9, 1e-300):  # equal up to rounding
        reach = largest * 0.1 if largest > 1e-300 else 1.0
        low, high = (low - (0 if is_from_zero else reach)), high + reach
    room = (high - low) * pad
    low, high = (low if is_from_zero else low - room), high + room
    step = _round_step((high - low) / n_ticks)
    first = math.ceil(low / step - 1e-9)
    ticks = [Tick(i * step, _tick_text(i * step, step)) for i in range(first, math.floor(high / step + 1e-9) + 1)]
    return Axis(label=label, low=low, high=high, ticks=tuple(ticks))


def log_axis(label: str, low: float, high: float, *, at: Sequence[float] = ()) -> Axis:
    """Return an axis spaced by ratio, with ticks at 1, 2 and 5 times powers of ten, or at `at`."""
    if high < 1.5 * low:
        low, high = low / 1.5, high * 1.5
    margin = (high / low) ** 0.04
    low, high = low / margin, high * margin
    places = [m * 10.0**e for e in range(-3, 13) for m in (1, 2, 5)]
    if high / low > 300:
        places = [10.0**e for e in range(-3, 13)]
    shown: list[float] = []
    for value in sorted(at or places):  # as many as there is room for
        if low <= value <= high and (not shown or math.log(value / shown[-1]) > 0.075 * math.log(high / low)):
            shown.append(value)
    return Axis(label=label, low=low, high=high, ticks=tuple(Tick(v, f"{v:,.12g}") for v in shown), is_log=True)


def _round_step(rough: float) -> float:
    power = 10.0 ** math.floor(math.log10(rough))
    return next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough * (1 - 1e-9))


def _tick_text(value: float, step: float) -> str:
    if abs(value) >= 1e7 or 0 < step < 1e-4:
        return fmt.significant(value, 3)
    places = max(0, -math.floor(math.log10(step) + 1e-9))
    if step * 10**places % 1 > 1e-6:  # steps like 2.5 need one more
        places += 1
    return fmt.minus_sign(f"{value if abs(value) > step / 2 else 0:,.{places}f}")
