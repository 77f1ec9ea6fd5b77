"""A dot plot of rates with errors, one line per name, of an adapter and its control run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Chart, LegendEntry, Mark, Rows, Whiskers, linear_axis, points_with_errors
from thresher.reporting.page import Figure, Table

SIDES = {"your rows": ("blue", "diamond"), "random rows": ("gray", "circle")}


def build_dot_plot(
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
    for (side, estimates), lift in zip(sides.items(), (0.0,) if len(sides) == 1 else (0.12, -0.12), strict=True):
        tone, shape = SIDES[side]
        shown = [(i, estimate) for i, estimate in enumerate(estimates) if fmt.is_number(estimate["value"])]
        values = [100 * estimate["value"] for _, estimate in shown]
        errors = [100 * estimate["stderr"] if fmt.is_number(estimate["stderr"]) else 0.0 for _, estimate in shown]
        tips = [f"{labels[i]}, {side}: {v:.1f} ± {e:.1f} %" for (i, _), v, e in zip(shown, values, errors, strict=True)]
        y = [i - lift for i, _ in shown]
        marks += points_with_errors(
            tone=tone, x=values, y=y, errors=errors, shape=shape, tips=tips, is_lying=True, limits=(0.0, 100.0)
        )
    ends = [x for mark in marks if isinstance(mark, Whiskers) for x in (*mark.low, *mark.high)]
    chart = Chart(
        x=linear_axis(unit, max(0.0, min(ends, default=0.0)), min(100.0, max(ends, default=1.0)), n_ticks=7),
        y=Rows(tuple(labels)),
        marks=marks,
        legend=[LegendEntry(side, *SIDES[side]) for side in sides] if len(sides) > 1 else (),
    )
    return Figure(
        name=name,
        title=title,
        caption="Bars are one standard error over the held-out rows.",
        alt=f"Dot plot of {len(labels)} scores for {' and '.join(sides)}; the table below has the numbers.",
        charts=(chart,),
        table=table,
    )
