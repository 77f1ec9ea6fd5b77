"""The page of `correct`: replaced answers beside the original ones, and why others stayed."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_table
from thresher.reporting.page import Block, Example, Examples, Page, Pairs, Paragraph, Section, Share, ShareBars, Tile
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.labels.asked import TEXT
from thresher.reporting.pages.reproduce import build_reproduction
from thresher.reporting.pages.rows.subset_rows import write_place

COLUMNS = ("row_id", "file", "line", "decision", "confidence", "reason", "original", "candidate")
# examples of replaced answers, and of each other decision
REPLACED, N_PAIRS, N_OTHERS = "replaced", 8, 3
TONES = {REPLACED: "blue"}


def build_corrected_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `correct` wrote."""
    content, audit = manifest.content, read_table(folder / "audit.parquet", COLUMNS)
    decisions: Mapping[str, int] = content["counts"]["decisions"]
    n_replaced = decisions.get(REPLACED, 0)
    share = fmt.share(n_replaced, len(audit))
    return Page(
        kind="corrected answers",
        title=f"{fmt.count(n_replaced)} answers replaced",
        answer=f"{content['judge']['name']} preferred the answer of {content['model']['name']} with confidence "
        f"{content['eta']:g} or more in {fmt.rows(n_replaced)} of {fmt.count(len(audit))} ({share}).",
        more=[
            "The judge's preference is not the truth: read some of the pairs before you train on them.",
            *map(str, content["notes"]),
        ],
        tiles=(
            Tile("Replaced", fmt.count(n_replaced), share),
            Tile("Kept", fmt.count(decisions.get("kept", 0)), "the judge was less sure"),
            Tile("Rows", fmt.count(len(audit)), "in rows.jsonl"),
        ),
        sections=[
            Section("What was replaced", _build_replaced(audit, str(content["column"]))),
            Section("What happened to each row", _build_decisions(audit, decisions)),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _build_replaced(audit: pl.DataFrame, column: str) -> list[Block]:
    replaced = audit.filter(pl.col("decision") == REPLACED).sort("confidence", "row_id", descending=[True, False])
    if replaced.is_empty():
        return [Paragraph("No answer was replaced. A lower --eta replaces more.")]
    pairs = [
        (_write_example(row, "original"), _write_example(row, "candidate"))
        for row in replaced.head(N_PAIRS).iter_rows(named=True)
    ]
    title = f"{len(pairs)} of {fmt.rows(len(replaced))}, most confident first"
    note = f"All pairs are in audit.parquet; rows.jsonl keeps each original in the column {column}."
    return [Pairs(title, ("Original answer", "New answer"), pairs), Paragraph(note)]


def _build_decisions(audit: pl.DataFrame, decisions: Mapping[str, int]) -> list[Block]:
    largest = max(1, *decisions.values())
    shares = [Share(name, n / largest, fmt.count(n), TONES.get(name, "gray")) for name, n in decisions.items()]
    blocks: list[Block] = [ShareBars("Rows by decision", ("decision", "rows"), shares)]
    for name in (name for name, n in decisions.items() if n and name != REPLACED):
        own = audit.filter(pl.col("decision") == name).head(N_OTHERS)
        examples = [_write_example(row, "original") for row in own.iter_rows(named=True)]
        blocks.append(Examples(f"{name}: {fmt.count(decisions[name])}", "All are in audit.parquet.", examples))
    return blocks


def _write_example(row: Mapping[str, Any], column: str) -> Example:
    text = fmt.truncate(str(row[column] or "no text"), TEXT)
    return Example(text=text, reason=str(row["reason"]), place=write_place(row))
