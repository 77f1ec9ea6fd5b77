"""The pages of labeled rows: those taken back, those joined of rules, those refined."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.artifacts.stored import read_json_lines
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_table
from thresher.reporting.page import Block, Example, Examples, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.labels.asked import N_SHOWN, TEXT, build_label_bars, write_row
from thresher.reporting.pages.reproduce import build_reproduction

ROWS = "rows.jsonl"


def build_labeled_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `label add` wrote."""
    content, counts = manifest.content, manifest.content["counts"]
    rows, agreement = read_json_lines(folder / ROWS), content["agreement"]
    answer = f"{fmt.rows(counts['labeled'])} have a label: {fmt.count(counts['labeled_before'])} had one before"
    by = [
        f"{fmt.count(counts[name])} by {who}"
        for name, who in (("by_people", "people"), ("by_annotator", "the annotator"))
        if counts[name]
    ]
    told = [] if agreement is None else [_describe_agreement(agreement, content["annotator"])]
    return Page(
        kind="labeled rows",
        title=f"{fmt.rows(counts['labeled'])} with a label",
        answer=f"{answer}, {' and '.join(by) or 'none'} were labeled in this batch.",
        more=told,
        tiles=(
            Tile("Labeled", fmt.count(counts["labeled"]), "rows"),
            Tile("By people", fmt.count(counts["by_people"]), "of this batch"),
            Tile("Not answered", fmt.count(counts["not_answered"]), "asked for again"),
        ),
        sections=[
            Section("Rows by label", build_label_bars(rows, content["label_column"])),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _describe_agreement(agreement: Mapping[str, Any], annotator: Any) -> str:
    share, low, high = (100 * agreement[name] for name in ("share", "low", "high"))
    kappa = "" if agreement["kappa"] is None else f", kappa {agreement['kappa']:.2f}"
    return (
        f"People agree with {annotator} on {share:.0f} % [{low:.0f}, {high:.0f}] of {fmt.rows(agreement['n'])}{kappa}."
    )


def build_joined_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `label join` wrote."""
    content, counts = manifest.content, manifest.content["counts"]
    rows = read_json_lines(folder / ROWS)
    unsure = sorted(rows, key=lambda row: float(row["confidence"]))[:N_SHOWN]
    how = "the label model" if content["how"] == "model" else "the majority"
    return Page(
        kind="joined labels",
        title=f"{len(content['rules'])} rules joined",
        answer=f"{fmt.rows(counts['labeled'])} have a label from {how}; on {fmt.count(counts['conflicts'])} of them "
        f"the rules disagree. {fmt.count(counts['unlabeled'])} have no label.",
        tiles=(
            Tile("Labeled", fmt.count(counts["labeled"]), f"{fmt.count(len(content['classes']))} labels"),
            Tile("Conflicts", fmt.count(counts["conflicts"]), fmt.share(counts["conflicts"], counts["labeled"])),
            Tile("Without a label", fmt.count(counts["unlabeled"]), "in unlabeled.jsonl"),
        ),
        sections=[
            Section("What each rule is worth", [_build_rules(content["rules"])]),
            Section("The least sure rows", [_build_examples(unsure, len(rows))]),
            Section("Rows by label", build_label_bars(rows, "label")),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _build_rules(rules: Mapping[str, Mapping[str, Any]]) -> Table:
    cells = [
        (
            name,
            fmt.count(rule["n"]),
            f"{100 * rule['coverage']:.0f} %",
            fmt.count(rule["conflicts"]),
            fmt.NOTHING if rule["accuracy"] is None else f"{100 * rule['accuracy']:.0f} %",
        )
        for name, rule in rules.items()
    ]
    columns = ("rule", "rows it labels", "coverage", "conflicts with others", "accuracy, estimated")
    return Table(caption="Rules", columns=columns, rows=cells, numeric=range(1, 5))


def _build_examples(rows: Sequence[Mapping[str, Any]], n: int) -> Block:
    examples = [
        Example(
            text=fmt.truncate(write_row(row, ("label", "confidence")), TEXT),
            reason=f"{row['label']} with confidence {float(row['confidence']):.2f}",
        )
        for row in rows
    ]
    return Examples(f"{len(examples)} of {fmt.rows(n)}", "All are in rows.jsonl.", examples)


def build_refined_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `label refine` wrote."""
    content, verdict = manifest.content, manifest.content["verdict"]
    weights = read_table(folder / "weights.parquet", ("row_id", "given", "label", "confidence", "is_learned"))
    changed = weights.filter(
        pl.col("given").is_not_null() & (pl.col("given") != pl.col("label")) & pl.col("is_learned")
    )
    pairs = (
        changed.group_by("given", "label")
        .agg(pl.len().alias("n"))
        .sort("n", "given", "label", descending=[True, False, False])
    )
    cells = [(given, label, fmt.count(n)) for given, label, n in pairs.head(N_SHOWN).iter_rows()]
    gap = verdict["difference"]
    table = Table(
        caption=f"On {fmt.rows(verdict['test_rows'])} of known label, {verdict['seeds']} seeds, paired, 95 %",
        columns=("", "accuracy"),
        rows=[
            ("weak labels learned", f"{100 * verdict['before']:.1f} %"),
            ("then self-trained", f"{100 * verdict['after']:.1f} %"),
            ("difference", f"{100 * gap['value']:+.1f} points [{100 * gap['low']:.1f}, {100 * gap['high']:.1f}]"),
        ],
        numeric=(1,),
    )
    used = "written" if verdict["helps"] else "would have been written"
    blocks: list[Block] = [
        Paragraph(f"Of the rows that {used}, {fmt.count(len(changed))} have a different label than before.")
    ]
    if cells:
        blocks.append(
            Table(caption="Most frequent changes", columns=("given", "refined", "rows"), rows=cells, numeric=(2,))
        )
    return Page(
        kind="refined labels",
        title="Self-training helps" if verdict["helps"] else "Self-training is left out",
        answer=f"{str(content['answer'])[:1].upper()}{str(content['answer'])[1:]}.",
        tiles=(
            Tile("Rows", fmt.count(content["counts"]["kept"]), "in rows.jsonl"),
            Tile("Confident", fmt.share(int(weights["is_learned"].sum()), len(weights)), fmt.rows(len(weights))),
        ),
        sections=[
            Section("The verdict", [table]),
            Section("What self-training changes", blocks),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )
