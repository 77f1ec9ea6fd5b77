"""Rows of a subset's page: kept and dropped ones side by side, and examples of each reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.dataset import Dataset
from thresher.features import column_values
from thresher.numeric.arrays import Int64
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_table
from thresher.reporting.page import Block, Example, Examples, Pairs, Table
from thresher.reporting.pages.rows.pool import Pool, read_pool
from thresher.reporting.pages.rows.pool_map import count_groups
from thresher.subset.subset import list_table_files

N_EXAMPLES = 5  # of each reason
N_PAIRS = 6  # of kept and dropped rows
MAX_GROUPS = 25  # of a column, in the table of the balance
TEXT = 320  # letters of an example
SCORES = ("row_id", "value", "rank", "position")
DROPPED = ("row_id", "file", "line", "reason", "explanation", "value", "rank", "covered_by", "similarity", "preview")
REJECTED = {"file": pl.String, "line": pl.UInt64, "reason": pl.String, "preview": pl.String}


@dataclass(frozen=True, kw_only=True)
class SubsetFolder:
    """The content of a folder that `select` wrote.

    Attributes:
        content: of the manifest.
        scores: of all usable rows.
        dropped: rows with their reasons.
        rejected: rows that could not be read.
        pool: the rows themselves, where they still are.
        kept: (k,) positions in the pool, ascending; empty when the pool is gone.
    """

    content: Mapping[str, Any]
    scores: pl.DataFrame
    dropped: pl.DataFrame
    rejected: pl.DataFrame
    pool: Pool
    kept: Int64

    def find_texts(self, row_ids: pl.Series) -> list[str | None]:
        """Return the texts of rows, None for a row that the pool lacks or where it is gone."""
        if self.pool.rows is None:
            return [None] * len(row_ids)
        positions = self.pool.positions(row_ids)
        texts = self.pool.rows.take(np.maximum(positions, 0)).texts().to_list()
        return [text if position >= 0 else None for text, position in zip(texts, positions, strict=True)]


def read_subset_folder(folder: Path, manifest: Manifest) -> SubsetFolder:
    """Read what the page shows."""
    scores = _read_shards(folder, "scores.parquet", SCORES)
    paths = [path for path in list_table_files(folder, "rejected.jsonl") if path.stat().st_size]
    rejected = [pl.DataFrame(schema=REJECTED), *(pl.read_ndjson(path, schema=REJECTED) for path in paths)]
    pool = read_pool(manifest.content, row_ids=scores["row_id"])
    kept_ids = scores.filter(pl.col("position").is_not_null())["row_id"]
    return SubsetFolder(
        content=manifest.content,
        scores=scores,
        dropped=_read_shards(folder, "dropped.parquet", DROPPED),
        rejected=pl.concat(rejected),
        pool=pool,
        kept=np.empty(0, np.int64) if pool.rows is None else np.sort(pool.positions(kept_ids)),
    )


def _read_shards(folder: Path, name: str, columns: Sequence[str]) -> pl.DataFrame:
    """Return a table, which is one file or one for each shard of the pool."""
    return pl.concat([read_table(path, columns) for path in list_table_files(folder, name) or [folder / name]])


def list_group_columns(pool: Dataset) -> list[str]:
    """Return the columns by which rows can be grouped: label and source, where there are some."""
    columns = ["label"] if pool.kind == "classification" else []
    return [*columns, "source"] if "source" in pool.column_names else columns


def build_balance(pool: Dataset, kept: Int64, column: str) -> Table:
    """Return what is kept of each value of a column, and its share before and after."""
    table = count_groups(pool, kept, column)
    cells = [
        (
            fmt.truncate(group, 60) or "(none)",
            fmt.count(n),
            fmt.count(n_kept),
            fmt.share(n_kept, n),
            f"{100 * n / len(pool):.1f} → {100 * n_kept / len(kept):.1f}{fmt.PERCENT}",
        )
        for group, n, n_kept in table.head(MAX_GROUPS).iter_rows()
    ]
    more = f", the {MAX_GROUPS} largest of {len(table):,}" if len(table) > MAX_GROUPS else ""
    return Table(
        caption=f"How the selection changes each {column}{more}",
        columns=(column, "pool", "kept", "share kept", "share of pool → of kept"),
        rows=cells,
        numeric=range(1, 5),
    )


def build_pairs(subset: SubsetFolder) -> list[Block]:
    """Return kept rows, each beside a dropped one that it represents, or else of the same label.

    Of each of the largest labels (or sources), the kept row that was picked first is shown. Without
    either, rows from the first to the last pick.
    """
    pool = subset.pool.rows
    if pool is None or not len(subset.dropped) or not len(subset.kept):
        return []
    groups = next((column_values(pool, column) for column in list_group_columns(pool)), None)
    rows = pool.frame.select("row_id").with_columns(pl.Series("group", [""] * len(pool) if groups is None else groups))
    kept = subset.scores.filter(pl.col("position").is_not_null()).sort("position").join(rows, on="row_id")
    dropped = subset.dropped.sort("similarity", "rank", descending=[True, False], nulls_last=True)
    dropped = dropped.cast({"covered_by": pl.String}).join(rows, on="row_id", maintain_order="left")
    if groups is None:
        chosen = kept[np.unique(np.linspace(0, len(kept) - 1, min(N_PAIRS, len(kept))).astype(int)).tolist()]
    else:
        sizes = rows.group_by("group").len("pool")
        firsts = kept.unique("group", keep="first", maintain_order=True).join(sizes, on="group")
        chosen = firsts.sort("pool", "group", descending=[True, False]).head(N_PAIRS)
    found = []
    for row in chosen.iter_rows(named=True):
        beside = dropped.filter(pl.col("covered_by") == row["row_id"]).head(1)
        if beside.is_empty():
            beside = dropped.filter(pl.col("group") == row["group"]).head(1)
        if not beside.is_empty():
            found.append((row, beside.row(0, named=True)))
            dropped = dropped.filter(pl.col("row_id") != beside["row_id"][0])
    return [_write_pairs(subset, found, len(kept))] if found else []


def _write_pairs(subset: SubsetFolder, found: list[tuple[dict[str, Any], dict[str, Any]]], n_kept: int) -> Pairs:
    kept_texts = subset.find_texts(pl.Series([kept["row_id"] for kept, _ in found]))
    dropped_texts = subset.find_texts(pl.Series([dropped["row_id"] for _, dropped in found]))
    pairs = []
    for (kept, dropped), kept_text, dropped_text in zip(found, kept_texts, dropped_texts, strict=True):
        group = f"{fmt.truncate(kept['group'], 60)} · " if kept["group"] else ""
        pick = f"{group}number {kept['position'] + 1:,} of {n_kept:,} kept rows"
        is_same = dropped["covered_by"] == kept["row_id"]
        reason = f"{group}{_explain(dropped, kept_text if is_same else None)}"
        pairs.append(
            (
                Example(text=fmt.truncate(kept_text or "", TEXT), reason=pick),
                Example(
                    text=fmt.truncate(dropped_text or dropped["preview"] or "", TEXT),
                    reason=reason,
                    place=write_place(dropped),
                ),
            )
        )
    return Pairs("Kept rows next to dropped ones", ("kept", "dropped"), pairs)


def write_place(row: Mapping[str, Any]) -> str:
    """Return where a row was read: its file and line."""
    return f"{Path(row['file']).name}, line {row['line']:,}"


def build_examples(subset: SubsetFolder, reason: str) -> Examples:
    """Return a few dropped rows: the most and least similar, or those closest to the budget."""
    table = subset.dropped.filter(pl.col("reason") == reason)
    if reason == "covered" and table["similarity"].is_not_null().any():
        shown = table.sort("similarity", "row_id", descending=[True, False], nulls_last=True)
        if len(shown) > N_EXAMPLES:
            n_similar = (N_EXAMPLES + 1) // 2
            shown = pl.concat([shown.head(n_similar), shown.tail(N_EXAMPLES - n_similar)])
        note = "The most similar pairs, and the least covered rows."
    else:
        shown = table.sort("rank", "row_id", nulls_last=True).head(N_EXAMPLES)
        note = "The ones closest to being kept."
    texts, kept_texts = subset.find_texts(shown["row_id"]), subset.find_texts(shown["covered_by"])
    examples = [
        Example(
            text=fmt.truncate(text if text is not None else row["preview"] or "", TEXT),
            reason=_explain(row, kept_text),
            beside=None if kept_text is None else fmt.truncate(kept_text, TEXT),
            place=write_place(row),
        )
        for row, text, kept_text in zip(shown.iter_rows(named=True), texts, kept_texts, strict=True)
    ]
    return Examples(f"{reason}: {fmt.rows(len(table))}", note if len(table) > N_EXAMPLES else "", examples)


def _explain(row: Mapping[str, Any], kept_text: str | None) -> str:
    if kept_text is not None and row["similarity"] is not None:
        return f"cosine {row['similarity']:.3f} with the kept row"
    return str(row["explanation"])
