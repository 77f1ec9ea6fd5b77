"""The loss curve of a training run, and of its control run on random rows."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.numeric.arrays import Int64
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import (
    Chart,
    Dots,
    LegendEntry,
    Line,
    Mark,
    Whiskers,
    linear_axis,
    points_with_errors,
)
from thresher.reporting.files import read_table
from thresher.reporting.page import Figure, Table
from thresher.reporting.pages.figures.dot_plot import SIDES

MAX_POINTS = 250  # of a curve; a longer one is thinned out
MAX_TABLE_ROWS = 20  # of a run, besides the steps that were evaluated


def build_loss_figure(folder: Path) -> Figure | None:
    """Return the loss curves of an adapter and of its control run, None if there are none."""
    files = {"your rows": folder / "loss.csv", "random rows": folder / "control" / "loss.csv"}
    tables = {
        side: read_table(path, ("step", "loss", "eval_loss", "eval_stderr"))
        for side, path in files.items()
        if side == "your rows" or path.is_file()
    }
    tables = {side: table for side, table in tables.items() if len(table)}
    if not tables:
        return None
    marks: list[Mark] = []
    for side, table in reversed(tables.items()):
        marks += _build_marks(side, table, len(tables) > 1)
    steps = max(int(table["step"].max()) for table in tables.values())  # type: ignore[arg-type]
    top = max(y for mark in marks for y in _upper_ends(mark))
    legend = [LegendEntry(f"training, {side}", SIDES[side][0], "line") for side in tables]
    legend += [LegendEntry(f"held out, {side}", *SIDES[side]) for side in tables if len(_evaluated(tables[side]))]
    chart = Chart(
        x=linear_axis("optimizer step", 0, steps, is_from_zero=True, pad=0.02),
        y=linear_axis("loss (nats)", 0, top, is_from_zero=True),
        marks=marks,
        legend=legend,
    )
    return Figure(
        name="loss_curve",
        title="Loss per step, and on held-out rows",
        caption="Lines: training loss, a running mean. Points: held-out rows, with one standard error.",
        alt=" ".join(_write_alt(side, table) for side, table in tables.items()),
        charts=(chart,),
        table=_build_table(tables),
    )


def _evaluated(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("eval_loss").is_not_null())


def _build_marks(side: str, table: pl.DataFrame, has_both: bool) -> list[Mark]:
    tone, shape = SIDES[side]
    steps, losses = _smooth(table["step"].to_numpy(), table["loss"].to_numpy())
    marks: list[Mark] = [Line(tone=tone, x=steps, y=losses, label=side if has_both else None)]
    rows = _evaluated(table).cast({"step": pl.Float64, "eval_loss": pl.Float64, "eval_stderr": pl.Float64})
    if len(rows):
        x, y = rows["step"].to_list(), rows["eval_loss"].to_list()
        errors = rows["eval_stderr"].fill_null(0.0).fill_nan(0.0).to_list()
        tips = [f"step {s:,.0f}, {side}: {v:.4g} ± {e:.2g}" for s, v, e in zip(x, y, errors, strict=True)]
        limits = (0.0, math.inf)
        marks += points_with_errors(tone=tone, x=x, y=y, errors=errors, shape=shape, tips=tips, limits=limits)
    return marks


def _smooth(steps: Any, losses: Any) -> tuple[list[float], list[float]]:
    """Return a running mean over a 25th of the steps, at no more than MAX_POINTS places."""
    width = max(1, len(losses) // 25)
    # total[i] is the sum of the first i losses, so a window's mean is a difference of two totals
    total = np.cumsum(np.concatenate([[0.0], losses]))
    end = np.arange(1, len(total))
    start = np.maximum(0, end - width)
    mean = (total[end] - total[start]) / (end - start)
    shown = _spread_evenly(len(mean), MAX_POINTS)
    return steps[shown].astype(float).tolist(), mean[shown].tolist()


def _spread_evenly(n: int, n_shown: int) -> Int64:
    """Return up to `n_shown` of n positions at even distances, with the first and the last."""
    return np.unique(np.linspace(0, n - 1, min(n, n_shown)).astype(np.int64))


def _upper_ends(mark: Mark) -> Sequence[float]:
    if isinstance(mark, Whiskers):
        return mark.high
    return mark.y if isinstance(mark, Line | Dots) else [0.0]


def _write_alt(side: str, table: pl.DataFrame) -> str:
    _, mean = _smooth(table["step"].to_numpy(), table["loss"].to_numpy())
    first, last = fmt.significant(mean[0], 3), fmt.significant(mean[-1], 3)
    evaluated = _evaluated(table)["eval_loss"]
    held_out = ""
    if len(evaluated):
        ends = fmt.significant(evaluated[0], 3), fmt.significant(evaluated[-1], 3)
        held_out = f", held-out loss from {ends[0]} to {ends[1]}"
    return f"Training loss on {side} goes from {first} to {last}{held_out}."


def _build_table(tables: Mapping[str, pl.DataFrame]) -> Table:
    cells = []
    for side, table in tables.items():
        shown = pl.int_range(pl.len()).is_in(_spread_evenly(len(table), MAX_TABLE_ROWS))
        for row in table.filter(shown | pl.col("eval_loss").is_not_null()).iter_rows(named=True):
            held_out = fmt.MetricDisplay("loss", False, False).text(row["eval_loss"], row["eval_stderr"])
            cells.append((f"{row['step']:,}", side, fmt.significant(row["loss"]), held_out))
    return Table(
        caption="Losses at some of the steps",
        columns=("step", "trained on", "training loss", "held-out loss"),
        rows=cells,
        numeric=(0, 2, 3),
    )
