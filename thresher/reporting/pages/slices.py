"""Curves of parts of the test set, by class, source or attribute: small panels with one scale."""

from __future__ import annotations

import polars as pl

from thresher.artifacts.safe_csv import unescape_formulas
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import (
    Axis,
    Chart,
    LegendEntry,
    Line,
    Mark,
    linear_axis,
    log_axis,
    points_with_errors,
)
from thresher.reporting.files import read_table
from thresher.reporting.page import Block, Figure, Table
from thresher.reporting.pages.experiment_tables import Experiment

COLUMNS = ("method", "n_rows", "slice", "group", "value", "stderr", "n")
MAX_PANELS = 12
MAX_TABLE = 600  # lines


def build_slice_figures(experiment: Experiment) -> list[Block]:
    """Return one figure per slice; none where the folder has no slices."""
    path = experiment.folder / "slices.csv"
    if not path.is_file():
        return []
    table = read_table(path, COLUMNS).with_columns(
        pl.col("method", "slice", "group").cast(pl.String), pl.col("value", "stderr").cast(pl.Float64)
    )
    table = unescape_formulas(table).filter(pl.col("value").is_not_null() & pl.col("value").is_finite())
    names = table["slice"].unique(maintain_order=True).to_list()
    return [
        _build_figure(experiment, number, name, table.filter(pl.col("slice") == name))
        for number, name in enumerate(names, start=1)
    ]


def _build_figure(experiment: Experiment, number: int, name: str, table: pl.DataFrame) -> Figure:
    metric = experiment.metric
    order = _sort_weakest_first(table, is_higher_better=metric.is_higher_better)
    shown = order[:MAX_PANELS]
    part = table.filter(pl.col("group").is_in(shown))
    error = part["stderr"].fill_null(0.0).fill_nan(0.0)
    ends = [metric.scaled(value) for sign in (-1, 1) for value in (part["value"] + sign * error).to_list()]
    sizes = sorted(table["n_rows"].unique().to_list())
    x = log_axis("rows", sizes[0], sizes[-1], at=sizes)
    y = linear_axis(metric.label, min(ends), max(ends), n_ticks=4, pad=0.02)
    charts = [_build_panel(experiment, group, part.filter(pl.col("group") == group), x, y) for group in shown]
    which = f", the {MAX_PANELS} weakest of {len(order)}" if len(order) > MAX_PANELS else ", weakest first"
    return Figure(
        name=f"slices-{number}",
        title=f"By {name}{which}",
        caption="Means over seeds and test rows of the group, with one standard error. All panels have the same scale.",
        alt=f"Small learning curves for {len(shown)} values of {name}; the table below has the numbers.",
        charts=charts,
        table=_build_table(experiment, name, table, order),
    )


def _sort_weakest_first(table: pl.DataFrame, *, is_higher_better: bool) -> list[str]:
    """Return the groups by their mean over methods at the largest size of each."""
    last = table.filter(pl.col("n_rows") == pl.col("n_rows").max().over("method", "group"))
    means = last.group_by("group").agg(pl.col("value").mean())
    groups: list[str] = means.sort("value", "group", descending=[not is_higher_better, False])["group"].to_list()
    return groups


def _build_panel(experiment: Experiment, group: str, table: pl.DataFrame, x: Axis, y: Axis) -> Chart:
    marks: list[Mark] = []
    metric = experiment.metric
    for method in reversed(experiment.methods):
        own = table.filter(pl.col("method") == method).sort("n_rows")
        if not len(own):
            continue
        sizes = own["n_rows"].cast(pl.Float64).to_list()
        values = [metric.scaled(v) for v in own["value"].to_list()]
        errors = [metric.scaled(e) for e in own["stderr"].fill_null(0.0).fill_nan(0.0).to_list()]
        tone, shape = experiment.tones[method], experiment.shapes[method]
        tips = [
            f"{group}, {method}, {fmt.count(size)} rows: {metric.text(v, e)}"
            for size, v, e in own.select("n_rows", "value", "stderr").iter_rows()
        ]
        marks.append(Line(tone=tone, x=sizes, y=values))
        marks += points_with_errors(
            tone=tone,
            x=sizes,
            y=values,
            errors=errors,
            shape=shape,
            tips=tips,
            limits=(y.low, y.high),
            size=3.4,
            width=1.0,
        )
    n = table["n"].max()
    legend = [LegendEntry(m, experiment.tones[m], experiment.shapes[m]) for m in experiment.methods]
    title = f"{fmt.truncate(group, 32)} ({fmt.count(n if fmt.is_number(n) else None)} test rows)"
    return Chart(x=x, y=y, marks=marks, legend=legend, title=title)


def _build_table(experiment: Experiment, name: str, table: pl.DataFrame, order: list[str]) -> Table:
    place = {group: i for i, group in enumerate(order)}
    ordered = table.with_columns(pl.col("group").replace_strict(place, return_dtype=pl.Int64).alias("place"))
    ordered = ordered.sort("place", "method", "n_rows")
    metric = experiment.metric
    shown = ordered.head(MAX_TABLE).select("group", "method", "n_rows", "value", "stderr", "n")
    cells = [
        (fmt.truncate(group, 60), method, fmt.count(size), metric.text(value, stderr), fmt.count(n))
        for group, method, size, value, stderr, n in shown.iter_rows()
    ]
    more = f" (the first {MAX_TABLE} of {len(ordered):,} lines; slices.csv has all)" if len(ordered) > MAX_TABLE else ""
    return Table(
        caption=f"All values of {name}{more}",
        columns=(name, "method", "rows", metric.label, "test rows"),
        rows=cells,
        numeric=(2, 3, 4),
    )
