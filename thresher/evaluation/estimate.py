"""Estimates: a value with its standard error and the number of rows behind it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thresher.errors import InputError
from thresher.numeric.arrays import Float64


@dataclass(frozen=True)
class Estimate:
    """A measured number.

    Attributes:
        value: the number.
        stderr: its standard error over rows (and seeds); NaN where it is unknown, as with one row.
        n: number of rows it was measured on.
    """

    value: float
    stderr: float
    n: int

    def to_json(self) -> dict[str, Any]:
        """Return JSON values; NaN and infinity become null."""
        return {"value": _number(self.value), "stderr": _number(self.stderr), "n": self.n}

    def __str__(self) -> str:
        """Return "value ± stderr (n)"."""
        return f"{self.value:.4g} ± {self.stderr:.2g} (n={self.n})"


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def proportion(hits: ArrayLike) -> Estimate:
    """Return the share of hits, with the binomial standard error sqrt(p (1 - p) / n).

    Where all rows are hits, or none, this would be 0, as if the share were certain: then two hits
    and two misses are added (Agresti and Coull 1998, doi:10.1080/00031305.1998.10480550).

    Args:
        hits: (n,) bool.
    """
    x = np.asarray(hits, dtype=np.float64)
    _require(len(x))
    n, p = len(x), float(x.mean())
    near, rows = (p, n) if 0 < p < 1 else ((n * p + 2) / (n + 4), n + 4)
    return Estimate(p, math.sqrt(near * (1 - near) / rows) if n > 1 else math.nan, n)


def mean(values: ArrayLike) -> Estimate:
    """Return the mean, with the standard error s / sqrt(n).

    Args:
        values: (n,) float.
    """
    x = np.asarray(values, dtype=np.float64)
    _require(len(x))
    stderr = float(x.std(ddof=1)) / math.sqrt(len(x)) if len(x) > 1 else math.nan
    return Estimate(float(x.mean()), stderr, len(x))


def ratio(totals: ArrayLike, weights: ArrayLike) -> Estimate:
    """Return sum(totals) / sum(weights), a mean per unit of weight over rows of unequal weight.

    The standard error is that of the ratio estimator (Cochran 1977, Sampling Techniques, eq. 6.13):
    rows are the sampled unit; tokens within a row are not independent.

    Args:
        totals: (n,) sum of each row, for example its loss over all tokens.
        weights: (n,) for example its number of tokens.
    """
    return mean(linearize_ratio(np.asarray(totals, np.float64), weights))


def exp(estimate: Estimate) -> Estimate:
    """Return e to the power of an estimate; the standard error is e^value stderr (delta method)."""
    value = math.exp(estimate.value) if estimate.value < math.log(np.finfo(float).max) else math.inf
    return Estimate(value, value * estimate.stderr, estimate.n)


def paired_difference(
    ours: ArrayLike, theirs: ArrayLike, weights: ArrayLike | None = None, *, shared: float = 0.0
) -> Estimate:
    """Return mean(ours - theirs) over the same rows and seeds.

    Rows and seeds are both samples, and crossed: every seed is evaluated on every row. The variance
    of the mean is (MS_rows + MS_seeds - MS_rest) / (rows * seeds), the unbiased estimate of the
    two-way random-effects layout (Cornfield and Tukey 1956, doi:10.1214/aoms/1177728067), and never
    less than either part alone. With one seed, the variance between seeds is unknown, and the error
    is over rows only.

    Args:
        ours: (seeds, n) or (n,) score of each row.
        theirs: of the other model, same shape.
        weights: (n,) when the scores are totals, to compare totals per unit of weight; the same for
            both models.
        shared: correlation of two seeds, as where they learned from some of the same rows; see
            `correct_mean_squares`.

    Raises:
        InputError: the shapes differ.
    """
    a, b = np.atleast_2d(np.asarray(ours, np.float64)), np.atleast_2d(np.asarray(theirs, np.float64))
    if a.shape != b.shape:
        raise InputError(f"paired difference: both models must be scored on the same rows, got {a.shape} and {b.shape}")
    return _crossed_mean(linearize_ratio(a - b, weights), shared)


def linearize_ratio(totals: Float64, weights: ArrayLike | None) -> Float64:
    """Return values whose mean is the ratio of totals; their variance is its own to first order.

    Args:
        totals: (n,) or (seeds, n).
        weights: (n,), or None where all rows weigh the same: then `totals` is returned.
    """
    if weights is None:
        return totals
    w = np.asarray(weights, np.float64)
    _require(len(w))
    value = totals.sum() / (w.sum() * (totals.size / len(w)))
    result: Float64 = value + (totals - value * w) / w.mean()
    return result


def two_way_mean_squares(x: Float64) -> tuple[float, float, float]:
    """Return the mean squares of rows, seeds and residual of a (seeds, n) table, each 2 or more."""
    n_seeds, n = x.shape
    value, row_mean, seed_mean = x.mean(), x.mean(axis=0), x.mean(axis=1)
    residual = x - row_mean[None, :] - seed_mean[:, None] + value
    return (
        n_seeds * float(((row_mean - value) ** 2).sum()) / (n - 1),
        n * float(((seed_mean - value) ** 2).sum()) / (n_seeds - 1),
        float((residual**2).sum()) / ((n - 1) * (n_seeds - 1)),
    )


def correct_mean_squares(ms_seed: float, ms_residual: float, n_seeds: int, shared: float) -> float:
    """Return the mean square of seeds that are not independent, as if they were.

    Seeds with correlation r spread too little: the variance between them is (1 - r) of that of
    independent ones, and their mean varies by r + (1 - r) / seeds of it, so that the observed
    variance counts 1 / seeds + r / (1 - r) times and not 1 / seeds times (Nadeau and Bengio 2003,
    doi:10.1023/A:1024068626366, equation 9, there for training sets that overlap). What the
    residual contributes to the mean square is left as it is.

    Args:
        ms_seed: mean square of seeds.
        ms_residual: mean square of the residual.
        n_seeds: seeds.
        shared: their correlation r, 0 <= r < 1.
    """
    return ms_seed + max(ms_seed - ms_residual, 0.0) * n_seeds * shared / (1 - shared)


def _crossed_mean(x: Float64, shared: float = 0.0) -> Estimate:
    n_seeds, n = x.shape
    _require(n)
    value = float(x.mean())
    if n_seeds == 1 or n == 1:  # one of the two cannot vary: the error is over the other
        return Estimate(value, mean(x.mean(axis=0 if n_seeds == 1 else 1)).stderr, n)
    ms_row, ms_seed, ms_residual = two_way_mean_squares(x)
    ms_seed = correct_mean_squares(ms_seed, ms_residual, n_seeds, shared)
    variance = max(ms_row + ms_seed - ms_residual, ms_row, ms_seed) / (n * n_seeds)
    return Estimate(value, math.sqrt(variance), n)


def mean_over_seeds(values: ArrayLike, weights: ArrayLike | None = None) -> Estimate:
    """Return the mean over rows and seeds, with the same standard error as `paired_difference`.

    Args:
        values: (seeds, n).
        weights: (n,) when the values are totals.
    """
    return _crossed_mean(linearize_ratio(np.atleast_2d(np.asarray(values, np.float64)), weights))


def _require(n: int) -> None:
    if n == 0:
        raise InputError("evaluation: at least one held-out row is needed, got 0")
