"""The page of `grow`: what a model wrote, what was kept, and every refused text with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.artifacts.stored import read_json_lines
from thresher.numeric.units import format_count
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_json, read_table
from thresher.reporting.page import (
    Block,
    Example,
    Examples,
    Notice,
    Page,
    Paragraph,
    Section,
    Share,
    ShareBars,
    Table,
    Tile,
)
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.labels.asked import TEXT, write_row
from thresher.reporting.pages.reproduce import build_reproduction
from thresher.reporting.pages.rows.subset_rows import write_place

ORIGIN = ("grown_from", "grown_by", "round", "answer_from")
REFUSED = ("grown_from", "file", "line", "reason", "explanation", "prompt", "response")
N_KEPT, N_REFUSED = 8, 3  # examples in all, and of each reason


def build_grown_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `grow` wrote."""
    content, counts = manifest.content, manifest.content["counts"]
    rows, refused = read_json_lines(folder / "rows.jsonl"), read_table(folder / "refused.parquet", REFUSED)
    n_texts = counts["kept"] + counts["refused"]
    asked = sum(content["answers"].values())
    return Page(
        kind="grown rows",
        title=f"{fmt.rows(counts['kept'])} grown by {content['settings']['how']}",
        answer=_write_answer(counts, content),
        more=[
            "To find out whether these rows help, train with and without them: thresher compare --against.",
            *map(str, content["notes"]),
        ],
        tiles=(
            Tile(
                "Kept", fmt.count(counts["kept"]), f"{fmt.share(counts['kept'], n_texts)} of {fmt.count(n_texts)} texts"
            ),
            Tile("Your rows", fmt.count(counts["seeds_with_rows"]), f"with new ones, of {fmt.count(counts['seeds'])}"),
            Tile("Answers asked for", fmt.count(asked), "stored ones included"),
        ),
        sections=[
            Section("What was kept", _build_kept(rows, content)),
            Section("What was refused, and why", _build_refused(refused, counts)),
            Section("What was asked", _build_calls(content)),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _write_answer(counts: Mapping[str, Any], content: Mapping[str, Any]) -> str:
    kept, refused = counts["kept"], counts["refused"]
    text = (
        f"{format_count(kept, 'new row')} passed every check, written for {fmt.rows(counts['seeds'])} by "
        f"{content['writer']['name']}; {format_count(refused, 'text')} {'was' if refused == 1 else 'were'} refused"
    )
    first = next(iter(counts["refused_by_reason"].items()), None)
    return f"{text}." if first is None else f"{text}, most often as {first[0]} ({fmt.count(first[1])})."


def _build_kept(rows: Sequence[Mapping[str, Any]], content: Mapping[str, Any]) -> list[Block]:
    if not rows:
        return [Notice("No row was kept. A stronger --teacher, or more --n-samples, may write some.")]
    blocks: list[Block] = []
    sources = content["counts"].get("answer_from", {})
    if sources:
        cells = [(name, fmt.count(n)) for name, n in sources.items()]
        blocks.append(Table(caption="Whose answers", columns=("answer", "rows"), rows=cells, numeric=(1,)))
    grown = [row for row in rows if row.get("grown_from") is not None]
    examples = [
        Example(
            text=fmt.truncate(write_row(row, ORIGIN), TEXT),
            reason=f"from row {row['grown_from']}, round {row['round']}",
        )
        for row in grown[:N_KEPT]
    ]
    note = f"{len(examples)} of {fmt.rows(len(grown))}"
    return [*blocks, Examples(note, "All are in rows.jsonl.", examples)] if examples else blocks


def _build_refused(refused: pl.DataFrame, counts: Mapping[str, Any]) -> list[Block]:
    if refused.is_empty():
        return [Paragraph("No text was refused.")]
    reasons = counts["refused_by_reason"]
    largest = max(reasons.values())
    shares = [Share(reason, n / largest, fmt.count(n), "gray") for reason, n in reasons.items()]
    blocks: list[Block] = [ShareBars("Refused texts by reason", ("reason", "texts"), shares)]
    for reason, n in reasons.items():
        own = refused.filter(pl.col("reason") == reason).head(N_REFUSED)
        examples = [
            Example(
                text=fmt.truncate(
                    "\n".join(part for part in (row["prompt"], row["response"]) if part) or "no text", TEXT
                ),
                reason=str(row["explanation"]),
                place=write_place(row),
            )
            for row in own.iter_rows(named=True)
        ]
        blocks.append(Examples(f"{reason}: {fmt.count(n)}", "All are in refused.parquet.", examples))
    return blocks


def _build_calls(content: Mapping[str, Any]) -> list[Block]:
    cells = [(stage, fmt.count(n)) for stage, n in content["answers"].items()]
    blocks: list[Block] = [Table(caption="Answers", columns=("stage", "answers"), rows=cells, numeric=(1,))]
    facts = [
        (name.replace("pass_at_", "pass@").replace("_", " "), f"{value:g}") for name, value in content["facts"].items()
    ]
    if facts:
        blocks.append(Table(caption="Measured on the way", columns=("", "value"), rows=facts, numeric=(1,)))
    return blocks


def build_rounds_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `grow --rounds` wrote."""
    content, counts = manifest.content, manifest.content["counts"]
    rows, rounds = read_json_lines(folder / "rows.jsonl"), read_json(folder / "rounds.json", ("rounds",))["rounds"]
    cells = [
        (
            str(each["round"]),
            fmt.count(each["kept_rows"]),
            ", ".join(f"{name.replace('_', ' ')} {value:g}" for name, value in each["facts"].items()),
            f"{each['difference']:+.4f} [{each['low']:+.4f}, {each['high']:+.4f}] {each['metric']}"
            if "difference" in each
            else "",
            "kept" if each["is_kept"] else str(each["ended_by"]),
        )
        for each in rounds
    ]
    columns = ("round", "rows", "measured", "against the round before, 95 %", "verdict")
    examples = [
        Example(text=fmt.truncate(write_row(row, ORIGIN), TEXT), reason=f"round {row['round']}")
        for row in rows[:N_KEPT]
    ]
    note = f"{len(examples)} of {fmt.rows(len(rows))}"
    kept: list[Block] = [Examples(note, "All are in rows.jsonl.", examples)] if rows else []
    return Page(
        kind="rounds of grown rows",
        title=f"{counts['kept_rounds']} of {counts['rounds']} rounds kept",
        answer=f"{str(content['answer'])[:1].upper()}{str(content['answer'])[1:]}.",
        tiles=(Tile("Rows", fmt.count(counts["kept"]), "of the kept rounds"),),
        sections=[
            Section("The rounds", [Table(caption="On held-out rows", columns=columns, rows=cells, numeric=(1,))]),
            Section("What was kept", kept),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )
