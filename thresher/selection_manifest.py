"""The manifest of a subset: what was asked, what came out, and where."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.dataset.provenance import schema_entry, source_entries, source_places
from thresher.manifest import FORMAT, Manifest, digest, versions
from thresher.scores import Scores
from thresher.selection_request import Request


def subset_manifest(
    request: Request,
    scores: Scores,
    kept: NDArray[np.int64],
    dropped: pl.DataFrame,
    feature_notes: Mapping[str, Mapping[str, int]],
    seconds: Mapping[str, float],
    *,
    depends_on_seed: bool,
) -> Manifest:
    """Return the manifest.

    Args:
        request: what was asked.
        scores: of the pool's rows.
        kept: (k,) positions in the pool.
        dropped: one row per dropped row, with `reason` and `explanation`.
        feature_notes: by feature, such as the number of rows that were cut.
        seconds: spent on each part.
        depends_on_seed: whether another seed could have given another subset.
    """
    pool = request.pool
    excluded = dropped.filter(pl.col("reason") == "excluded")["explanation"]
    objective = scores.objective
    content = {
        "format": FORMAT,
        "kind": "subset",
        "identity": digest(request.identity()),
        **request.settings(),
        "inputs": source_entries(pool),
        "schema": schema_entry(pool),
        "id_column": pool.id_column,
        "counts": {
            "read": pool.n_read,
            "rejected": pool.rejected.height,
            "rejected_by_reason": _counted(pool.rejected["reason"]),
            "usable": len(pool),
            "kept": len(kept),
            "dropped": dropped.height,
            "dropped_by_reason": _counted(dropped["reason"]),
            "excluded_by_reason": _counted(excluded),
        },
        "depends_on_seed": depends_on_seed,
        "feature_notes": {name: dict(notes) for name, notes in feature_notes.items()},
        "objective": None if objective is None or not len(objective) else float(objective[-1]),
        "notes": dict(scores.notes or {}),
        "kept_rows": digest(pool.frame["row_id"].gather(kept).to_list()),
        "versions": versions(),
        "run": {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "inputs": source_places(pool),
        },
    }
    return Manifest(content)


def _counted(reasons: pl.Series) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first."""
    return dict(reasons.value_counts().sort("count", reasons.name, descending=[True, False]).iter_rows())
