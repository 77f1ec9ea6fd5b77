"""The section of a subset's page that shows how `auto` decided."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Chart, Dots, Mark, Rows, Rule, Whiskers, linear_axis
from thresher.reporting.page import Block, Figure, Paragraph, Table


def build_pilot(pilot: Mapping[str, Any]) -> list[Block]:
    """Return the sentence of the decision, and the arms with their intervals where they raced.

    Args:
        pilot: as in `pilot.json`.
    """
    blocks: list[Block] = [Paragraph(f"{pilot['why']}.")]
    if not pilot.get("effect"):
        return blocks
    held_out = f"{fmt.count(pilot['n_chosen'])} of {fmt.count(pilot['n_candidates'])} candidates chosen"
    blocks.append(_build_forest(pilot, held_out))
    blocks.append(
        Paragraph(
            f"In each split {held_out}; {fmt.count(pilot['n_held_out'])} held-out rows scored a logistic "
            f"regression trained on them. The first line is the winner on new splits, on which the decision is "
            f"based; the others are from the splits that picked it, which favor the best of them."
        )
    )
    return blocks


def build_trained_pilot(pilot: Mapping[str, Any] | None) -> list[Block]:
    """Return what the short trainings said of each method; nothing where none were asked for."""
    if pilot is None:
        return []
    rows = [(arm["method"], arm["sentence"]) for arm in pilot["arms"]]
    table = Table(
        caption="Each method compared with the same number of random rows",
        columns=("method", "in short trainings"),
        rows=rows,
    )
    return [Paragraph(f"{pilot['why']}."), table]


def _build_forest(pilot: Mapping[str, Any], held_out: str) -> Figure:
    lines = [(f"{pilot['nominee']}, fresh splits", pilot["effect"], True)]
    lines += [(arm["arm"], arm, False) for arm in pilot["nominations"]]
    marks: list[Mark] = [Rule(at=0.0)]
    for row, (name, effect, is_final) in enumerate(lines):
        value, low, high = (100 * effect[key] for key in ("value", "low", "high"))
        tone = "blue" if is_final and low > 0 else "gray"
        tip = f"{name}: {value:+.1f} points [{low:+.1f}, {high:+.1f}], {effect['n_splits']} splits"
        marks.append(
            Whiskers(tone=tone, at=[row], low=[low], high=[high], is_lying=True, width=2.6 if is_final else 1.6)
        )
        marks.append(Dots(tone=tone, x=[value], y=[row], shape="diamond" if is_final else "circle", tips=(tip,)))
    ends = [0.0, *(100 * effect[key] for _, effect, _ in lines for key in ("low", "high"))]
    chart = Chart(
        x=linear_axis(f"points of {pilot['metric']} above random rows", min(ends), max(ends), n_ticks=7),
        y=Rows(tuple(name for name, _, _ in lines)),
        marks=marks,
    )
    table = Table(
        caption="Difference from random rows, in points",
        columns=("arm", "difference", "95 % interval", "splits"),
        rows=[
            (
                name,
                f"{100 * effect['value']:+.1f}",
                f"{100 * effect['low']:+.1f} to {100 * effect['high']:+.1f}",
                str(effect["n_splits"]),
            )
            for name, effect, _ in lines
        ],
        numeric=(1, 3),
        is_folded=True,
    )
    return Figure(
        name="pilot",
        title="Which method is better than random rows here",
        caption=f"Bars are 95 % intervals over splits of the pool, {held_out}.",
        alt=f"Forest plot of {len(lines)} differences from random rows; the table below has the numbers.",
        charts=(chart,),
        table=table,
    )
