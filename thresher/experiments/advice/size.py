"""How many rows to train on, from what the curve has shown."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from thresher.evaluation.curves.interval import Interval
from thresher.evaluation.effect import LEVEL, adjust_p_values
from thresher.experiments.curve import LearningCurve
from thresher.experiments.settings import BASELINE

FARTHEST = 4  # times the largest measured size: a score of more rows is not predicted
TARGET_SHARE, LEAST_ROWS = 0.1, 32  # rows by a target where nothing was measured


class Size(NamedTuple):
    """How many rows to train on.

    Attributes:
        n_rows: the number.
        reason: in words.
    """

    n_rows: int
    reason: str


def choose_size(
    curve: LearningCurve | None, method: str, n_pool: int, *, most: int | None = None, has_target: bool = False
) -> Size:
    """Return how many rows to train on, and why: what the curve says is enough, else all of them.

    Args:
        curve: of the pool, or None where there is none.
        method: that will choose the rows; where the curve does not have it, random rows answer.
        n_pool: rows of the clean pool.
        most: rows that the user would train on; None for any number.
        has_target: rows are chosen by their likeness to those of a task, so that all rows of the
            pool are no choice.
    """
    limit = n_pool if most is None else min(most, n_pool)
    everything = "all rows" if limit == n_pool else "as many as --budget allows"
    if curve is None:
        if has_target and most is None:
            n_rows = min(n_pool, max(LEAST_ROWS, round(TARGET_SHARE * n_pool)))
            return Size(n_rows, "a tenth, for want of a learning curve; --budget sets another number")
        return Size(limit, f"{everything}: without a learning curve, it is unknown whether fewer are enough")
    best = _find_best_size(curve, method)
    if best is not None:
        return Size(min(limit, best), f"rows chosen by {method} do best at this size: further ones make it worse")
    enough = curve.enough.get(method) or curve.enough.get(BASELINE)
    if enough is not None and enough.worse is not None:
        return Size(min(limit, enough.rows), str(enough))
    if enough is None or enough.verdict != "enough":
        said = "" if enough is None else f". {str(enough).rstrip('.')}"
        return Size(limit, f"{everything}: the curve does not show that fewer are enough{said}")
    return Size(min(limit, enough.high), f"the safe end of what the curve says is enough: {enough}")


@dataclass(frozen=True, kw_only=True)
class WholePool:
    """What all rows are expected to bring, where the curve ends before them.

    Attributes:
        n_rows: of the clean pool.
        metric: of the curve.
        n_measured: largest size of the curve.
        score: expected on the same test rows, with its 80 % interval; None where the curve ends too
            early to say.
    """

    n_rows: int
    metric: str
    n_measured: int
    score: Interval | None

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        about = {"n": self.n_rows, "metric": self.metric, "measured": self.n_measured}
        return {**about, "score": None if self.score is None else self.score.to_json()}

    def __str__(self) -> str:
        """Return it as a sentence."""
        if self.score is None:
            return (
                f"What all {self.n_rows:,} would bring is not known: the curve ends at {self.n_measured:,} rows, "
                f"and does not allow a prediction that far"
            )
        median, low, high = (f"{value:.3f}" for value in (self.score.median, self.score.low, self.score.high))
        return f"Trained on all {self.n_rows:,}, {self.metric} is expected to be {median} [{low}, {high}]."


def foresee_whole_pool(curve: LearningCurve, n_pool: int) -> WholePool | None:
    """Return what all rows are expected to bring, by the curve of random rows.

    None where the curve measured them, or has too few runs. All methods choose the same rows there.

    Args:
        curve: of the pool.
        n_pool: rows of the clean pool.
    """
    fit = curve.fits.get(BASELINE)
    if fit is None or curve.content["of"] >= n_pool:
        return None
    n_measured = int(curve.content["of"])
    answer = curve.enough.get(BASELINE)
    is_known = answer is None or (answer.unlike_laws is None and answer.worse is None)
    score = fit.predict(n_pool, same_test=True) if is_known and n_pool <= FARTHEST * n_measured else None
    return WholePool(n_rows=n_pool, metric=str(curve.content["metric"]), n_measured=n_measured, score=score)


def _find_best_size(curve: LearningCurve, method: str) -> int | None:
    """Return the measured size at which a method is better than at the largest by the tolerance.

    The laws only rise, so that they cannot say so: rows far from a task may make a model worse at
    it. A t test with the degrees of freedom of the seeds (Welch), corrected for the sizes that are
    looked at (Holm); with one run, nothing is said.
    """
    entry = curve.content["methods"].get(method) or {"points": []}
    points = {point["n_rows"]: point for point in entry["points"]}
    largest, enough = curve.content["of"], entry.get("enough")
    if method == BASELINE or largest not in points or enough is None:
        return None
    sign = 1 if curve.content["is_higher_better"] else -1

    def rise(size: int) -> float:
        return float(sign * (points[size]["value"] - points[largest]["value"]))

    def is_repeated(size: int) -> bool:
        return int(points[size]["n_seeds"]) >= 2

    smaller = [size for size in points if size < largest and is_repeated(size)]
    if not smaller or not is_repeated(largest):
        return None
    # sizes share test rows, so that the error of their difference is rather smaller than this
    adjusted = adjust_p_values([_compute_p(rise(size), points[size], points[largest]) for size in smaller])
    better = [size for size, p in zip(smaller, adjusted, strict=True) if p < LEVEL and rise(size) > enough["within"]]
    return max(better, key=rise) if better else None


def _compute_p(difference: float, point: Mapping[str, Any], other: Mapping[str, Any]) -> float:
    """Return the two-sided p-value of no difference between two points of a curve."""
    from scipy import stats

    variances = [float(each["stderr"]) ** 2 for each in (point, other)]
    if not sum(variances) > 0:
        return float(difference == 0)
    degrees = [int(each["n_seeds"]) - 1 for each in (point, other)]
    dof = sum(variances) ** 2 / sum(v**2 / n for v, n in zip(variances, degrees, strict=True))
    return float(2 * stats.t.sf(abs(difference) / math.sqrt(sum(variances)), dof))
