"""From a score per row and model to an order, with intervals on each rank and what is tied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thresher.evaluation.effect import LEVEL
from thresher.evaluation.estimate import linearize_ratio
from thresher.numeric.arrays import Float64

N_DRAWS = 2000
BLOCK = 100  # draws at once: a table of draws by rows is large


@dataclass(frozen=True, kw_only=True)
class Rank:
    """The place of one model.

    Attributes:
        name: of the model.
        rank: 1 for the best.
        low: best rank within the 95 % interval, which holds for all models at once.
        high: worst rank within it.
        gap: mean difference to the first, positive where the first is better.
        gap_low: lower end of its 95 % interval over rows.
        gap_high: upper end.
        is_tied: the rows cannot tell it apart from the first.
    """

    name: str
    rank: int
    low: int
    high: int
    gap: float
    gap_low: float
    gap_high: float
    is_tied: bool

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


def rank_models(
    names: Sequence[str], values: Float64, weights: Float64 | None = None, *, is_higher_better: bool
) -> list[Rank]:
    """Return the models from best to worst.

    Rows are resampled for the intervals; all models were scored on the same rows, so what is easy
    or hard about a row cancels. A model is tied with the first where their paired difference could
    be luck. The first was picked because it came out best, so the difference is held against the
    largest one of all pairs that luck brings: of equal models, however many, at most 5 % of calls
    find one worse. Ranks follow from the same comparison of all pairs (Klein, Wright and Wieczorek
    2020, doi:10.1111/rssa.12532): a model's best place is that after all clearly better ones.

    Args:
        names: of the models.
        values: (models, n) score of each row, or its total where there are weights.
        weights: (n,) what the totals are divided by, or None.
        is_higher_better: direction of the values.
    """
    # (m, n) whose means are the scores
    rows = np.stack([linearize_ratio(own, weights) for own in values])
    rows = rows if is_higher_better else -rows
    means = rows.mean(axis=1)
    order = np.argsort(-means, kind="stable")
    draws = _resample(rows)  # (draws, m)
    gaps = draws[:, order[:1]] - draws
    p_values = _compare_pairs(rows, draws)
    # (m, m): whether the one of the row is clearly better than the one of the column
    is_ahead = (p_values < LEVEL) & (means[:, None] > means)
    placed = []
    for place, i in enumerate(order, start=1):
        gap_low, gap_high = np.quantile(gaps[:, i], [LEVEL / 2, 1 - LEVEL / 2])
        placed.append(
            Rank(
                name=names[i],
                rank=place,
                low=1 + int(is_ahead[:, i].sum()),
                high=len(names) - int(is_ahead[i].sum()),
                gap=float(means[order[0]] - means[i]),
                gap_low=float(gap_low),
                gap_high=float(gap_high),
                is_tied=place > 1 and bool(p_values[order[0], i] >= LEVEL),
            )
        )
    return placed


def _compare_pairs(rows: Float64, draws: Float64) -> Float64:
    """Return the p-value of no difference of each pair of models: (m, m); 1 for itself.

    The distribution of the largest difference of all pairs, in standard errors, is that of the
    draws around their means. A t test over rows, which is stricter where rows are few, must agree.

    Args:
        rows: (m, n) whose means are the scores.
        draws: (draws, m) of the means.
    """
    from scipy import stats

    m, n = rows.shape
    means, around = rows.mean(axis=1), draws - rows.mean(axis=1)
    largest = np.zeros(len(draws))
    for i in range(m):
        for j in range(i):
            if (error := _measure_error(rows[i] - rows[j])) > 0:
                largest = np.maximum(largest, np.abs(around[:, i] - around[:, j]) / error)
    p_values = np.ones((m, m))
    for i in range(m):
        for j in range(i):
            gap, error = abs(float(means[i] - means[j])), _measure_error(rows[i] - rows[j])
            if error > 0:
                of_all = float((largest >= gap / error).mean())
                p = max(of_all, float(2 * stats.t.sf(gap / error, n - 1)))
            else:
                p = 0.0 if gap > 0 else 1.0
            p_values[i, j] = p_values[j, i] = p
    return p_values


def _measure_error(difference: Float64) -> float:
    """Return the standard error of the mean of a paired difference, (n,)."""
    return float(difference.std(ddof=1) / np.sqrt(len(difference)))


def _resample(rows: Float64) -> Float64:
    """Return the means of (m, n) rows that are drawn anew, with replacement: (draws, m)."""
    rng, n = np.random.default_rng(0), rows.shape[1]
    parts = [rng.multinomial(n, np.full(n, 1 / n), BLOCK) @ rows.T / n for _ in range(N_DRAWS // BLOCK)]
    return np.concatenate(parts)


def describe_order(ranks: Sequence[Rank]) -> str:
    """Return which model is first, and which ones cannot be told apart from it."""
    first, *others = ranks
    tied = [each.name for each in others if each.is_tied]
    if not tied:
        second = others[0]
        gap = f"{second.gap:.3f} [{second.gap_low:.3f}, {second.gap_high:.3f}]"
        return f"{first.name} is first, ahead of {second.name} by {gap}"
    return f"cannot tell apart: {', '.join([first.name, *tied])}"
