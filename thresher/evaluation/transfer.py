"""Does a difference that was seen on small models hold on the next larger one?

The effect of a method on each model of a ladder is taken as a common mean of the method plus a
deviation of that model, with one spread of deviations for all methods (a random-effects model). The
spread is not estimated by one number: every value of a grid counts by its marginal likelihood, so
that few models leave it open.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.numeric.arrays import Float64

N_SPREADS = 121
REACH = 4.0  # largest spread that is tried, in units of the largest deviation that was seen
N_DRAWS = 4000
INTERVAL = (0.1, 0.9)


@dataclass(frozen=True)
class NextStep:
    """What the effects of methods are expected to be one model further up.

    Attributes:
        mean: (m,) expected effect.
        low: (m,) lower end of the 80 % interval.
        high: (m,) upper end.
        above_zero: (m,) probability that the effect is above zero.
        spread: (draws,) of the deviations between models, drawn from what may be.
    """

    mean: Float64
    low: Float64
    high: Float64
    above_zero: Float64
    spread: Float64


def predict_next(effects: Float64, stderr: Float64, *, seed: int = 0) -> NextStep:
    """Predict the effects of methods on a further model.

    Args:
        effects: (m, k) effect of each method on each model, NaN where there is none.
        stderr: (m, k) their standard errors.
        seed: of the draws.
    """
    from scipy.special import logsumexp

    rng = np.random.default_rng(seed)
    is_known = np.isfinite(effects) & np.isfinite(stderr)
    centered = effects - np.nanmean(effects, axis=1, keepdims=True)
    most = REACH * max(float(np.nanmax(np.abs(centered))), float(np.nanmean(stderr)), 1e-9)
    grid = np.linspace(0.0, most, N_SPREADS)
    least = max(float(np.nanmax(stderr)) * 1e-6, 1e-12)
    variance = np.maximum(stderr, least) ** 2 + (grid**2)[:, None, None]  # (g, m, k)
    weight = np.where(is_known, 1 / variance, 0.0)
    total = weight.sum(axis=2)  # (g, m)
    mean = (weight * np.where(is_known, effects, 0.0)).sum(axis=2) / total
    rest = np.where(is_known, effects, 0.0) - mean[:, :, None]
    log = -0.5 * (np.where(is_known, np.log(variance), 0.0).sum(axis=2) + np.log(total))
    log -= 0.5 * (weight * rest**2).sum(axis=2)
    # the mean of each method has a flat prior; with a single model it says nothing of the spread
    likelihood = log.sum(axis=1)
    share = np.exp(likelihood - logsumexp(likelihood))
    drawn = rng.choice(N_SPREADS, N_DRAWS, p=share / share.sum())
    spread_next = np.sqrt(grid[drawn, None] ** 2 + 1 / total[drawn])
    draws = mean[drawn] + spread_next * rng.standard_normal((N_DRAWS, effects.shape[0]))
    low, high = np.quantile(draws, INTERVAL, axis=0)
    return NextStep(draws.mean(axis=0), low, high, (draws > 0).mean(axis=0), grid[drawn])


@dataclass(frozen=True)
class Agreement:
    """How far the order of methods on one model is that on another.

    Attributes:
        correlation: Spearman's, of the effects; None below three methods.
        low: lower end of the 80 % interval, over the errors of the effects.
        high: upper end.
        same_first: probability that the best method is the same.
        n: methods.
    """

    correlation: float | None
    low: float | None
    high: float | None
    same_first: float
    n: int


def compare_orders(ours: Float64, theirs: Float64, our_stderr: Float64, their_stderr: Float64) -> Agreement:
    """Compare the effects of the same methods on two models: (m,) each."""
    rng, n = np.random.default_rng(0), len(ours)
    a = ours + our_stderr * rng.standard_normal((N_DRAWS, n))
    b = theirs + their_stderr * rng.standard_normal((N_DRAWS, n))
    same = float((a.argmax(axis=1) == b.argmax(axis=1)).mean())
    if n < 3:
        return Agreement(None, None, None, same, n)
    drawn = correlate_ranks(a, b)
    low, high = np.quantile(drawn, INTERVAL)
    return Agreement(float(correlate_ranks(ours[None, :], theirs[None, :])[0]), float(low), float(high), same, n)


def correlate_ranks(ours: Float64, theirs: Float64) -> Float64:
    """Return Spearman's correlation of the rows of two tables, 0 where a row is all equal: (d,)."""
    from scipy.stats import rankdata

    a, b = (rankdata(each, axis=1) for each in (ours, theirs))
    a, b = (each - each.mean(axis=1, keepdims=True) for each in (a, b))
    norm = np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1))
    return np.asarray(np.divide((a * b).sum(axis=1), norm, out=np.zeros(len(a)), where=norm > 0))
