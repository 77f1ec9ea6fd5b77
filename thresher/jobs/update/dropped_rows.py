"""The table of the rows that did not enter a snapshot or left it, each with its reason."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl

from thresher.curation.pipeline import preview_rows
from thresher.dataset import Dataset
from thresher.jobs.snapshots.read import Pool
from thresher.jobs.snapshots.seen_ids import PackedIds, mask_known, pack_row_ids
from thresher.jobs.snapshots.table import FILE, ROW_ID, SOURCE
from thresher.jobs.sources.batches import Incoming
from thresher.jobs.update.core_set import CoreSet
from thresher.jobs.update.curate import Candidates
from thresher.numeric.arrays import Int64

RULE, BUDGET, CAP = "rule", "budget", "total"  # stages at which a row can leave
WAS_KEPT = "was_kept"
DROPPED_COLUMNS = {
    "row_id": pl.String,
    "source": pl.String,
    "file": pl.String,
    "line": pl.UInt64,
    "stage": pl.String,
    "rule": pl.String,
    "reason": pl.String,
    "explanation": pl.String,
    "duplicate_of": pl.String,
    "similarity": pl.Float32,
    WAS_KEPT: pl.Boolean,
    "preview": pl.String,
}
_COLUMNS = {name: kind for name, kind in DROPPED_COLUMNS.items() if name != WAS_KEPT}
_TYPED = [pl.col(name).cast(kind) for name, kind in _COLUMNS.items()]


def merge_drops(tables: Sequence[pl.DataFrame], old: PackedIds) -> pl.DataFrame:
    """Return tables of dropped rows as one, in which rows of the previous snapshot are marked.

    Args:
        tables: of `collect_rule_drops`, `collect_budget_drops` and `collect_cap_drops`.
        old: sorted ids of the rows of the previous snapshot: in a full run the rules see these
            again, too.
    """
    dropped = pl.concat([pl.DataFrame(schema=_COLUMNS), *tables])
    was_kept = pl.Series(WAS_KEPT, mask_known(pack_row_ids(dropped["row_id"]), old), dtype=pl.Boolean)
    return dropped.with_columns(was_kept).select(list(DROPPED_COLUMNS))


def collect_rule_drops(candidates: Candidates) -> list[pl.DataFrame]:
    """Return the new rows that rules dropped."""
    if candidates.curation is None:
        return []
    dropped, incoming = candidates.curation.dropped, candidates.incoming
    at = dropped["position"]
    located = dropped.with_columns(source=incoming.sources.gather(at), file=incoming.files.gather(at))
    return [located.with_columns(stage=pl.lit(RULE)).select(_TYPED)]


def collect_budget_drops(candidates: Candidates, left_out: pl.DataFrame) -> pl.DataFrame:
    """Return the new rows that the budget left out, with what the selection says of them."""
    if not left_out.height:
        return pl.DataFrame(schema=_COLUMNS)
    places = _describe_new(candidates.incoming, candidates.positions).select("row_id", "source", "file")
    return (
        left_out.drop("file")
        .join(places, on="row_id", how="left", maintain_order="left")
        .with_columns(stage=pl.lit(BUDGET), rule=pl.lit(None, pl.String), duplicate_of=pl.col("covered_by"))
        .select(_TYPED)
    )


def describe_unfit(rows: Dataset, why: str) -> pl.DataFrame:
    """Return rows of which a budget keeps none, as `Subset.dropped` has them."""
    located = rows.frame.select("row_id", pl.col("file").cast(pl.String), "line", preview=preview_rows(rows))
    return located.with_columns(
        reason=pl.lit("over-budget"),
        explanation=pl.lit(why),
        covered_by=pl.lit(None, pl.String),
        similarity=pl.lit(None, pl.Float32),
    )


def collect_cap_drops(candidates: Candidates, positions: Int64, core: CoreSet) -> pl.DataFrame:
    """Return the rows at some positions that `total` leaves out, each with its representative."""
    new = _describe_new(candidates.incoming, candidates.positions)
    facts = (new if candidates.pool is None else pl.concat([_describe_old(candidates.pool), new]))[positions]
    out = np.setdiff1d(np.arange(len(positions)), core.kept)
    covered = facts[out].with_columns(
        stage=pl.lit(CAP),
        rule=pl.lit(None, pl.String),
        reason=pl.lit("covered"),
        duplicate_of=facts["row_id"].gather(core.representative[out]),
        similarity=pl.Series(core.cosine[out]),
    )
    explanation = pl.format(
        "kept row {} represents it (cosine {})", pl.col("duplicate_of"), pl.col("similarity").round(3)
    )
    return covered.with_columns(explanation=explanation).select(_TYPED)


def _describe_old(pool: Pool) -> pl.DataFrame:
    """Return id, source, file, line and beginning of the old rows."""
    own = {"row_id": ROW_ID, "source": SOURCE, "file": FILE}
    columns = {name: pl.Series(pool.table[column].to_pylist(), dtype=pl.String) for name, column in own.items()}
    return pl.DataFrame(columns).with_columns(line=pl.lit(None, pl.UInt64), preview=preview_rows(pool.rows))


def _describe_new(incoming: Incoming, at: Int64) -> pl.DataFrame:
    """Return the same of the new rows at some positions."""
    if incoming.rows is None:
        return pl.DataFrame(schema={name: _COLUMNS[name] for name in ("row_id", "source", "file", "line", "preview")})
    frame = incoming.rows.frame
    return pl.DataFrame(
        {
            "row_id": frame["row_id"].gather(at),
            "source": incoming.sources.gather(at),
            "file": incoming.files.gather(at),
            "line": frame["line"].gather(at).cast(pl.UInt64),
            "preview": preview_rows(incoming.rows).gather(at),
        }
    )
