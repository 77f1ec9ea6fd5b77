"""Is one way to choose rows better than another? The effect, its interval, and what is detectable.

Rows and seeds are both samples, and crossed: every run is evaluated on every test row. The standard
error is that of the two-way layout (`estimate.paired_difference`), widened for few seeds
(`find_widening`), its degrees of freedom are Satterthwaite's (1946, doi:10.2307/3002019), and the
shape of the interval comes from a bootstrap over both (Owen 2007, doi:10.1214/07-AOAS122). With few
seeds a plain bootstrap would be too narrow, so its resamples are scaled to that standard error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import ArrayLike

from thresher.errors import InputError
from thresher.evaluation.estimate import (
    correct_mean_squares,
    linearize_ratio,
    paired_difference,
    two_way_mean_squares,
)
from thresher.evaluation.metric import Unit
from thresher.numeric.arrays import Float64

LEVEL, POWER = 0.05, 0.8
MOST_SEEDS = 100  # that anyone would run
ENOUGH_SEEDS = 3  # with two, one degree of freedom is left: up to 14 % false alarms
MUCH_SHARED = 0.1  # correlation of seeds, beyond what random choices have by chance
_RESAMPLES = 2000
_BLOCK = 200  # resamples at once: a table of resamples by rows is large
_QUANTILES = 400  # of the estimated standard error, over which the power is averaged
_RATIOS, _MOST_RATIO = 24, 60.0  # variances of seeds that are tried, and the largest
_GRID, _ROUNDING = 0.05, 1e-12


@dataclass(frozen=True, kw_only=True)
class Effect:
    """A paired difference.

    Attributes:
        value: mean over rows and seeds, positive where ours is better.
        low: lower end of the 95 % interval.
        high: upper end.
        stderr: over rows and seeds, widened for few seeds.
        dof: degrees of freedom of the standard error.
        p: two-sided, of no difference.
        detectable: the smallest true difference that four of five such experiments would have
            detected, corrected for the number of comparisons.
        n_rows: test rows.
        n_seeds: runs of each side.
    """

    value: float
    low: float
    high: float
    stderr: float
    dof: float
    p: float
    detectable: float
    n_rows: int
    n_seeds: int


def estimate_effect(
    ours: ArrayLike,
    theirs: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    is_higher_better: bool,
    n_tests: int = 1,
    shared: float = 0.0,
    resolution: float = 0.0,
    seed: int = 0,
) -> Effect:
    """Return the difference of two methods, evaluated on the same rows with the same seeds.

    Args:
        ours: (seeds, n) value of each test row; at least two seeds and two rows.
        theirs: of the other method, same shape.
        weights: (n,) where the values are totals.
        is_higher_better: direction of the metric.
        n_tests: comparisons that are made together, for `detectable`.
        shared: correlation of two seeds, as where they learned from some of the same rows; the
            interval is then wider (`estimate.correct_mean_squares`).
        resolution: step in which scores are known, where runs have one number each: equal scores of
            few test rows are then no proof that seeds do not differ.
        seed: of the bootstrap.

    Raises:
        InputError: fewer than two seeds or rows, unequal shapes, or values that are not finite.
    """
    a, b = np.atleast_2d(np.asarray(ours, np.float64)), np.atleast_2d(np.asarray(theirs, np.float64))
    if min(a.shape) < 2:
        raise InputError(f"compare: needs at least 2 seeds and 2 test rows, got {a.shape[0]} and {a.shape[1]}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise InputError("compare: the metric must be a finite number for every test row, found others")
    if not is_higher_better:
        a, b = b, a
    difference = paired_difference(a, b, weights, shared=shared)
    gap = linearize_ratio(a - b, weights)
    ms_row, ms_seed, ms_rest = two_way_mean_squares(gap)
    ms_seed = correct_mean_squares(ms_seed, ms_rest, gap.shape[0], shared)
    # rounding to steps has a variance of 1/12 on either side
    ms_seed = max(ms_seed, gap.shape[1] * resolution**2 / 6)
    stderr = max(difference.stderr, resolution / math.sqrt(6 * gap.shape[0]))
    # else seeds alone differ, and the test is the t test over them
    if ms_rest > _ROUNDING * ms_seed:
        stderr *= find_widening(ms_row, ms_rest, n_seeds=gap.shape[0], n=gap.shape[1], shared=shared)
    dof = float(_count_dof(ms_row, ms_seed, ms_rest, n_seeds=gap.shape[0], n=gap.shape[1], shared=shared))
    low, high, p = _interval(gap, difference.value, stderr, dof, np.random.default_rng(seed))
    return Effect(
        value=difference.value,
        low=low,
        high=high,
        stderr=stderr,
        dof=dof,
        p=p,
        detectable=_detectable(stderr, dof, LEVEL / n_tests) if stderr > 0 else 0.0,
        n_rows=gap.shape[1],
        n_seeds=gap.shape[0],
    )


def adjust_p_values(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for their number (Holm 1979, Scandinavian J. of Statistics 6:65)."""
    order = np.argsort(p)
    adjusted = np.empty(len(p))
    highest = 0.0
    for rank, index in enumerate(order):
        highest = max(highest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = highest
    return [float(value) for value in adjusted]


def estimate_seeds_needed(
    ours: ArrayLike,
    theirs: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    gain: float,
    n_tests: int = 1,
    shared: float = 0.0,
) -> int | None:
    """Return the seeds it takes to detect a gain in four of five experiments on these test rows.

    Args:
        ours: (seeds, n) of a pilot.
        theirs: of the other method, same shape.
        weights: (n,) where the values are totals.
        gain: true difference to detect.
        n_tests: comparisons that are made together.
        shared: correlation of two seeds, as for `estimate_effect`.

    Returns:
        The number of seeds, or None where the test rows are too few for any number of seeds.
    """
    from scipy import stats

    a, b = np.atleast_2d(np.asarray(ours, np.float64)), np.atleast_2d(np.asarray(theirs, np.float64))
    gap = linearize_ratio(a - b, weights)
    ms_row, ms_seed, ms_rest = two_way_mean_squares(gap)
    n_seeds, n = gap.shape
    # a pilot of few seeds may see too little variance: plan for the largest it is compatible with
    upper = ms_seed * (n_seeds - 1) / stats.chi2.ppf(1 - POWER, n_seeds - 1)
    # variance components, from E[MS_row] = rest + seeds * row_variance and likewise for seeds
    row_variance, seed_variance = max(ms_row - ms_rest, 0.0) / n_seeds, max(upper - ms_rest, 0.0) / n
    for seeds in range(2, MOST_SEEDS + 1):
        # the mean squares that an experiment with so many seeds is expected to have
        ms_seeds = correct_mean_squares(ms_rest + n * seed_variance, ms_rest, seeds, shared)
        squares = ms_rest + seeds * row_variance, ms_seeds, ms_rest
        stderr = math.sqrt((squares[0] + squares[1] - squares[2]) / (n * seeds))
        dof = float(_count_dof(*squares, n_seeds=seeds, n=n))
        detectable = _detectable(stderr, dof, LEVEL / n_tests)
        if detectable > gain:
            continue
        if detectable * find_widening(squares[0], ms_rest, n_seeds=seeds, n=n, shared=shared) <= gain:
            return seeds
    return None


def _count_dof(
    ms_row: float, ms_seed: Float64 | float, ms_rest: float, *, n_seeds: int, n: int, shared: float = 0.0
) -> Float64:
    """Return the degrees of freedom of the variance that `paired_difference` uses (Satterthwaite).

    Few seeds that share their luck and agree by chance are no proof that seeds do not differ, and
    what they hide would count many times. There the mean square of seeds is raised to that of the
    residual, and has its share in the degrees of freedom. `ms_seed` may be an array.
    """
    is_raised = np.logical_and(shared > MUCH_SHARED, np.less(ms_seed, ms_rest))
    seed = np.where(is_raised, ms_rest, ms_seed)
    total = ms_row + seed - ms_rest
    parts = ms_row**2 / (n - 1) + seed**2 / (n_seeds - 1) + ms_rest**2 / ((n - 1) * (n_seeds - 1))
    of_larger = np.where(ms_row >= seed, n - 1, n_seeds - 1)
    is_one_part = (total <= np.maximum(ms_row, seed)) & ~is_raised
    joint = np.maximum(1.0, np.divide(total**2, parts, out=np.ones(np.shape(total)), where=parts > 0))
    dof: Float64 = np.where(is_one_part, of_larger, joint)
    return dof


def find_widening(ms_row: float, ms_rest: float, *, n_seeds: int, n: int, shared: float = 0.0) -> float:
    """Return the factor that keeps false alarms at 5 % however much seeds differ; 1 or more.

    Where three seeds happen to agree, the error is taken from the rows alone, and is too small if
    seeds do differ: by the sampling distribution of the mean square of seeds (chi-squared), up to
    7.5 % of equal methods would be called different, 5.9 % with four seeds and 5.4 % with five, and
    more where seeds share rows. The factor is the least one with which no variance of seeds leads
    to more than 5 %: 1.25, 1.07 and 1.02 where rows differ by luck alone. With two seeds it would
    be 2.8, and is left out; the command says that two are too few.

    Args:
        ms_row: mean square of rows, taken as known.
        ms_rest: mean square of the residual, taken as known.
        n_seeds: seeds.
        n: test rows.
        shared: correlation of two seeds.
    """
    if n_seeds < ENOUGH_SEEDS or ms_rest <= _ROUNDING * ms_row:  # runs without luck
        return 1.0
    # it varies slowly, so it is known on a grid
    step = max(0, round(math.log(ms_row / ms_rest) / _GRID))
    return _solve_widening(math.exp(step * _GRID), n_seeds, 1 << (n - 1).bit_length(), round(shared, 2))


@lru_cache(maxsize=1024)
def _solve_widening(row: float, n_seeds: int, n: int, shared: float) -> float:
    """Return the factor of `find_widening`; `row` is the mean square of rows over the residual."""
    from scipy import optimize, special, stats

    # mean squares of seeds that may come, (variances, quantiles), for each true one
    true = np.geomspace(1.0, _MOST_RATIO * row, _RATIOS)[:, None]
    share = (np.arange(_QUANTILES // 2) + 0.5) / (_QUANTILES // 2)
    seen = true * stats.chi2.ppf(share, n_seeds - 1) / (n_seeds - 1)
    counted = 1 + n_seeds * shared / (1 - shared)  # how often a seed's variance counts
    seed = seen + np.maximum(seen - 1, 0) * (counted - 1)
    stderr = np.sqrt(np.maximum(np.maximum(row + seed - 1, row), seed))
    dof = _count_dof(row, seed, 1.0, n_seeds=n_seeds, n=n, shared=shared)
    # the interval's reach over the true standard error
    reach = special.stdtrit(dof, 1 - LEVEL / 2) * stderr / np.sqrt(row + (true - 1) * counted)

    def excess(factor: float) -> float:
        return float(2 * special.ndtr(-factor * reach).mean(axis=1).max()) - LEVEL

    return 1.0 if excess(1.0) <= 0 else float(optimize.brentq(excess, 1.0, 20.0, xtol=1e-3))


def _interval(
    gap: Float64, value: float, stderr: float, dof: float, rng: np.random.Generator
) -> tuple[float, float, float]:
    """Return both ends of the interval, and the p-value."""
    from scipy import stats

    if not stderr > 0:  # every row and seed agrees, as when both sides trained on the same rows
        return value, value, 1.0 if value == 0 else 0.0
    deviations = _bootstrap_means(gap, rng) - value
    if not deviations.std() > 0:  # all that is known is the step in which scores are rounded
        reach = float(stats.t.ppf(1 - LEVEL / 2, dof)) * stderr
        return value - reach, value + reach, float(2 * stats.t.sf(abs(value) / stderr, dof))
    # scale them to the standard error, and from the normal to the t distribution
    widen = stats.t.ppf(1 - LEVEL / 2, dof) / stats.norm.ppf(1 - LEVEL / 2) * stderr / deviations.std()
    low, high = value + widen * np.quantile(deviations, [LEVEL / 2, 1 - LEVEL / 2])
    return float(low), float(high), float(2 * stats.t.sf(abs(value) / stderr, dof))


def _detectable(stderr: float, dof: float, level: float) -> float:
    """Return the true difference at which the t test reaches its power, by solving for the power.

    Adding the quantiles of level and power gives too little with few degrees of freedom: with 4 of
    them and ten comparisons, that difference is detected in 73 of 100 cases instead of 80.
    """
    from scipy import optimize, special, stats

    # the estimated standard error varies: average over _QUANTILES values that it may take
    share = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    # what the estimate must reach to be significant, in true standard errors, for each of them
    threshold = stats.t.ppf(1 - level / 2, dof) * np.sqrt(stats.chi2.ppf(share, dof) / dof)

    def excess_power(difference: float) -> float:
        return float((special.ndtr(difference - threshold) + special.ndtr(-difference - threshold)).mean()) - POWER

    return float(optimize.brentq(excess_power, 0.0, threshold[int(0.95 * _QUANTILES)] + 3.0)) * stderr


def _bootstrap_means(gap: Float64, rng: np.random.Generator) -> Float64:
    """Return the means of tables whose rows and seeds are resampled: (_RESAMPLES,)."""
    n_seeds, n = gap.shape
    # a resample is a weight for each seed and for each row: how often it was picked
    seeds = rng.multinomial(n_seeds, np.full(n_seeds, 1 / n_seeds), _RESAMPLES) / n_seeds
    means = np.empty(_RESAMPLES)
    for start in range(0, _RESAMPLES, _BLOCK):
        block = slice(start, start + _BLOCK)
        rows = rng.multinomial(n, np.full(n, 1 / n), _BLOCK) / n
        means[block] = ((seeds[block] @ gap) * rows).sum(axis=1)
    return means


def is_clear(effect: Effect, p_holm: float) -> bool:
    """Tell whether a difference stands after Holm's correction, its interval without zero."""
    return p_holm < LEVEL and not effect.low <= 0 <= effect.high


def describe_effect(effect: Effect, p_holm: float, unit: Unit) -> str:
    """Return the verdict in words, with sizes in the unit of the metric."""
    if not effect.stderr > 0 and effect.value == 0:
        return "no difference at all: both gave the same answers"
    if not is_clear(effect, p_holm):
        return f"no clear difference; {unit.describe_detectable(effect.detectable)}"
    is_better = effect.value > 0
    value, low, high = (
        (effect.value, effect.low, effect.high) if is_better else (-effect.value, -effect.high, -effect.low)
    )
    word = "better" if is_better else "worse"
    return f"{word} by {unit.format_range(value, low, high)}"
