"""The page of a ranking of base models: the order, the scores, and the verdict of training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Chart, Rows, Rule, linear_axis, points_with_errors
from thresher.reporting.files import read_json, read_table
from thresher.reporting.page import Block, Figure, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.experiment_tables import build_footer, describe_incomplete
from thresher.reporting.pages.reproduce import build_reproduction

KEYS = ("answer", "score", "rows", "ranks", "agreement", "confirmed")
MEANING = {
    "brier": "squared error of a cross-fitted regression of the labels on the vectors; lower is better",
    "regression": "accuracy of this regression",
    "neighbors": "accuracy of the five nearest neighbors",
    "evidence": "log evidence of a regression on each label, per row, maximized exactly; higher is better",
    "h_score": "distance between the class means, in units of the shrunk covariance; higher is better",
    "bits_per_byte": "loss of the answers with this many rows in the prompt; lower is better",
}
FACTS = ("ms_per_row", "parameters", "bytes", "license")
OTHER = ("model", "rank", "low", "high", "gap", "gap_low", "gap_high", "is_tied", "dimensions", "bits_per_byte", *FACTS)


def build_ranking_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `base rank` wrote."""
    content, result = manifest.content, read_json(folder / "bases.json", KEYS)
    table = read_table(folder / "bases.parquet", ("model", "rank", "low", "high", *FACTS))
    firsts = sorted(set(result["agreement"].values()))
    named = fmt.join_words(firsts)
    doubt = f"The scores do not agree on the best model: they rank first {named}." if len(firsts) > 1 else None
    answer, left_out = str(result["answer"]), result.get("rows_note")
    return Page(
        kind="ranking of base models",
        title=f"{fmt.count(len(table))} base models",
        answer=f"{answer[0].upper()}{answer[1:]}.",
        more=[*describe_incomplete(result), *([doubt] if doubt else []), *([f"{left_out}."] if left_out else [])],
        tiles=(
            Tile("First", str(table["model"][0])),
            Tile("Rows read", fmt.count(result["rows"]), "by each model"),
            Tile("Time", fmt.seconds(content["run"]["seconds"])),
        ),
        sections=[
            Section("The order", [_build_figure(result)]),
            Section("The scores", [_build_scores(table), *_explain(table.columns)]),
            Section("After training", _build_verdicts(result["confirmed"])),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _build_figure(result: Mapping[str, Any]) -> Figure:
    ranks = result["ranks"]
    what = "Brier score" if result["score"] == "brier" else "bits per byte"
    labels = [each["name"] for each in ranks]
    low, high = min(each["gap_low"] for each in ranks), max(each["gap_high"] for each in ranks)
    marks = points_with_errors(
        tone="blue",
        x=[each["gap"] for each in ranks],
        y=list(range(len(ranks))),
        errors=[(each["gap_high"] - each["gap_low"]) / 2 for each in ranks],
        shape="circle",
        tips=[f"{each['name']}: {each['gap']:.3f} [{each['gap_low']:.3f}, {each['gap_high']:.3f}]" for each in ranks],
        is_lying=True,
    )
    axis = linear_axis(f"{what} above that of {fmt.truncate(labels[0], 24)}", min(0.0, low), max(high, 1e-6))
    rows = [
        (
            each["name"],
            f"{each['rank']} [{each['low']}, {each['high']}]",
            f"{each['gap']:.3f}",
            f"{each['gap_low']:.3f} to {each['gap_high']:.3f}",
            "the first" if each["rank"] == 1 else "cannot tell" if each["is_tied"] else "worse than the first",
        )
        for each in ranks
    ]
    return Figure(
        name="bases",
        title="Distance from the first",
        caption=f"{what[0].upper()}{what[1:]} on the same {fmt.rows(result['rows'])}, paired row by row; bars are "
        f"95{fmt.PERCENT} intervals over rows.",
        alt=f"Dot plot of the distances of {len(ranks)} models from the first; the table below has the numbers.",
        charts=(Chart(x=axis, y=Rows(tuple(labels)), marks=[Rule(tone="gray", at=0.0), *marks]),),
        table=Table(
            caption="Ranks and distances",
            columns=("model", "rank", "distance", f"95{fmt.PERCENT} interval", "verdict"),
            rows=rows,
            numeric=(2, 3),
        ),
    )


def _build_scores(table: pl.DataFrame) -> Table:
    names = [name for name in table.columns if name not in OTHER]
    rows = []
    for line in table.iter_rows(named=True):
        scores = [fmt.significant(line[name]) if fmt.is_number(line[name]) else fmt.NOTHING for name in names]
        speed = f"{line['ms_per_row']:.1f}" if fmt.is_number(line["ms_per_row"]) else fmt.NOTHING
        facts = (speed, fmt.count(line["parameters"]), fmt.size(line["bytes"]), str(line["license"]))
        rows.append((str(line["model"]), *scores, *facts))
    columns = ("model", *map(fmt.readable_name, names), "ms per row", "parameters", "weights", "license")
    return Table(caption="Each model", columns=columns, rows=rows, numeric=range(1, len(columns) - 1))


def _explain(columns: Sequence[str]) -> list[Block]:
    return [
        Paragraph(f"{fmt.readable_name(name)}: {meaning}.")
        for name, meaning in MEANING.items()
        if any(column.startswith(name) for column in columns)
    ]


def _build_verdicts(confirmed: Mapping[str, Any] | None) -> list[Block]:
    if confirmed is None:
        return [Paragraph("Nothing was trained; --confirm 2 trains the best two and compares them row by row.")]
    rows = [
        (each["arm"], each["against"], f"{each['value']:.4f}", f"{each['against_value']:.4f}", each["sentence"])
        for each in confirmed["verdicts"]
    ]
    words = f"{fmt.readable_name(confirmed['metric'])}, {fmt.rows(confirmed['train_rows'])}, {confirmed['seeds']} seeds"
    return [
        Table(
            caption=f"Trained: {words}",
            columns=("model", "against", "score", "score of the other", "verdict"),
            rows=rows,
            numeric=(2, 3),
        )
    ]
