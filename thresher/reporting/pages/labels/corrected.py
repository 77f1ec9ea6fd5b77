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
N_PAIRS, N_OTHERS = 8, 3  # examples of replaced answers, and of each other decision
CHANGED = ("replaced", "abstained")
CHECK_JUDGE = "The judge's preference is not the truth: read some of the pairs before you train on them."
CHECK_UNKNOWN = "A larger model may know these answers: the refusals are right for this one alone."


def build_corrected_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `correct` wrote."""
    content, audit = manifest.content, read_table(folder / "audit.parquet", COLUMNS)
    decisions: Mapping[str, int] = content["counts"]["decisions"]
    changed = audit.filter(pl.col("decision").is_in(CHANGED))
    share = fmt.share(len(changed), len(audit))
    abstain = content.get("abstain")
    return Page(
        kind="corrected answers",
        title=f"{fmt.count(len(changed))} answers replaced" + (" by a refusal" if abstain else ""),
        answer=_write_answer(content, len(changed), len(audit), share),
        more=[CHECK_UNKNOWN if abstain else CHECK_JUDGE, *map(str, content["notes"])],
        tiles=(
            Tile("Replaced", fmt.count(len(changed)), share),
            Tile("Kept", fmt.count(decisions.get("kept", 0)), "" if abstain else "the judge was less sure"),
            Tile("Rows", fmt.count(len(audit)), "in rows.jsonl"),
        ),
        sections=[
            Section("What was replaced", _build_replaced(changed, content)),
            Section("What happened to each row", _build_decisions(audit, decisions)),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _write_answer(content: Mapping[str, Any], n_changed: int, n: int, share: str) -> str:
    model, rows = content["model"]["name"], f"{fmt.rows(n_changed)} of {fmt.count(n)} ({share})"
    if "abstain" in content:
        return f"{model} does not know the answer of {rows}, which now say: {content['abstain']['refusal']}"
    judge, eta = content["judge"]["name"], content["eta"]
    return f"{rows} got a new answer: {judge} preferred that of {model} with a confidence of at least {eta:g}."


def _build_replaced(changed: pl.DataFrame, content: Mapping[str, Any]) -> list[Block]:
    if changed.is_empty():
        hint = "A lower --least-entropy replaces more." if "abstain" in content else "A lower --eta replaces more."
        return [Paragraph(f"No answer was replaced. {hint}")]
    first = changed.sort("confidence", "row_id", descending=[True, False], nulls_last=True).head(N_PAIRS)
    pairs = [
        (_write_example(row, "candidate"), _write_example({**row, "reason": ""}, "original"))
        for row in first.iter_rows(named=True)
    ]
    title = f"{len(pairs)} of {fmt.rows(len(changed))}" + ("" if "abstain" in content else ", most confident first")
    note = f"All are in audit.parquet; rows.jsonl keeps each original answer in the column {content['column']}."
    return [Pairs(title, ("New answer", "Original answer"), pairs), Paragraph(note)]


def _build_decisions(audit: pl.DataFrame, decisions: Mapping[str, int]) -> list[Block]:
    largest = max(1, *decisions.values())
    shares = [
        Share(name, n / largest, fmt.count(n), "blue" if name in CHANGED else "gray") for name, n in decisions.items()
    ]
    blocks: list[Block] = [ShareBars("Rows by decision", ("decision", "rows"), shares)]
    for name in (name for name, n in decisions.items() if n and name not in CHANGED):
        own = audit.filter(pl.col("decision") == name).head(N_OTHERS)
        examples = [_write_example(row, "original") for row in own.iter_rows(named=True)]
        blocks.append(Examples(f"{name}: {fmt.count(decisions[name])}", "All are in audit.parquet.", examples))
    return blocks


def _write_example(row: Mapping[str, Any], column: str) -> Example:
    text = fmt.truncate(str(row[column] or "no text"), TEXT)
    return Example(text=text, reason=str(row["reason"]), place=write_place(row))
