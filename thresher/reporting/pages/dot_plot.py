"""Rates with their errors, one line per name, of an adapter and of the one beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thresher.reporting.charts.chart import Chart, Dots, LegendEntry, Mark, Rows, Whiskers, linear_axis
from thresher.reporting.page import Figure, Table
from thresher.reporting.wording import is_number

SIDES = {"these rows": ("blue", "diamond"), "random rows": ("grey", "circle")}


def dot_plot(
    name: str,
    title: str,
    labels: Sequence[str],
    sides: Mapping[str, Sequence[Mapping[str, Any]]],
    table: Table,
    *,
    unit: str,
) -> Figure:
    """Return a chart of rates with one line per label, and a point with its error for each side.

    Args:
        name: of the figure's files.
        title: of the figure.
        labels: (k,) what is measured.
        sides: side -> (k,) estimates as in `metrics.json`; one without a value has no point.
        table: the same numbers.
        unit: label of the axis.
    """
    marks: list[Mark] = []
    for number, (side, found) in enumerate(sides.items()):
        tone, shape = SIDES[side]
        lift = 0.0 if len(sides) == 1 else (0.12, -0.12)[number]
        points = [(i - lift, entry) for i, entry in enumerate(found) if is_number(entry["value"])]
        errors = [entry["stderr"] if is_number(entry["stderr"]) else 0.0 for _, entry in points]
        values = [100 * entry["value"] for _, entry in points]
        at = [place for place, _ in points]
        marks.append(
            Whiskers(
                tone=tone,
                at=at,
                low=[v - 100 * e for v, e in zip(values, errors, strict=True)],
                high=[v + 100 * e for v, e in zip(values, errors, strict=True)],
                is_lying=True,
            )
        )
        tips = [
            f"{labels[round(p + lift)]}, {side}: {v:.1f} ± {100 * e:.1f} %"
            for p, v, e in zip(at, values, errors, strict=True)
        ]
        marks.append(Dots(tone=tone, x=values, y=at, shape=shape, tips=tuple(tips)))
    every = [x for mark in marks if isinstance(mark, Whiskers) for x in (*mark.low, *mark.high)]
    chart = Chart(
        x=linear_axis(unit, max(0.0, min(every, default=0.0)), min(100.0, max(every, default=1.0)), n_ticks=7),
        y=Rows(tuple(labels)),
        marks=tuple(marks),
        legend=tuple(LegendEntry(side, *SIDES[side]) for side in sides) if len(sides) > 1 else (),
    )
    return Figure(
        name=name,
        title=title,
        caption="Bars are one standard error over the held-out rows.",
        alt=f"Dot plot of {len(labels)} scores for {' and '.join(sides)}; the table below has the numbers.",
        charts=(chart,),
        table=table,
    )
