"""The figure of a learning curve: runs, means, fitted laws and their interval, enough rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import (
    Band,
    Chart,
    Dots,
    LegendEntry,
    Line,
    Mark,
    Note,
    Rule,
    Whiskers,
    linear_axis,
    log_axis,
    points_with_errors,
)
from thresher.reporting.page import Figure, Table
from thresher.reporting.pages.experiment_tables import Experiment

AHEAD, MOST_AHEAD = 2.0, 4.0  # the axis reaches so many times beyond the largest measured size
ASIDE = 1.035  # single runs are drawn to the right of their mean, whose error bar would hide them
LANE = 0.065  # height of a method's lane below the curves, as a share of the curves' height
MAX_STRAY = 0.35  # an interval of the laws may widen the axis by this share of the measured range


def build_curve_figure(experiment: Experiment, fitted: Mapping[str, Any]) -> Figure:
    """Return the figure of all methods.

    Args:
        experiment: with its runs.
        fitted: content of `saturation.json`.
    """
    entries = {method: fitted["methods"].get(method, {}) for method in experiment.methods}
    points = {method: entry.get("points") or [] for method, entry in entries.items()}
    sizes = sorted({int(point["n_rows"]) for own in points.values() for point in own})
    right = _find_right_end(sizes[-1], fitted.get("pool"))
    low, high = _find_range(experiment, points, entries, right)
    # below the curves, one lane for the interval of enough rows of each method that has one
    lanes = [method for method, entry in entries.items() if entry.get("enough")]
    floor, lane = low, LANE * (high - low)
    low -= lane * (len(lanes) + 0.5) if lanes else 0.0
    axis = linear_axis(experiment.metric.label, low, high, pad=0.02)
    edge = floor - 0.1 * lane if lanes else None
    marks: list[Mark] = [] if edge is None else [Rule(at=edge, is_upright=False, tone="edge")]
    for method in reversed(experiment.methods):
        marks += _build_law(experiment, method, entries[method], sizes[-1], right, (low, high))
    for method in reversed(experiment.methods):
        marks += _build_points(experiment, method, points[method])
    for i, method in enumerate(lanes):
        level = low + lane * (len(lanes) - i - 0.3)
        marks += _build_enough(experiment, method, entries[method]["enough"], level, (sizes[0], right))
    n_pool, unit = fitted.get("pool"), fitted.get("unit", "rows")
    marks += [*_mark_pool(n_pool, right, unit, edge), *_build_references(experiment, fitted, (floor, high))]
    metric, doublings = experiment.metric, (sizes[-1] * 2.0, sizes[-1] * 4.0)
    chart = Chart(
        x=log_axis(
            "training rows" if unit == "rows" else unit,
            sizes[0],
            right,
            at=[*sizes, *(n for n in doublings if n <= right * 1.01)],
        ),
        y=replace(axis, ticks=tuple(tick for tick in axis.ticks if tick.at >= floor)),
        marks=marks,
        legend=_build_legend(experiment, bool(lanes)),
    )
    better = "higher" if metric.is_higher_better else "lower"
    return Figure(
        name="curve",
        title=f"{metric.label[0].upper()}{metric.label[1:]} by number of {'training rows' if unit == 'rows' else unit}",
        caption=(
            f"Points are means over seeds with one standard error, faint points single runs; {better} is better. The "
            f"band is the 80{fmt.PERCENT} interval of the fitted laws, dashed beyond the measured sizes."
            + (f" Below the curves: how many {unit} are enough, with the 80{fmt.PERCENT} interval." if lanes else "")
        ),
        alt=_write_alt(experiment, points),
        charts=(chart,),
        table=_build_table(experiment, points),
    )


def _build_references(experiment: Experiment, fitted: Mapping[str, Any], limits: tuple[float, float]) -> list[Mark]:
    """Return a line at the score of each reference without training that lies within the chart."""
    base = fitted.get("base") or {"references": []}
    levels = [
        (str(each["name"]), experiment.metric.scaled(each["value"]))
        for each in base["references"]
        if fmt.is_number(each["value"])
    ]
    return [
        Rule(at=level, is_upright=False, tone="ink", label=name)
        for name, level in levels
        if limits[0] <= level <= limits[1]
    ]


def _mark_pool(n_pool: int | None, right: float, unit: str, edge: float | None) -> list[Mark]:
    """Return a line at the size of the pool, down to the edge of the curves."""
    if not n_pool or n_pool > right:
        return []
    return [Rule(at=float(n_pool), down_to=edge, tone="gray", label=f"all {unit}", style="dashed")]


def _find_right_end(largest: int, n_pool: int | None) -> float:
    """Return the end of the axis: beyond the largest size, and to the pool's where that is near."""
    return float(min(max(AHEAD * largest, 1.05 * (n_pool or 0)), MOST_AHEAD * largest))


def _find_range(
    experiment: Experiment,
    points: Mapping[str, list[dict[str, Any]]],
    entries: Mapping[str, Mapping[str, Any]],
    right: float,
) -> tuple[float, float]:
    """Return the range of the vertical axis: every run, and the laws unless they dwarf the runs."""
    scaled = experiment.metric.scaled
    measured = [scaled(value) for value in experiment.done["value"].to_list()]
    measured += [
        scaled(point["value"] + sign * (point["stderr"] or 0.0))
        for own in points.values()
        for point in own
        for sign in (-1, 1)
        if fmt.is_number(point["value"])
    ]
    low, high = min(measured, default=0.0), max(measured, default=1.0)
    stray = MAX_STRAY * ((high - low) or 1.0)
    for entry in entries.values():
        for place in entry.get("band") or []:
            if place["n_rows"] <= right:
                ends = [scaled(place[name]) for name in ("low", "high") if fmt.is_number(place[name])]
                low = min([low, *(max(end, min(measured) - stray) for end in ends)])
                high = max([high, *(min(end, max(measured) + stray) for end in ends)])
    return low, high


def _build_law(
    experiment: Experiment,
    method: str,
    entry: Mapping[str, Any],
    largest: int,
    right: float,
    limits: tuple[float, float],
) -> list[Mark]:
    """Return the band of a method's laws, and their median beyond the measured sizes."""
    answer = entry.get("enough") or {}
    if answer.get("unlike_laws") or answer.get("worse"):
        right = largest  # what comes next is not known
    places = [
        place
        for place in entry.get("band") or []
        if place["n_rows"] <= right and all(fmt.is_number(place[name]) for name in ("median", "low", "high"))
    ]
    if len(places) < 2:
        return []

    def clip(name: str, places: list[Mapping[str, Any]]) -> list[float]:
        return [min(max(experiment.metric.scaled(place[name]), limits[0]), limits[1]) for place in places]

    tone, x = experiment.tones[method], [float(place["n_rows"]) for place in places]
    marks: list[Mark] = [Band(tone=tone, x=x, low=clip("low", places), high=clip("high", places))]
    ahead = [place for place in places if place["n_rows"] >= largest]
    if len(ahead) > 1:
        marks.append(Line(tone=tone, x=[float(p["n_rows"]) for p in ahead], y=clip("median", ahead), style="dashed"))
    return marks


def _build_points(experiment: Experiment, method: str, points: list[dict[str, Any]]) -> list[Mark]:
    """Return every run, and the means joined by a line: where a curve dips, the line dips."""
    metric, tone = experiment.metric, experiment.tones[method]
    values = experiment.values(method)
    runs = [(ASIDE * size, metric.scaled(value)) for size, own in values.items() if len(own) > 1 for value in own]
    marks: list[Mark] = []
    if runs:
        marks.append(Dots(tone=tone, x=[n for n, _ in runs], y=[v for _, v in runs], size=2.6, is_faint=True))
    means = [point for point in points if fmt.is_number(point["value"])]
    if not means:
        return marks
    x = [float(point["n_rows"]) for point in means]
    y = [metric.scaled(point["value"]) for point in means]
    errors = [metric.scaled(point["stderr"]) if fmt.is_number(point["stderr"]) else 0.0 for point in means]
    tips = tuple(
        f"{method}, {experiment.amount(point['n_rows'])}: {metric.text(point['value'], point['stderr'])}, "
        f"{point['n_seeds']} run{'s' if point['n_seeds'] != 1 else ''}"
        for point in means
    )
    line = Line(tone=tone, x=x, y=y, label=method)
    shape = experiment.shapes[method]
    return [*marks, line, *points_with_errors(tone=tone, x=x, y=y, errors=errors, shape=shape, tips=tips)]


def _build_enough(
    experiment: Experiment, method: str, enough: Mapping[str, Any], level: float, ends: tuple[float, float]
) -> list[Mark]:
    """Return the interval of the number of rows that is enough, in its lane below the curves."""
    tone, rows = experiment.tones[method], experiment.amount(enough["rows"])
    low, high = float(enough["low"]), float(enough["high"])
    marks: list[Mark] = [Whiskers(tone=tone, at=[level], low=[low], high=[high], is_lying=True, width=2.6)]
    text = {"enough": rows, "all": f"more than {experiment.amount(enough['of'] // 2)}"}
    is_left = low / ends[0] > ends[1] / high  # where there is more room
    note = f"{method}: {text.get(enough['verdict'], 'cannot tell')}"
    marks.append(Note(tone=tone, x=low if is_left else high, y=level, text=note, is_left=is_left))
    if enough["verdict"] != "enough":
        return marks
    interval = f"{fmt.count(enough['low'])} to {fmt.count(enough['high'])}"
    tip = f"{method}: {rows} are enough, 80{fmt.PERCENT} interval {interval}"
    if enough.get("worse"):  # the points alone say so, and no law has an interval
        tip = f"{method}: {rows} do best of the measured sizes; more make it worse"
    return [*marks, Dots(tone=tone, x=[float(enough["rows"])], y=[level], shape="diamond", size=5.5, tips=(tip,))]


def _build_legend(experiment: Experiment, has_answer: bool) -> list[LegendEntry]:
    entries = [
        LegendEntry(method, experiment.tones[method], experiment.shapes[method], is_direct=True)
        for method in experiment.methods
    ]
    entries.append(LegendEntry("one run", "ink", "faint"))
    entries.append(LegendEntry(f"80{fmt.PERCENT} interval of the laws", "ink", "box"))
    if has_answer:
        entries.append(LegendEntry("enough", "ink", "diamond"))
    return entries


def _write_alt(experiment: Experiment, points: Mapping[str, list[dict[str, Any]]]) -> str:
    sentences = []
    for method, own in points.items():
        means = [point for point in own if fmt.is_number(point["value"])]
        if means:
            first, last = means[0], means[-1]
            sentences.append(
                f"{method}: {experiment.metric.text(first['value'])} at {experiment.amount(first['n_rows'])}, "
                f"{experiment.metric.text(last['value'])} at {experiment.amount(last['n_rows'])}."
            )
    return "Learning curves. " + " ".join(sentences)


def _build_table(experiment: Experiment, points: Mapping[str, list[dict[str, Any]]]) -> Table:
    metric = experiment.metric
    cells = []
    for method, own in points.items():
        values = experiment.values(method)
        for point in own:
            runs = ", ".join(
                metric.text(value).removesuffix(fmt.PERCENT) for value in values.get(int(point["n_rows"]), [])
            )
            mean = metric.text(point["value"], point["stderr"])
            cells.append((method, fmt.count(point["n_rows"]), mean, fmt.count(point["n_seeds"]), runs))
    return Table(
        caption="Means and single runs",
        columns=("method", experiment.unit, metric.label, "runs", "single runs"),
        rows=cells,
        numeric=(1, 2, 3),
    )
