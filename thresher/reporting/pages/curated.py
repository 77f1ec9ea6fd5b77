"""The page of a cleaned pool: what each rule dropped and why, beside the rows that stay instead."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_table
from thresher.reporting.page import (
    Block,
    Example,
    Examples,
    Items,
    Notice,
    Page,
    Pairs,
    Paragraph,
    Section,
    Share,
    ShareBars,
    Table,
    Tile,
)
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.reproduce import build_reproduction
from thresher.reporting.pages.rows.subset_rows import N_EXAMPLES, TEXT, write_place

DROPPED = ("row_id", "file", "line", "rule", "reason", "explanation", "duplicate_of", "duplicate_in", "preview")
CLUSTERS = ("rule", "cluster", "cluster_in", "row_id", "preview")
FINDINGS = ("rule", "file", "line", "finding", "preview")
MAX_CLUSTERS = 10  # the largest ones


def build_curated_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `curate clean` wrote."""
    content, counts = manifest.content, manifest.content["counts"]
    dropped, clusters, findings = (
        read_table(folder / f"{name}.parquet", columns)
        for name, columns in (("dropped", DROPPED), ("clusters", CLUSTERS), ("findings", FINDINGS))
    )
    usable = counts["usable"]
    names = ", ".join(source["name"] for source in content["inputs"][:3])
    return Page(
        kind="cleaned pool",
        title=f"{names or 'Rows'}, cleaned",
        answer=_write_answer(counts),
        more=[str(note) for note in content["notes"]],
        tiles=(
            Tile("Kept", fmt.count(counts["kept"]), f"{fmt.share(counts['kept'], usable)} of {fmt.rows(usable)}"),
            Tile("Dropped", fmt.count(counts["dropped"]), fmt.share(counts["dropped"], usable)),
            Tile("Masked", fmt.count(counts["masked"]), "masked rows"),
            Tile("Reported only", fmt.count(counts["findings"]), "findings"),
        ),
        sections=[
            Section("What was dropped, and what was kept instead", _build_reasons(dropped, clusters)),
            Section("What each rule did", _build_rules(content)),
            Section("The largest groups of duplicates", _build_clusters(clusters)),
            Section("Reported only", _build_findings(findings)),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _write_answer(counts: Mapping[str, Any]) -> str:
    usable = fmt.rows(counts["usable"])
    if not counts["dropped"]:
        return f"The rules found nothing to drop among {usable}."
    reasons = ", ".join(f"{reason} {fmt.count(n)}" for reason, n in list(counts["dropped_by_reason"].items())[:4])
    more = ", and others" if len(counts["dropped_by_reason"]) > 4 else ""
    share = fmt.share(counts["dropped"], counts["usable"])
    verb = "was" if counts["dropped"] == 1 else "were"
    return f"{fmt.count(counts['dropped'])} of {usable} {verb} dropped ({share}): {reasons}{more}."


def _build_reasons(dropped: pl.DataFrame, clusters: pl.DataFrame) -> list[Block]:
    if dropped.is_empty():
        return [Paragraph("No row was dropped.")]
    sizes = dropped["reason"].value_counts().sort("count", "reason", descending=[True, False])
    largest = int(sizes["count"][0])
    shares = [Share(reason, n / largest, fmt.count(n), "gray") for reason, n in sizes.iter_rows()]
    known = dict(zip(clusters["row_id"], clusters["preview"], strict=True)) if len(clusters) else {}
    blocks: list[Block] = [ShareBars("Dropped rows by reason", ("reason", "rows"), shares)]
    for reason, n in sizes.iter_rows():
        rows = dropped.filter(pl.col("reason") == reason).head(N_EXAMPLES)
        blocks += _build_examples(reason, n, rows, known)
    return blocks


def _build_examples(reason: str, n: int, rows: pl.DataFrame, known: Mapping[str, str]) -> list[Block]:
    """Return examples of a reason: pairs where the text of the row that stays instead is known."""
    pairs, alone = [], []
    for row in rows.iter_rows(named=True):
        text = fmt.truncate(row["preview"] or "", TEXT)
        example = Example(text=text, reason=row["explanation"], place=write_place(row))
        kept = known.get(row["duplicate_of"] or "") if row["duplicate_in"] == "pool" else None
        if kept is None:
            alone.append(example)
        else:
            pairs.append((Example(text=fmt.truncate(kept, TEXT), reason=f"row {row['duplicate_of']}"), example))
    title = f"{reason}: {fmt.rows(n)}"
    blocks: list[Block] = [Pairs(title, ("kept", "dropped"), pairs)] if pairs else []
    return [*blocks, Examples(title if not pairs else f"{title}, others", "", alone)] if alone else blocks


def _build_rules(content: Mapping[str, Any]) -> list[Block]:
    cells = []
    for rule in content["rules"]:
        dropped = sum(rule["dropped"].values())
        did = "reported only" if rule["report"] else fmt.share(dropped, rule["rows"])
        values = (rule["rows"], dropped, rule["masked"], rule["findings"])
        cells.append((rule["name"], *(fmt.count(value) for value in values), did))
    columns = ("rule", "rows it read", "dropped", "masked", "findings", "share dropped")
    blocks: list[Block] = [Table(caption="Rules, in order", columns=columns, rows=cells, numeric=range(1, 6))]
    notes = [
        f"{rule['name']}: {name.replace('_', ' ')}: {fmt.count(value) if isinstance(value, int) else value}"
        for rule in content["rules"]
        for name, value in rule["notes"].items()
        if isinstance(value, int | float | str)
    ]
    large = [Notice(str(one)) for one in content["large_drops"]]
    return [*large, *blocks, *([Items([fmt.truncate(note, 200) for note in notes])] if notes else [])]


def _build_clusters(clusters: pl.DataFrame) -> list[Block]:
    if clusters.is_empty():
        return []
    groups = clusters.group_by("rule", "cluster", "cluster_in").agg(pl.len().alias("rows"), pl.col("preview").first())
    shown = groups.filter(pl.col("rows") > 1).sort("rows", "cluster", descending=[True, False]).head(MAX_CLUSTERS)
    cells = [
        (fmt.truncate(row["preview"] or "", 120), fmt.count(row["rows"]), row["rule"], row["cluster_in"])
        for row in shown.iter_rows(named=True)
    ]
    caption = f"The {len(cells)} largest of {fmt.count(len(groups))} groups; all are in clusters.parquet"
    return [
        Table(caption=caption, columns=("one of them", "rows", "rule", "found in"), rows=cells, numeric=(1,), text=(0,))
    ]


def _build_findings(findings: pl.DataFrame) -> list[Block]:
    if findings.is_empty():
        return []
    examples = [
        Example(
            text=fmt.truncate(row["preview"] or "", TEXT),
            reason=f"{row['rule']}: {row['finding']}",
            place=write_place(row),
        )
        for row in findings.head(2 * N_EXAMPLES).iter_rows(named=True)
    ]
    return [Examples(f"{fmt.count(len(findings))} findings; all are in findings.parquet", "", examples)]
