"""From a score per row and model to an order, with intervals on each rank and what is tied."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from thresher.evaluation.effect import LEVEL, adjust_p_values
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
        low: best rank within the 95 % interval over rows.
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
    or hard about a row cancels. Two models are tied where the paired difference has an interval
    with zero in it, after Holm's correction for the number of models.

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
    # equal scores share the better rank, so that equal models have equal intervals
    ranks = 1 + (draws[:, None, :] > draws[:, :, None]).sum(axis=2)
    gaps = draws[:, order[:1]] - draws
    p_values = [1.0 if i == order[0] else _compute_p(rows[order[0]] - rows[i]) for i in range(len(names))]
    others = [i for i in range(len(names)) if i != order[0]]
    adjusted = dict(zip(others, adjust_p_values([p_values[i] for i in others]), strict=True))
    placed = []
    for place, i in enumerate(order, start=1):
        low, high = np.quantile(ranks[:, i], [LEVEL / 2, 1 - LEVEL / 2], method="nearest")
        gap_low, gap_high = np.quantile(gaps[:, i], [LEVEL / 2, 1 - LEVEL / 2])
        placed.append(
            Rank(
                name=names[i],
                rank=place,
                low=int(low),
                high=int(high),
                gap=float(means[order[0]] - means[i]),
                gap_low=float(gap_low),
                gap_high=float(gap_high),
                is_tied=place > 1 and adjusted[int(i)] >= LEVEL,
            )
        )
    return placed


def _compute_p(difference: Float64) -> float:
    """Return the two-sided p-value of no paired difference, by the t test over rows."""
    from scipy import stats

    spread = float(difference.std(ddof=1)) / np.sqrt(len(difference))
    if not spread > 0:
        return 1.0 if not difference.any() else 0.0
    return float(2 * stats.t.sf(abs(difference.mean()) / spread, len(difference) - 1))


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
        return f"{first.name} is first"
    return f"cannot tell apart: {', '.join([first.name, *tied])}"
