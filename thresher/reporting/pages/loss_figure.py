"""The loss curve of a training run, and of the one on random rows beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.reporting.charts.chart import Chart, Dots, LegendEntry, Line, Mark, Whiskers, linear_axis
from thresher.reporting.files import read_table
from thresher.reporting.page import Figure, Table
from thresher.reporting.pages.dot_plot import SIDES
from thresher.reporting.wording import MetricDisplay, significant

MAX_POINTS = 250  # of a curve; a longer one shows every so many steps


def loss_figure(folder: Path) -> Figure | None:
    """Return the loss curve of an adapter's folder, with that on random rows where there is one; None if empty."""
    files = {"these rows": folder / "loss.csv", "random rows": folder / "control" / "loss.csv"}
    tables = {
        side: read_table(path, ("step", "loss", "eval_loss", "eval_stderr"))
        for side, path in files.items()
        if side == "these rows" or path.is_file()
    }
    tables = {side: table for side, table in tables.items() if len(table)}
    if not tables:
        return None
    marks: list[Mark] = []
    for side, table in reversed(tables.items()):
        marks += _loss_marks(side, table, len(tables) > 1)
    steps = max(int(table["step"].max()) for table in tables.values())  # type: ignore[arg-type]
    top = max(max(_reach(mark)) for mark in marks)
    legend = [LegendEntry(f"training, {side}", SIDES[side][0], "line") for side in tables]
    legend += [LegendEntry(f"held out, {side}", *SIDES[side]) for side in tables if _measured(tables[side]).height]
    chart = Chart(
        x=linear_axis("optimizer step", 0, steps, is_from_zero=True, pad=0.02),
        y=linear_axis("loss (nats)", 0, top, is_from_zero=True),
        marks=tuple(marks),
        legend=tuple(legend),
    )
    return Figure(
        name="loss_curve",
        title="Loss per step, and on held-out rows",
        caption="Lines: training loss, a running mean. Points: held-out rows, with one standard error.",
        alt=" ".join(_loss_words(side, table) for side, table in tables.items()),
        charts=(chart,),
        table=_loss_table(tables),
    )


def _measured(table: pl.DataFrame) -> pl.DataFrame:
    return table.filter(pl.col("eval_loss").is_not_null())


def _loss_marks(side: str, table: pl.DataFrame, has_both: bool) -> list[Mark]:
    tone, shape = SIDES[side]
    steps, losses = _smooth(table["step"].to_numpy(), table["loss"].to_numpy())
    marks: list[Mark] = [Line(tone=tone, x=steps, y=losses, label=side if has_both else None)]
    found = _measured(table).cast({"eval_loss": pl.Float64, "eval_stderr": pl.Float64})
    if found.height:
        at, value = found["step"].cast(pl.Float64).to_list(), found["eval_loss"].to_list()
        error = found["eval_stderr"].fill_null(0.0).fill_nan(0.0).to_list()
        low, high = ([v + sign * e for v, e in zip(value, error, strict=True)] for sign in (-1, 1))
        tips = tuple(f"step {s:,.0f}, {side}: {v:.4g} ± {e:.2g}" for s, v, e in zip(at, value, error, strict=True))
        marks += [
            Whiskers(tone=tone, at=at, low=[max(0.0, v) for v in low], high=high),
            Dots(tone=tone, x=at, y=value, shape=shape, tips=tips),
        ]
    return marks


def _smooth(steps: Any, losses: Any) -> tuple[list[float], list[float]]:
    """Return a running mean over a 25th of the steps, at no more than MAX_POINTS places."""
    width = max(1, len(losses) // 25)
    total = np.cumsum(np.concatenate([[0.0], losses]))
    end = np.arange(1, len(total))
    start = np.maximum(0, end - width)
    mean = (total[end] - total[start]) / (end - start)
    shown = np.unique(np.linspace(0, len(mean) - 1, min(len(mean), MAX_POINTS)).astype(int))
    return steps[shown].astype(float).tolist(), mean[shown].tolist()


def _reach(mark: Mark) -> list[float]:
    if isinstance(mark, Whiskers):
        return list(mark.high)
    return list(mark.y) if isinstance(mark, Line | Dots) else [0.0]


def _loss_words(side: str, table: pl.DataFrame) -> str:
    _, mean = _smooth(table["step"].to_numpy(), table["loss"].to_numpy())
    found = _measured(table)["eval_loss"]
    held_out = (
        f", held-out loss {significant(found[0], 3)} first and {significant(found[-1], 3)} last" if len(found) else ""
    )
    return f"Training loss on {side} goes from {significant(mean[0], 3)} to {significant(mean[-1], 3)}{held_out}."


def _loss_table(tables: Mapping[str, pl.DataFrame]) -> Table:
    cells = []
    for side, table in tables.items():
        at = np.unique(np.linspace(0, len(table) - 1, min(len(table), 20)).astype(int))
        is_shown = pl.int_range(pl.len()).is_in(at) | pl.col("eval_loss").is_not_null()
        for row in table.filter(is_shown).iter_rows(named=True):
            held_out = MetricDisplay("loss", False, False).text(row["eval_loss"], row["eval_stderr"])
            cells.append((f"{row['step']:,}", side, significant(row["loss"]), held_out))
    return Table(
        caption="Losses at some of the steps",
        columns=("step", "trained on", "training loss", "held-out loss"),
        rows=tuple(cells),
        numeric=frozenset({0, 2, 3}),
    )
