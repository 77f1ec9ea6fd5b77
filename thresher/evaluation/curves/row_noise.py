"""How the points of a learning curve err together, because one test set measured all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import polars as pl
from numpy.typing import ArrayLike

from thresher.evaluation.estimate import linearize_ratio
from thresher.numeric.arrays import Float64

JACKKNIFE_GROUPS = 20


def estimate_test_covariance(
    values: Sequence[Float64], weights: ArrayLike | None = None, *, unseen: float | None = None
) -> Float64:
    """Return the covariance over test rows of each size's difference to the last size.

    Rows and seeds are crossed (Cornfield and Tukey 1956, doi:10.1214/aoms/1177728067): what is left
    of a row's value after its own mean and that of its seed is chance of single runs. That part is
    in the spread between seeds already, and is taken out here, size by size: runs on the whole pool
    are nearly the same model, whose luck with these test rows no further seed averages out.

    Few test rows that all runs answer alike prove little: of a hundred others, some may be answered
    by the larger sizes alone. So unseen rows are added, as in `gain.py` (Bonett and Price 2012):
    one that turns right and one that turns wrong, at any size before the last.

    Args:
        values: per size, (seeds, n) value of each test row in each run, the same rows at all sizes.
        weights: (n,) where the values are totals.
        unseen: variance that these rows bring; None for that of answers that are right or
            wrong, and 0 where the values are anything else.

    Returns:
        (m, m), with zeros for the last size.
    """
    tables = [linearize_ratio(np.atleast_2d(np.asarray(table, np.float64)), weights) for table in values]
    m, n = len(tables), tables[0].shape[1]
    if n < 2:
        return np.zeros((m, m))
    means = np.stack([table.mean(axis=0) for table in tables])  # (m, n) of each row over seeds
    difference = means - means[-1]
    covariance = np.atleast_2d(np.cov(difference)) / n
    # chance of single runs: in every difference, from its own seeds and from those of the last size
    chance = _estimate_chance(tables) / n / np.array([len(table) for table in tables])
    is_other = np.arange(m) < m - 1
    covariance -= np.diag(is_other * chance) + chance[-1] * np.outer(is_other, is_other)
    result = np.zeros((m, m))
    result[:-1, :-1] = _make_positive(covariance[:-1, :-1])
    if unseen is None:
        unseen = bound_unseen([n]) if weights is None and all(map(_is_right_or_wrong, tables)) else 0.0
    # share of the places at which a row may change its answer that come after each size
    after = 1 - np.arange(m) / max(m - 1, 1)
    return np.asarray(result + unseen * (np.minimum.outer(after, after) + np.outer(is_other, is_other)))


def bound_unseen(rows_per_class: ArrayLike) -> float:
    """Return the variance of a rate's difference that unseen rows bring: one each way.

    Args:
        rows_per_class: test rows of each class, of a metric that is a mean over classes; of any
            other, all rows as one class.
    """
    n = np.asarray(rows_per_class, dtype=np.float64)
    return float((2 / (n + 2) ** 2).sum() / len(n) ** 2)


def _is_right_or_wrong(values: Float64) -> bool:
    return bool(np.isin(values, (0.0, 1.0)).all())


def _estimate_chance(tables: Sequence[Float64]) -> Float64:
    """Return the mean square of what neither row nor seed explains, per size: (m,).

    A size with one run has that of the sizes with more, on average.
    """
    chance = np.full(len(tables), np.nan)
    for number, table in enumerate(tables):
        dof = (table.shape[0] - 1) * (table.shape[1] - 1)
        if dof:
            residual = table - table.mean(axis=0) - table.mean(axis=1, keepdims=True) + table.mean()
            chance[number] = float((residual**2).sum()) / dof
    known = chance[np.isfinite(chance)]
    return np.where(np.isfinite(chance), chance, known.mean() if len(known) else 0.0)


def _make_positive(covariance: Float64) -> Float64:
    """Return the nearest matrix without negative eigenvalues, which an estimate may have."""
    values, vectors = np.linalg.eigh((covariance + covariance.T) / 2)
    positive: Float64 = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return positive


def estimate_row_values(measure: Callable[[pl.DataFrame], float], outcomes: pl.DataFrame) -> Float64:
    """Return values per group of test rows whose mean is a metric that has none per row.

    Pseudo-values of the grouped jackknife (Tukey 1958, Annals of Mathematical Statistics 29:614).

    Args:
        measure: the metric of a table.
        outcomes: at least two rows, in the same order in every run.

    Returns:
        (groups,), at most 20.
    """
    n_groups = min(JACKKNIFE_GROUPS, len(outcomes))
    group, whole = np.arange(len(outcomes)) % n_groups, measure(outcomes)
    without = np.array([measure(outcomes.filter(pl.Series(group != number))) for number in range(n_groups)])
    values: Float64 = n_groups * whole - (n_groups - 1) * without
    return values
