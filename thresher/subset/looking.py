"""What a person asks of a subset: why this row, what with another budget, what did it do?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.artifacts.manifest import Manifest, digest
from thresher.dataset.rejection import count_values
from thresher.errors import InputError, MissingExtraError, NotFoundError, RowIndexError
from thresher.subset.budget import Budget, parse_budget
from thresher.subset.cut import build_dropped_table, build_rank_column, build_verdict_table, cut
from thresher.subset.scores import EXISTING, Scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from thresher.dataset import Dataset

N_GROUPS = 12  # bars of a plot


class Chosen(Protocol):
    """A subset, as these functions read it; `Subset` describes the members."""

    @property
    def pool(self) -> Dataset: ...  # noqa: D102
    @property
    def scores(self) -> Scores: ...  # noqa: D102
    @property
    def kept(self) -> NDArray[np.int64]: ...  # noqa: D102
    @property
    def dropped(self) -> pl.DataFrame: ...  # noqa: D102
    @property
    def manifest(self) -> Manifest: ...  # noqa: D102


def explain_row(subset: Chosen, row: int | str) -> str:
    """Return in one sentence why a row was kept or dropped.

    Args:
        subset: with the row's pool.
        row: its number in the pool, from 0, or its id.

    Raises:
        RowIndexError: the pool has not so many rows.
        NotFoundError: no row has this id.
    """
    ids = subset.pool.frame["row_id"]
    if isinstance(row, str):
        position = ids.index_of(row)
        if position is None:
            raise NotFoundError(f"row '{row}': no row of the pool has this id; give a row_id or a number")
    else:
        position = row
    if not -len(ids) <= position < len(ids):
        raise RowIndexError(f"row {position}: the pool has {len(ids)} rows, numbered from 0; give a smaller number")
    position %= len(ids)
    row_id, file, line = subset.pool.frame.select("row_id", pl.col("file").cast(pl.String), "line").row(position)
    where = f"row {position} ({file}:{line})"
    if position in set(subset.kept.tolist()):
        rank = build_rank_column(subset.scores)[position]
        return f"{where} is kept: rank {rank:,} of {len(ids):,} by {subset.scores.by}"
    reason, explanation = subset.dropped.filter(pl.col("row_id") == row_id).select("reason", "explanation").row(0)
    return f"{where} is dropped ({reason}): {explanation}"


def resize(subset: Chosen, budget: int | float | str | Budget) -> tuple[NDArray[np.int64], pl.DataFrame, Manifest]:
    """Return what the same ranking gives with another budget; nothing is computed.

    Args:
        subset: without a quota.
        budget: rows, a share, or a threshold on the score.

    Returns:
        `kept`, `dropped` and `manifest` of the subset.

    Raises:
        InputError: the budget is in tokens, needs rows that were not ranked, or there is a quota.
    """
    wanted = parse_budget(budget)
    content = subset.manifest.content
    if wanted.unit == "tokens":
        raise InputError(f"resize: rows, a share or a threshold is required, got {wanted}; call select for tokens")
    if content.get("quota"):
        raise InputError("resize: a subset without a quota is required, got one with; call select again")
    scores = _restore_excluded(subset, _restore_cover(subset))
    n, n_ranked = len(scores), scores.n_ranked
    if wanted.unit != "threshold" and wanted.n_rows(n) > n_ranked:
        raise InputError(
            f"resize: at most the {n_ranked:,} rows that {scores.by} ranked for budget {content['budget']} can be "
            f"kept, got {wanted}; call select with the larger budget, and resize what it returns"
        )
    cut_rows = cut(scores, wanted)
    verdicts = build_verdict_table(scores.row_id, scores, cut_rows)
    kept = cut_rows.kept if content["order"] == "rank" else np.sort(cut_rows.kept)
    dropped = build_dropped_table(subset.pool.frame, verdicts, len(kept), wanted)
    counts = {
        **content["counts"],
        "kept": len(kept),
        "dropped": n - len(kept),
        "dropped_by_reason": dict(count_values(verdicts["reason"].drop_nulls())),
    }
    changed = {
        **content,
        "identity": digest({"resized": subset.manifest.identity, "budget": str(wanted)}),
        "budget": str(wanted),
        "counts": counts,
        "kept_rows": digest(subset.pool.frame["row_id"].gather(kept).to_list()),
        "objective": None if scores.objective is None else float(scores.objective[len(kept) - 1]),
        "resized_from": {"identity": subset.manifest.identity, "budget": content["budget"]},
    }
    changed.pop("shortfall", None)
    return kept, dropped, Manifest(changed)


def _restore_cover(subset: Chosen) -> Scores:
    """Return the scores with who stands for whom, which a folder tells in its table of drops."""
    scores = subset.scores
    if scores.covered_by is not None or not subset.dropped["reason"].str.starts_with("covered").any():
        return scores
    covered = subset.dropped.filter(pl.col("reason").str.starts_with("covered"))
    places = pl.DataFrame({"row_id": scores.row_id, "at": np.arange(len(scores))})
    at = covered.select("row_id").join(places, on="row_id", how="left", maintain_order="left")["at"].to_numpy()
    ids = covered.select(row_id="covered_by")
    by = ids.join(places, on="row_id", how="left", maintain_order="left")["at"].fill_null(EXISTING).to_numpy()
    covered_by = np.full(len(scores), -1, dtype=np.int64)
    covered_by[at] = by
    covered_by[subset.kept] = subset.kept
    similarity = np.full(len(scores), np.nan, dtype=np.float32)
    similarity[at] = covered["similarity"].fill_null(np.nan).to_numpy()
    return replace(scores, covered_by=covered_by, similarity=similarity)


def _restore_excluded(subset: Chosen, scores: Scores) -> Scores:
    """Return the scores with why rows have no rank, which a folder tells in its table of drops."""
    excluded = subset.dropped.filter(reason="excluded").select("row_id", "explanation").unique("row_id")
    if scores.excluded is not None or not len(excluded):
        return scores
    why = pl.DataFrame({"row_id": scores.row_id}).join(excluded, on="row_id", how="left", maintain_order="left")
    return replace(scores, excluded=why["explanation"])


def plot_subset(subset: Chosen) -> Figure:
    """Draw what the choice did: the share kept of each label, or of each length; and the reasons.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "Subset.plot", "report") from None
    is_kept = np.zeros(len(subset.pool), dtype=bool)
    is_kept[subset.kept] = True
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    groups, reasons = figure.subplots(1, 2)
    _draw_groups(groups, subset, is_kept)
    counts = subset.dropped["reason"].value_counts().sort("count").rows()
    reasons.barh([name for name, _ in counts], [count for _, count in counts], height=0.5, color="0.6")
    reasons.set(title="dropped, by reason", xlabel="rows")
    return figure


def _draw_groups(axes: Any, subset: Chosen, is_kept: np.ndarray[Any, np.dtype[np.bool_]]) -> None:
    rows = subset.pool.frame.select("prompt", "response").with_columns(kept=pl.Series(is_kept))
    if subset.pool.kind == "classification":
        table = rows.group_by("response").agg(pl.len(), pl.col("kept").sum()).sort("len", "response", descending=True)
        shown = table.head(N_GROUPS)
        names = shown["response"].str.slice(0, 24).to_list()
        more = len(table) - len(shown)
        axes.barh(names, shown["len"], color="0.8", label="pool")
        axes.barh(names, shown["kept"], color="tab:blue", label="kept")
        axes.invert_yaxis()
        axes.set(title=f"rows by label{f' (the {N_GROUPS} largest of {len(table)})' if more else ''}", xlabel="rows")
    else:
        length = rows.select(pl.sum_horizontal(pl.col("prompt", "response").str.len_chars().fill_null(0)))
        characters = length.to_series().to_numpy()
        low, high = characters.min(), np.quantile(characters, 0.99)
        edges = np.linspace(low, max(high, low + 1), 25)
        characters = np.minimum(characters, edges[-1])  # the last bar holds the longest, too
        axes.hist(characters, edges, color="0.8", label="pool")
        axes.hist(characters[is_kept], edges, color="tab:blue", label="kept")
        axes.set(title="rows by length", xlabel="characters", ylabel="rows")
    axes.legend()
