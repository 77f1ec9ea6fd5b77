"""The cut: a ranking and a budget become kept rows, and every other row gets its reason."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.errors import InputError, NothingKeptError
from thresher.subset.budget import Budget
from thresher.subset.quota import Quota
from thresher.subset.scores import EXISTING, Scores

REASONS = {
    "covered": "a kept row represents it",
    "covered-by-existing": "an existing row represents it",
    "over-budget": "ranked below the last row that fits the budget",
    "over-quota": "its group's quota is full",
    "below-threshold": "its score is not above the threshold",
    "excluded": "the method cannot rank it",
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
        budget: how much to keep. Tokens: rows are kept in order of rank until the next one would
            not fit.
        lengths: (n,) tokens of each row, for a budget in tokens.
        quota: wanted proportions of the values of a column.
        codes: (n,) group of each row, for a quota.
        names: the value behind each code, for a quota.

    Raises:
        InputError: the budget does not fit the pool; NothingKeptError where it keeps no row.
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
            raise NothingKeptError(f"budget: {budget} keeps no row of the {n} scored by {scores.by}; {best}")
    elif budget.unit == "tokens":
        if lengths is None:
            raise AssertionError("a budget in tokens needs the lengths")
        budget.n_rows(n, lengths)
        kept = ranking[: int(np.searchsorted(np.cumsum(lengths[ranking]), budget.amount, side="right"))]
        if not len(kept):
            raise NothingKeptError(
                f"budget: must allow at least the first row of the ranking ({int(lengths[ranking[0]])} tokens), "
                f"got {budget.amount:.0f} tokens; choose more"
            )
    else:
        kept = ranking[: budget.n_rows(n)]
    passed_over = (
        np.empty(0, np.int64) if quota is None else _find_passed_over_rows(scores, by_score, ranking, kept, budget)
    )
    return Cut(kept=kept, reason=_reasons(scores, kept, passed_over, threshold=budget.unit == "threshold"))


def describe_shortfall(cut_rows: Cut, scores: Scores, budget: Budget, quota: Quota | None = None) -> str | None:
    """Return why fewer rows are kept than were asked for, in one sentence; None where enough are.

    Limits of a quota ask for fewer themselves, and a threshold asks for no number.

    Args:
        cut_rows: what is kept.
        scores: of n rows.
        budget: that was asked for.
        quota: of the values of a column.
    """
    n, n_kept = len(scores), len(cut_rows.kept)
    if budget.unit == "threshold" or (quota is not None and quota.limits):
        return None
    code = {name: number for number, name in enumerate(REASONS)}
    n_excluded = int((cut_rows.reason == code["excluded"]).sum())
    if budget.unit == "tokens":
        if n_kept + n_excluded < n or not n_excluded:
            return None
        text = f"{n_kept:,} rows were kept, which hold fewer than the {budget.amount:,.0f} tokens asked for"
    else:
        n_asked = budget.n_rows(n)
        if n_kept >= n_asked:
            return None
        text = f"{n_kept:,} of the {n_asked:,} requested rows were kept"
    if not n_excluded:
        return f"{text}: {scores.by} cannot rank more of the {n:,}"
    why = "" if scores.excluded is None else f" ({_find_main_reason(scores.excluded)})"
    return f"{text}: {scores.by} gives {n_excluded:,} of the {n:,} rows no rank{why}"


def _find_main_reason(excluded: pl.Series) -> str:
    return str(excluded.drop_nulls().value_counts().sort("count", descending=True).row(0)[0])


def _find_passed_over_rows(
    scores: Scores, by_score: NDArray[np.int64], allowed: NDArray[np.int64], kept: NDArray[np.int64], budget: Budget
) -> NDArray[np.int64]:
    """Return the rows inside the budget, kept ones among them: a quota dropped the others.

    Args:
        scores: of n rows.
        by_score: (m,) positions of the ranked rows, best first.
        allowed: (<= m,) those that the quota allows, in its order.
        kept: positions of the kept rows.
        budget: a threshold drops the rows below it; another budget, when it is used up, those
            behind the last kept row.
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


def build_rank_column(scores: Scores) -> pl.Series:
    """Return the rank of each row, 1 = best, null where the method did not rank it."""
    ranking = scores.ranking()
    rank = np.zeros(len(scores), dtype=np.int64)
    rank[ranking] = np.arange(1, len(ranking) + 1)
    return pl.Series("rank", rank, dtype=pl.Int64).replace(0, None)


def build_verdict_table(row_id: pl.Series, scores: Scores, made: Cut) -> pl.DataFrame:
    """Return one line per row: `value`, `rank`, `reason`, `covered_by`, `similarity`, `excluded`.

    `reason` is the name of the reason, null for a kept row; `covered_by` is the id of the kept row
    that stands for it.
    """
    names = list(REASONS)
    covered_by = pl.Series("covered_by", [None], dtype=pl.String).new_from_index(0, len(scores))
    similarity = pl.Series("similarity", [None], dtype=pl.Float32).new_from_index(0, len(scores))
    if scores.covered_by is not None:
        is_covered = pl.Series((scores.covered_by >= 0) & (made.reason == names.index("covered")))
        covered_by = row_id.gather(np.maximum(scores.covered_by, 0)).zip_with(is_covered, covered_by)
        if scores.similarity is not None:
            is_covered |= pl.Series(made.reason == names.index("covered-by-existing"))
            similarity = pl.Series(scores.similarity).zip_with(is_covered, similarity)
    reason = np.where(made.reason >= 0, made.reason, len(names)).astype(np.int64)
    return pl.DataFrame(
        {
            "value": scores.value,
            "rank": build_rank_column(scores),
            "reason": pl.Series([*names, None], dtype=pl.String).gather(reason),
            "covered_by": covered_by,
            "similarity": similarity,
            "excluded": pl.Series([None] * len(scores), dtype=pl.String)
            if scores.excluded is None
            else scores.excluded,
        }
    )


def build_dropped_table(rows: pl.DataFrame, verdicts: pl.DataFrame, n_kept: int, budget: Budget) -> pl.DataFrame:
    """Return one row per dropped row, with the reason as a name and as a sentence.

    Args:
        rows: (n,) as in `Dataset.frame`.
        verdicts: (n,) of `build_verdict_table`.
        n_kept: rows of the whole pool that were kept.
        budget: that they were kept for.
    """
    is_dropped = verdicts["reason"].is_not_null()
    at = rows.filter(is_dropped)
    table = verdicts.filter(is_dropped).with_columns(
        row_id=at["row_id"],
        file=at["file"].cast(pl.String),
        line=at["line"],
        preview=at["prompt"].str.slice(0, 200),
    )
    return table.with_columns(explanation=_explanation(pl.col("excluded"), n_kept, budget)).select(
        "row_id", "file", "line", "reason", "explanation", "value", "rank", "covered_by", "similarity", "preview"
    )


def _explanation(excluded: pl.Expr, n_kept: int, budget: Budget) -> pl.Expr:
    """Return the reason of each dropped row as a sentence."""
    cosine = (
        pl.when(pl.col("similarity").is_null())
        .then(pl.lit(""))
        .otherwise(pl.format(" (cosine {})", pl.col("similarity").round(3)))
    )
    return (
        pl.when(pl.col("reason") == "covered")
        .then(pl.format("kept row {} represents it{}", pl.col("covered_by"), cosine))
        .when(pl.col("reason") == "covered-by-existing")
        .then(pl.format("an existing row represents it{}", cosine))
        .when(pl.col("reason") == "excluded")
        .then(excluded)
        .when(pl.col("reason") == "below-threshold")
        .then(pl.format(f"its score {{}} does not satisfy {budget}", pl.col("value").round(6)))
        .when(pl.col("reason") == "over-quota")
        .then(pl.format("ranked {}, and its group's quota is full", pl.col("rank")))
        .when(pl.col("rank").is_null())
        .then(pl.lit(f"not among the first {n_kept} rows picked"))
        .otherwise(pl.format(f"ranked {{}}, and {n_kept} rows fit the budget {budget}", pl.col("rank")))
    )
