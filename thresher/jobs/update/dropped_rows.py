"""The table of the rows that did not enter a snapshot or left it, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from thresher.curation.pipeline import CurationResult, preview_rows
from thresher.jobs.snapshots.read import Pool
from thresher.jobs.snapshots.seen_ids import PackedIds, mask_known, pack_row_ids
from thresher.jobs.snapshots.table import FILE, ROW_ID, SOURCE
from thresher.jobs.sources.incoming import Incoming
from thresher.jobs.update.core_set import CoreSet
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


def merge_drops(tables: Sequence[pl.DataFrame], old: PackedIds) -> pl.DataFrame:
    """Return tables of departures as one, in which rows of the snapshot before are told from new ones.

    Args:
        tables: of `collect_rule_drops`, `collect_budget_drops` and `collect_cap_drops`.
        old: sorted names of the rows of the snapshot before. In a full run the rules judge these
            anew, too.
    """
    found = pl.concat([pl.DataFrame(schema=_COLUMNS), *tables])
    was_kept = pl.Series(WAS_KEPT, mask_known(pack_row_ids(found["row_id"]), old), dtype=pl.Boolean)
    return found.with_columns(was_kept).select(list(DROPPED_COLUMNS))


def collect_rule_drops(incoming: Incoming, judgement: CurationResult) -> pl.DataFrame:
    """Return the new rows that rules dropped."""
    at = judgement.dropped["position"]
    return judgement.dropped.with_columns(
        source=incoming.sources.gather(at),
        file=incoming.files.gather(at),
        stage=pl.lit(RULE),
    ).select(_typed())


def _typed() -> list[pl.Expr]:
    return [pl.col(name).cast(kind) for name, kind in _COLUMNS.items()]


def collect_budget_drops(incoming: Incoming, at: Int64, why: pl.DataFrame) -> pl.DataFrame:
    """Return the new rows that the budget left out.

    Args:
        incoming: new rows.
        at: positions of those that passed the rules.
        why: what the selection says of those it dropped.
    """
    if not why.height:
        return pl.DataFrame(schema=_COLUMNS)
    ids = incoming.rows.frame["row_id"].gather(at) if incoming.rows is not None else pl.Series([], dtype=pl.String)
    where = pl.DataFrame({"row_id": ids, "source": incoming.sources.gather(at), "file": incoming.files.gather(at)})
    return (
        why.drop("file")
        .join(where, on="row_id", how="left", maintain_order="left")
        .with_columns(
            stage=pl.lit(BUDGET),
            rule=pl.lit(None, pl.String),
            duplicate_of=pl.col("covered_by"),
        )
        .select(_typed())
    )


def collect_cap_drops(pool: Pool | None, incoming: Incoming, at: Int64, chosen: Int64, core: CoreSet) -> pl.DataFrame:
    """Return the rows of the union that the cap leaves out, each with the row that stands for it."""
    facts = _union_facts(pool, incoming, at)[chosen]
    is_out = np.ones(len(chosen), np.bool_)
    is_out[core.kept] = False
    out = np.flatnonzero(is_out)
    return (
        facts[out]
        .with_columns(
            stage=pl.lit(CAP),
            rule=pl.lit(None, pl.String),
            reason=pl.lit("covered"),
            duplicate_of=facts["row_id"].gather(core.representative[out]),
            similarity=pl.Series(core.cosine[out]),
        )
        .with_columns(
            explanation=pl.format(
                "kept row {} stands for it (cosine {})", pl.col("duplicate_of"), pl.col("similarity").round(3)
            )
        )
        .select(_typed())
    )


def _union_facts(pool: Pool | None, incoming: Incoming, at: Int64) -> pl.DataFrame:
    """Return name, place and beginning of the old rows and the new ones that passed."""
    parts = []
    if pool is not None:
        columns: Mapping[str, Any] = {"row_id": ROW_ID, "source": SOURCE, "file": FILE}
        parts.append(
            pl.DataFrame(
                {
                    **{
                        new: pl.Series(new, pool.table[old].to_pylist(), dtype=pl.String)
                        for new, old in columns.items()
                    },
                    "line": pl.Series([None] * len(pool.rows), dtype=pl.UInt64),
                    "preview": preview_rows(pool.rows),
                }
            )
        )
    if incoming.rows is not None:
        parts.append(
            pl.DataFrame(
                {
                    "row_id": incoming.rows.frame["row_id"].gather(at),
                    "source": incoming.sources.gather(at),
                    "file": incoming.files.gather(at),
                    "line": incoming.rows.frame["line"].gather(at).cast(pl.UInt64),
                    "preview": preview_rows(incoming.rows).gather(at),
                }
            )
        )
    return pl.concat(parts)
