"""Charts as positioned shapes for the page's inline SVG; the template writes them out."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Axis, Band, Bars, Chart, Dots, Line, Note, Rows, Rule, Style, Whiskers

LETTER = 7.0  # mean width of a letter of a tick, in the widest of the usual fonts
ROW_LETTER = 7.8  # of the name of a row
NAME_LETTER = 8.6  # of the name of a line, in bold
MAX_NAME = 22  # letters of the name of a line
NAME_LINE = 15.0  # height of the name of a line
ROW = 30  # height of a named row
ROW_NAME = (27, 9)  # where the name of a row begins and ends above its line, in a narrow chart
DASHES: dict[Style, str] = {"solid": "", "dashed": "6 4", "thin": "", "dotted": "2 4"}


@dataclass(frozen=True)
class Path:
    """A path with the class names that style it."""

    d: str
    classes: str
    dash: str = ""


@dataclass(frozen=True)
class Label:
    """A text at a position."""

    x: float
    y: float
    text: str
    classes: str
    anchor: Literal["start", "middle", "end"] = "start"


@dataclass(frozen=True)
class Point:
    """A point with a text that is read out."""

    d: str
    classes: str
    x: float
    y: float
    tip: str


@dataclass
class Drawing:
    """Everything in one SVG, in drawing order."""

    width: float
    height: float
    is_list: bool = False  # the points lie in named rows
    paths: list[Path] = field(default_factory=list)
    labels: list[Label] = field(default_factory=list)
    points: list[Point] = field(default_factory=list)


@dataclass(frozen=True)
class _Frame:
    """The area inside the axes."""

    chart: Chart
    left: float
    right: float
    top: float
    bottom: float

    def x(self, value: float) -> float:
        return round(self.left + self.chart.x.share(value) * (self.right - self.left), 1)

    def y(self, value: float) -> float:
        axis = self.chart.y
        if isinstance(axis, Rows):
            return round(self.top + (value + 0.5) * (self.bottom - self.top) / len(axis.labels), 1)
        return round(self.bottom - axis.share(value) * (self.bottom - self.top), 1)


def draw_chart(chart: Chart, width: float, height: float | None = None) -> Drawing:
    """Lay out a chart.

    Args:
        chart: what to draw.
        width: of the drawing, in the units of its text (12 per line).
        height: of the drawing; by default it follows from the width, or the number of rows.
    """
    is_narrow = width < 500
    frame = _build_frame(chart, width, height, is_narrow)
    drawing = Drawing(width, frame.bottom + 44, is_list=isinstance(chart.y, Rows))
    _draw_axes(drawing, frame, is_narrow)
    ends: list[tuple[float, str, str]] = []  # height, name and color of each named line at its end
    for mark in chart.marks:
        if isinstance(mark, Band):
            edge = _join_points(frame, [*mark.x, *reversed(mark.x)], [*mark.high, *reversed(mark.low)])
            drawing.paths.append(Path(f"{edge}Z", f"band {mark.tone}"))
        elif isinstance(mark, Line):
            line = _join_points(frame, mark.x, mark.y)
            drawing.paths.append(Path(line, f"line {mark.style} {mark.tone}", DASHES[mark.style]))
            if mark.label is not None and not is_narrow:
                ends.append((frame.y(mark.y[-1]), mark.label, mark.tone))
        elif isinstance(mark, Dots):
            _draw_dots(drawing, frame, mark)
        elif isinstance(mark, Note):
            if not is_narrow:
                side: Literal["start", "end"] = "end" if mark.is_left else "start"
                x = frame.x(mark.x) + (-9 if mark.is_left else 9)
                drawing.labels.append(Label(x, frame.y(mark.y) + 4, mark.text, f"note {mark.tone}", side))
        elif isinstance(mark, Whiskers):
            _draw_whiskers(drawing, frame, mark)
        elif isinstance(mark, Rule):
            _draw_rule(drawing, frame, mark, is_narrow)
        else:
            _draw_bars(drawing, frame, mark)
    drawing.labels += _place_names(ends, frame)
    return drawing


def _build_frame(chart: Chart, width: float, height: float | None, is_narrow: bool) -> _Frame:
    if isinstance(chart.y, Rows):
        longest = max(len(label) for label in chart.y.labels)
        left = 8.0 if is_narrow else min(14 + ROW_LETTER * longest, width * 0.42)
        per_row = ROW * 1.7 if is_narrow else ROW
        return _Frame(chart, left, width - 14, 10, 10 + per_row * len(chart.y.labels) + 4)
    left = 16 + LETTER * max([len(tick.text) for tick in chart.y.ticks] or [2])
    named = [len(mark.label) for mark in chart.marks if isinstance(mark, Line) and mark.label is not None]
    right = width - (12 if is_narrow or not named else 14 + NAME_LETTER * min(max(named), MAX_NAME))
    return _Frame(chart, left, right, 26, (height or width * (0.85 if is_narrow else 0.52)) - 44)


def _draw_axes(drawing: Drawing, frame: _Frame, is_narrow: bool) -> None:
    chart = frame.chart
    last = -100.0
    for tick in chart.x.ticks:
        x = frame.x(tick.at)
        drawing.paths.append(Path(f"M{x:g} {frame.top:g}V{frame.bottom:g}", "grid"))
        room = LETTER * len(tick.text) / 2 + 5
        if x - room > last:
            half = LETTER * len(tick.text) / 2
            # the first and the last stay in the drawing
            middle = min(max(x, half), max(drawing.width - half, half))
            drawing.labels.append(Label(middle, frame.bottom + 17, tick.text, "tick", "middle"))
            last = x + room
    drawing.labels.append(Label((frame.left + frame.right) / 2, frame.bottom + 37, chart.x.label, "axis", "middle"))
    if isinstance(chart.y, Rows):
        for i, label in enumerate(chart.y.labels):
            y = frame.y(i)
            if is_narrow:
                drawing.labels.append(Label(frame.left, y - 14, fmt.truncate(label, 44), "row"))
            else:
                shown = fmt.truncate(label, int((frame.left - 14) / ROW_LETTER) + 1)
                drawing.labels.append(Label(frame.left - 10, y + 4, shown, "row", "end"))
            drawing.paths.append(Path(f"M{frame.left:g} {y:g}H{frame.right:g}", "grid"))
        return
    for tick in chart.y.ticks:
        y = frame.y(tick.at)
        drawing.paths.append(Path(f"M{frame.left:g} {y:g}H{frame.right:g}", "grid"))
        drawing.labels.append(Label(frame.left - 7, y + 4, tick.text, "tick", "end"))
    drawing.paths.append(Path(f"M{frame.left:g} {frame.bottom:g}H{frame.right:g}", "edge"))
    drawing.labels.append(Label(4, 13, chart.y.label, "axis"))


def _join_points(frame: _Frame, xs: Sequence[float], ys: Sequence[float]) -> str:
    return "M" + "L".join(f"{frame.x(x):g} {frame.y(y):g}" for x, y in zip(xs, ys, strict=True))


def _draw_dots(drawing: Drawing, frame: _Frame, mark: Dots) -> None:
    classes = f"{'faint' if mark.is_faint else 'dot'} {mark.tone}{' open' if mark.shape == 'ring' else ''}"
    for at_x, at_y, tip in zip(mark.x, mark.y, mark.tips or ("",) * len(mark.x), strict=True):
        x, y = frame.x(at_x), frame.y(at_y)
        shape = build_marker(mark.shape, x, y, mark.size)
        if tip:
            drawing.points.append(Point(shape, classes, x, y, tip))
        else:
            drawing.paths.append(Path(shape, classes))


def build_marker(shape: str, x: float, y: float, r: float) -> str:
    """Return the path of a point."""
    if shape == "square":
        s = r * 0.9
        return f"M{x - s:.1f} {y - s:.1f}h{2 * s:.1f}v{2 * s:.1f}h{-2 * s:.1f}z"
    if shape == "triangle":
        return f"M{x:.1f} {y - 1.2 * r:.1f}L{x + 1.1 * r:.1f} {y + 0.8 * r:.1f}H{x - 1.1 * r:.1f}z"
    if shape == "diamond":
        s = r * 1.25
        return f"M{x:.1f} {y - s:.1f}l{s:.1f} {s:.1f}l{-s:.1f} {s:.1f}l{-s:.1f} {-s:.1f}z"
    if shape == "cross":
        a, b = r * 0.4, r * 1.05
        return (
            f"M{x - a:.1f} {y - b:.1f}h{2 * a:.1f}v{b - a:.1f}h{b - a:.1f}v{2 * a:.1f}h{a - b:.1f}v{b - a:.1f}"
            f"h{-2 * a:.1f}v{a - b:.1f}h{a - b:.1f}v{-2 * a:.1f}h{b - a:.1f}z"
        )
    return f"M{x - r:.1f} {y:.1f}a{r:g} {r:g} 0 1 0 {2 * r:g} 0a{r:g} {r:g} 0 1 0 {-2 * r:g} 0z"


def _draw_whiskers(drawing: Drawing, frame: _Frame, mark: Whiskers) -> None:
    d = []
    for at, low, high in zip(mark.at, mark.low, mark.high, strict=True):
        if mark.is_lying:
            y, left, right = frame.y(at), frame.x(low), frame.x(high)
            d.append(f"M{left:g} {y:g}H{right:g}M{left:g} {y - 4:g}v8M{right:g} {y - 4:g}v8")
        else:
            x, bottom, top = frame.x(at), frame.y(low), frame.y(high)
            d.append(f"M{x:g} {bottom:g}V{top:g}M{x - 3:g} {bottom:g}h6M{x - 3:g} {top:g}h6")
    drawing.paths.append(Path("".join(d), f"whisker {mark.tone}{' strong' if mark.width > 2 else ''}"))


def _draw_rule(drawing: Drawing, frame: _Frame, mark: Rule, is_narrow: bool) -> None:
    if mark.is_upright:
        x, bottom = frame.x(mark.at), frame.bottom if mark.down_to is None else frame.y(mark.down_to)
        d, label_at = f"M{x:g} {frame.top:g}V{bottom:g}", (x + 5, frame.top + 12)
        if is_narrow and isinstance(frame.chart.y, Rows):
            # the names lie in the chart: the line leaves them out
            centers = [frame.y(i) for i in range(len(frame.chart.y.labels))]
            ends = [*(y - ROW_NAME[0] for y in centers[1:]), frame.bottom]
            d = "".join(f"M{x:g} {y - ROW_NAME[1]:g}V{end:g}" for y, end in zip(centers, ends, strict=True))
    else:
        y = frame.y(mark.at)
        d, label_at = f"M{frame.left:g} {y:g}H{frame.right:g}", (frame.right - 6, y - 6)
    drawing.paths.append(Path(d, f"rule {mark.tone}", DASHES[mark.style]))
    if mark.label and not is_narrow:
        drawing.labels.append(Label(*label_at, mark.label, f"note {mark.tone}", "start" if mark.is_upright else "end"))


def _draw_bars(drawing: Drawing, frame: _Frame, mark: Bars) -> None:
    assert isinstance(frame.chart.y, Axis)
    floor = frame.y(max(0.0, frame.chart.y.low))
    if mark.is_outline:
        d = f"M{frame.x(mark.edges[0]):g} {floor:g}"
        for i, height in enumerate(mark.heights):
            d += f"V{frame.y(height):g}H{frame.x(mark.edges[i + 1]):g}"
        drawing.paths.append(Path(f"{d}V{floor:g}", f"step {mark.tone}"))
        return
    d = ""
    for i, height in enumerate(mark.heights):
        if height > 0:
            left, right = frame.x(mark.edges[i]) + 0.5, frame.x(mark.edges[i + 1]) - 0.5
            d += f"M{left:g} {floor:g}V{frame.y(height):g}H{right:g}V{floor:g}z"
    drawing.paths.append(Path(d, f"bar {mark.tone}"))


def _place_names(ends: Iterable[tuple[float, str, str]], frame: _Frame) -> list[Label]:
    """Return the names at the ends of lines, pushed apart so that none covers another."""
    ordered = sorted(ends, key=lambda end: end[0])
    lowest, ys = frame.top, []
    for y, _, _ in ordered:  # from the top: each at least one line below the one before
        ys.append(max(y, lowest))
        lowest = ys[-1] + NAME_LINE
    highest = frame.bottom
    for i in reversed(range(len(ys))):  # from the bottom, likewise, with none outside
        ys[i] = min(ys[i], highest)
        highest = ys[i] - NAME_LINE
    return [
        Label(frame.right + 8, y + 4, fmt.truncate(text, MAX_NAME), f"name {tone}")
        for y, (_, text, tone) in zip(ys, ordered, strict=True)
    ]
