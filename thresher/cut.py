"""The cut: a ranking and a budget become kept rows, and every other row gets its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.budget import Budget, Quota
from thresher.errors import InputError
from thresher.scores import EXISTING, Scores

if TYPE_CHECKING:
    from thresher.dataset import Dataset

REASONS = {
    "covered": "a kept row stands for it",
    "covered-by-existing": "a row you have already stands for it",
    "over-budget": "ranked after the last row that fits the budget",
    "over-quota": "its group has its quota of rows",
    "below-threshold": "its score is not above the threshold",
    "excluded": "the method gives it no place",
}


@dataclass(frozen=True, kw_only=True)
class Cut:
    """Which rows of a ranking are kept.

    Attributes:
        kept: (k,) positions, best first.
        reason: (n,) index into REASONS for each dropped row, -1 for a kept one.
    """

    kept: NDArray[np.int64]
    reason: NDArray[np.int8]


def cut(
    scores: Scores,
    budget: Budget,
    *,
    lengths: NDArray[np.int64] | None = None,
    quota: Quota | None = None,
    codes: NDArray[np.int64] | None = None,
    names: list[str] | None = None,
) -> Cut:
    """Cut a ranking to a budget. A larger budget keeps the same rows and more.

    Args:
        scores: of n rows.
        budget: how much to keep. Tokens: rows are kept in order of rank until the next one would not fit.
        lengths: (n,) tokens of each row, for a budget in tokens.
        quota: wanted proportions of the values of a column.
        codes: (n,) group of each row, for a quota.
        names: the value behind each code, for a quota.

    Raises:
        InputError: the budget does not fit the pool.
    """
    n, ranking = len(scores), scores.ranking()
    if not len(ranking) and scores.excluded is not None:
        why = scores.excluded.value_counts().sort("count", descending=True)
        raise InputError(f"{scores.by}: at least one row must be left, but all {n} are excluded ({why.row(0)[0]})")
    by_score = ranking
    if quota is not None:
        if codes is None or names is None:
            raise AssertionError("a quota needs codes and names")
        ranking = quota.reorder(by_score, codes, names)
        if not len(ranking):
            raise InputError(f"quota: {quota} allows no row of the {n} in the pool; raise a limit")
    if budget.unit == "threshold":
        kept = ranking[scores.value[ranking] > budget.amount]
        if not len(kept):
            best = f"the highest is {scores.value.max():.4g}"
            raise InputError(f"budget: {budget} keeps no row of the {n} scored by {scores.by}; {best}")
    elif budget.unit == "tokens":
        if lengths is None:
            raise AssertionError("a budget in tokens needs the lengths")
        budget.n_rows(n, lengths)
        kept = ranking[: int(np.searchsorted(np.cumsum(lengths[ranking]), budget.amount, side="right"))]
        if not len(kept):
            raise InputError(
                f"budget: must hold at least the first row of the ranking ({int(lengths[ranking[0]])} tokens), "
                f"got {budget.amount:.0f} tokens; choose more"
            )
    else:
        kept = ranking[: budget.n_rows(n)]
    passed_over = np.empty(0, np.int64) if quota is None else _passed_over(scores, by_score, ranking, kept, budget)
    return Cut(kept=kept, reason=_reasons(scores, kept, passed_over, threshold=budget.unit == "threshold"))


def _passed_over(
    scores: Scores, by_score: NDArray[np.int64], allowed: NDArray[np.int64], kept: NDArray[np.int64], budget: Budget
) -> NDArray[np.int64]:
    """Return the rows that the budget alone would not have dropped, but a quota did (kept rows may be among them).

    Args:
        scores: of n rows.
        by_score: (m,) positions of the ranked rows, best first.
        allowed: (<= m,) those that the quota allows, in its order.
        kept: positions of the kept rows.
        budget: a threshold drops the rows below it; another budget, when it is used up, those behind the last kept row.
    """
    if budget.unit == "threshold":
        return by_score[scores.value[by_score] > budget.amount]
    if len(kept) == len(allowed):
        return by_score
    return by_score[: int(np.flatnonzero(np.isin(by_score, kept))[-1])]


def _reasons(
    scores: Scores, kept: NDArray[np.int64], passed_over: NDArray[np.int64], *, threshold: bool
) -> NDArray[np.int8]:
    code = {name: number for number, name in enumerate(REASONS)}
    reason = np.full(len(scores), code["below-threshold" if threshold else "over-budget"], dtype=np.int8)
    is_kept = np.zeros(len(scores), dtype=bool)
    is_kept[kept] = True
    if scores.covered_by is not None:
        covered = scores.covered_by >= 0
        covered[covered] = is_kept[scores.covered_by[covered]]
        reason[covered] = code["covered"]
        reason[scores.covered_by == EXISTING] = code["covered-by-existing"]
    reason[passed_over] = code["over-quota"]
    if scores.excluded is not None:
        reason[scores.excluded.is_not_null().to_numpy()] = code["excluded"]
    reason[is_kept] = -1
    return reason


def rank_column(scores: Scores) -> pl.Series:
    """Return the rank of each row, 1 = best, null where the method did not rank it."""
    ranking = scores.ranking()
    rank = np.zeros(len(scores), dtype=np.int64)
    rank[ranking] = np.arange(1, len(ranking) + 1)
    return pl.Series("rank", rank, dtype=pl.Int64).replace(0, None)


def dropped_table(pool: Dataset, scores: Scores, made: Cut, budget: Budget) -> pl.DataFrame:
    """Return one row per dropped row of the pool, with the reason as a name and as a sentence."""
    names = list(REASONS)
    ids = pool.frame["row_id"]
    dropped = np.flatnonzero(made.reason >= 0)
    covered_by = pl.Series("covered_by", [None], dtype=pl.String).new_from_index(0, len(dropped))
    similarity = pl.Series("similarity", [None], dtype=pl.Float32).new_from_index(0, len(dropped))
    if scores.covered_by is not None:
        position = scores.covered_by[dropped]
        is_covered = pl.Series((position >= 0) & (made.reason[dropped] == names.index("covered")))
        covered_by = ids.gather(np.maximum(position, 0)).zip_with(is_covered, covered_by)
        if scores.similarity is not None:
            is_covered |= pl.Series(made.reason[dropped] == names.index("covered-by-existing"))
            similarity = pl.Series(scores.similarity[dropped]).zip_with(is_covered, similarity)
    table = pl.DataFrame(
        {
            "row_id": ids.gather(dropped),
            "file": pool.frame["file"].gather(dropped).cast(pl.String),
            "line": pool.frame["line"].gather(dropped),
            "reason": pl.Series(names).gather(made.reason[dropped].astype(np.int64)),
            "value": scores.value[dropped],
            "rank": rank_column(scores).gather(dropped),
            "covered_by": covered_by,
            "similarity": similarity,
            "preview": pool.frame["prompt"].gather(dropped).str.slice(0, 200),
        }
    )
    excluded = pl.lit(None) if scores.excluded is None else scores.excluded.gather(dropped)
    explanation = _explanation(excluded, len(made.kept), budget)
    return table.with_columns(explanation=explanation).select(
        "row_id", "file", "line", "reason", "explanation", "value", "rank", "covered_by", "similarity", "preview"
    )


def _explanation(excluded: pl.Series | pl.Expr, n_kept: int, budget: Budget) -> pl.Expr:
    """Return the reason of each dropped row as a sentence."""
    cosine = (
        pl.when(pl.col("similarity").is_null())
        .then(pl.lit(""))
        .otherwise(pl.format(" (cosine {})", pl.col("similarity").round(3)))
    )
    return (
        pl.when(pl.col("reason") == "covered")
        .then(pl.format("kept row {} stands for it{}", pl.col("covered_by"), cosine))
        .when(pl.col("reason") == "covered-by-existing")
        .then(pl.format("a row you have already stands for it{}", cosine))
        .when(pl.col("reason") == "excluded")
        .then(excluded)
        .when(pl.col("reason") == "below-threshold")
        .then(pl.format(f"its score {{}} does not satisfy {budget}", pl.col("value").round(6)))
        .when(pl.col("reason") == "over-quota")
        .then(pl.format("ranked {}, and its group has its quota of rows", pl.col("rank")))
        .when(pl.col("rank").is_null())
        .then(pl.lit(f"not among the {n_kept} rows picked first"))
        .otherwise(pl.format(f"ranked {{}}, and {n_kept} rows fit the budget {budget}", pl.col("rank")))
    )
