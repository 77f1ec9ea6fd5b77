"""Charts as PNG and SVG files, by matplotlib. Only imported when figures are written."""

from __future__ import annotations

import io
import warnings
from typing import Any

import numpy as np
from matplotlib import rc_context
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Canvas
from matplotlib.ticker import NullLocator

from thresher.printable import replace_controls
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Band, Bars, Chart, Dots, Line, Note, Rows, Rule, Whiskers
from thresher.reporting.charts.palette import LIGHT
from thresher.reporting.page import Figure, PoolMap

DPI = 144
MARKERS = {"circle": "o", "square": "s", "triangle": "^", "diamond": "D", "cross": "P", "ring": "o", "faint": "."}
STYLES = {"solid": "-", "dashed": (0, (5, 3)), "thin": "-", "dotted": ":"}
WIDTHS = {"solid": 1.8, "dashed": 1.3, "thin": 0.9, "dotted": 1.3}
SETTINGS = {
    "font.size": 9,
    "axes.edgecolor": LIGHT["edge"],
    "axes.labelcolor": LIGHT["muted"],
    "xtick.color": LIGHT["muted"],
    "ytick.color": LIGHT["muted"],
    "text.color": LIGHT["ink"],
    "text.parse_math": False,  # a "$" in a name is a "$"
    "svg.hashsalt": "thresher",  # the same figure has the same bytes
    "svg.fonttype": "path",
}


def render_figure(figure: Figure | PoolMap) -> dict[str, bytes]:
    """Return the PNG and the SVG of a figure by file name; the same bytes for the same figure."""
    with rc_context(SETTINGS), warnings.catch_warnings():
        # a letter that the font lacks is drawn as a box; the page has the text
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        canvas = _draw_map(figure) if isinstance(figure, PoolMap) else _draw_charts(figure)
        return {f"{figure.name}.{kind}": _encode(canvas, kind) for kind in ("png", "svg")}


def _encode(canvas: Canvas, kind: str) -> bytes:
    out = io.BytesIO()
    metadata = {"Software": None} if kind == "png" else {"Date": None, "Creator": None}
    canvas.savefig(out, format=kind, dpi=DPI, metadata=metadata)
    return out.getvalue()


def _new_canvas(title: str, width: float, height: float) -> Canvas:
    canvas = Canvas(figsize=(width, height), layout="constrained", facecolor=LIGHT["page"])
    FigureCanvasAgg(canvas)  # no window and no global state of pyplot
    canvas.suptitle(_remove_controls(title), fontsize=11, fontweight="bold", x=0.01, ha="left")
    return canvas


def _draw_charts(figure: Figure) -> Canvas:
    n = len(figure.charts)
    columns = 1 if n == 1 else min(3, n)
    n_rows = -(-n // columns)
    first = figure.charts[0]
    height = 1.7 + 0.3 * len(first.y.labels) if isinstance(first.y, Rows) else 4.6
    canvas = _new_canvas(figure.title, 7.6 if n == 1 else 9.0, height if n == 1 else 2.5 * n_rows + 0.6)
    for i, chart in enumerate(figure.charts):
        _draw_chart(canvas.add_subplot(n_rows, columns, i + 1), chart)
    if first.legend:
        _draw_legend(canvas, first)
    return canvas


def _draw_chart(axes: Any, chart: Chart) -> None:
    axes.set_axisbelow(True)
    axes.grid(color=LIGHT["grid"], linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    for mark in chart.marks:
        _draw_mark(axes, mark)
    x, y = chart.x, chart.y
    if x.is_log:
        axes.set_xscale("log")
    axes.set_xlim(x.low, x.high)
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xticks([tick.at for tick in x.ticks], [tick.text for tick in x.ticks])
    axes.set_xlabel(_remove_controls(x.label))
    if isinstance(y, Rows):
        axes.set_ylim(len(y.labels) - 0.5, -0.5)
        axes.set_yticks(range(len(y.labels)), [_remove_controls(fmt.truncate(label, 48)) for label in y.labels])
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
    else:
        axes.set_ylim(y.low, y.high)
        axes.set_yticks([tick.at for tick in y.ticks], [tick.text for tick in y.ticks])
        axes.set_ylabel(_remove_controls(y.label))
    if chart.title is not None:
        axes.set_title(_remove_controls(fmt.truncate(chart.title, 40)), fontsize=9, loc="left")


def _draw_mark(axes: Any, mark: Any) -> None:
    color = LIGHT[mark.tone]
    if isinstance(mark, Band):
        axes.fill_between(mark.x, mark.low, mark.high, color=color, alpha=0.15, linewidth=0)
    elif isinstance(mark, Line):
        axes.plot(mark.x, mark.y, color=color, linestyle=STYLES[mark.style], linewidth=WIDTHS[mark.style])
    elif isinstance(mark, Dots):
        face = LIGHT["page"] if mark.shape == "ring" else color
        axes.scatter(
            mark.x, mark.y, marker=MARKERS[mark.shape], s=(1.5 * mark.size) ** 2, color=face, edgecolor=color,
            alpha=0.4 if mark.is_faint else 1.0, linewidth=1.2 if mark.shape == "ring" else 0.0, zorder=3,
        )  # fmt: skip
    elif isinstance(mark, Note):
        axes.annotate(
            _remove_controls(mark.text), (mark.x, mark.y), (-7 if mark.is_left else 7, 0), textcoords="offset points",
            color=color, fontsize=7.5, va="center", ha="right" if mark.is_left else "left",
        )  # fmt: skip
    elif isinstance(mark, Whiskers):
        draw = axes.hlines if mark.is_lying else axes.vlines
        draw(mark.at, mark.low, mark.high, color=color, linewidth=mark.width)
    elif isinstance(mark, Rule) and mark.down_to is not None:
        axes.vlines(mark.at, mark.down_to, axes.get_ylim()[1], color=color, linewidth=1.0, linestyle=STYLES[mark.style])
    elif isinstance(mark, Rule):
        draw = axes.axvline if mark.is_upright else axes.axhline
        draw(mark.at, color=color, linewidth=1.0, linestyle=STYLES[mark.style])
    elif isinstance(mark, Bars):
        axes.stairs(mark.heights, mark.edges, color=color, fill=True, alpha=0.22 if mark.is_outline else 0.5)
        if mark.is_outline:
            axes.stairs(mark.heights, mark.edges, color=color, linewidth=1.6)


def _draw_legend(canvas: Canvas, chart: Chart) -> None:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = []
    for entry in chart.legend:
        color, name = LIGHT[entry.tone], _remove_controls(entry.text)
        if entry.shape in ("box", "bar", "step"):
            handles.append(Patch(color=color, alpha=0.5 if entry.shape == "bar" else 0.3, label=name))
        elif entry.shape in ("line", "dashed"):
            style: Any = STYLES["solid" if entry.shape == "line" else "dashed"]
            handles.append(Line2D([], [], color=color, linestyle=style, label=name))
        else:
            face = LIGHT["page"] if entry.shape == "ring" else color
            marker = MARKERS[entry.shape]
            handles.append(Line2D([], [], color=color, markerfacecolor=face, marker=marker, linestyle="", label=name))
    canvas.legend(handles=handles, frameon=False, fontsize=8, loc="outside lower center", ncols=min(4, len(handles)))


def _draw_map(figure: PoolMap) -> Canvas:
    n = len(figure.panels)
    columns = 1 if n == 1 else 2
    n_rows = -(-n // columns)
    canvas = _new_canvas(figure.title, 7.6 if n == 1 else 9.0, 5.0 if n == 1 else 3.2 * n_rows)
    x, y = np.asarray(figure.x), np.asarray(figure.y)
    for i, panel in enumerate(figure.panels):
        axes = canvas.add_subplot(n_rows, columns, i + 1)
        for rows, tone, size, name in ((panel.dropped, "gray", 7, "dropped"), (panel.kept, "blue", 13, "kept")):
            at = np.asarray(rows, dtype=np.int64)
            axes.scatter(x[at], -y[at], s=size, color=LIGHT[tone], alpha=0.9 if name == "kept" else 0.4, label=name,
                         linewidth=0)  # fmt: skip
        axes.set(xticks=[], yticks=[], aspect="equal")
        axes.set_title(_remove_controls(fmt.truncate(panel.title, 60)), fontsize=9, loc="left")
        if i == 0:
            axes.legend(frameon=False, fontsize=8, loc="upper right")
    return canvas


def _remove_controls(text: str) -> str:
    """Return the text with a box for each control character, which a figure cannot show."""
    return replace_controls(text).replace("\n", "\ufffd").replace("\t", "\ufffd")
