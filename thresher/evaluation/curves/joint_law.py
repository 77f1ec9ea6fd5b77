"""A bigger model or more rows? One law for the error over rows n and a second factor x.

    L(x, n) = E + A x^-alpha n^-beta      arXiv:2402.17193, eq. 1

x is the size of the model, or the rank of the adapter. For given exponents it is linear in E and A,
so that the exponents lie on a grid and E, A >= 0 follow in closed form, as in `laws.py`. Every pair
of exponents counts by its likelihood, and curves are sampled from all of them.

Fails where the factor matters only with many rows, or only with few: the product says that it
matters as much everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from thresher.errors import InputError
from thresher.evaluation.curves.interval import Interval, summarize_samples
from thresher.evaluation.curves.laws import solve_line
from thresher.numeric.arrays import Float64

_ALPHAS = np.linspace(0.0, 1.0, 101)
_BETAS = np.linspace(0.02, 1.5, 75)


@dataclass(frozen=True)
class JointFit:
    """Sampled joint laws that the points allow.

    Attributes:
        floor: (samples,) E.
        height: (samples,) A.
        alpha: (samples,) exponent of the factor.
        beta: (samples,) exponent of the rows.
        misfit: factor by which the spread of the points was widened for the law to fit.
    """

    floor: Float64
    height: Float64
    alpha: Float64
    beta: Float64
    misfit: float

    def errors(self, factor: float, rows: float) -> Float64:
        """Return the error of each sample: (samples,)."""
        error: Float64 = self.floor + self.height * factor**-self.alpha * rows**-self.beta
        return error

    def compare(self, factor: float, rows: float, *, times: float = 2.0) -> JointAnswer:
        """Return what so many times the rows, or the factor, are expected to bring.

        Args:
            factor: present one.
            rows: present ones.
            times: by how much either grows.
        """
        now = self.errors(factor, rows)
        by_rows, by_factor = now - self.errors(factor, times * rows), now - self.errors(times * factor, rows)
        return JointAnswer(
            gain_of_rows=summarize_samples(by_rows),
            gain_of_factor=summarize_samples(by_factor),
            # where neither brings anything, as on a flat curve, nothing speaks for either
            p_rows=float(np.mean(by_rows > by_factor) + np.mean(by_rows == by_factor) / 2),
            times=times,
        )


@dataclass(frozen=True)
class JointAnswer:
    """More rows against more of the factor.

    Attributes:
        gain_of_rows: expected of so many times the rows.
        gain_of_factor: expected of so many times the factor.
        p_rows: probability that the rows bring more; half where both bring the same.
        times: how many.
    """

    gain_of_rows: Interval
    gain_of_factor: Interval
    p_rows: float
    times: float

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        gains = {name: getattr(self, name).to_json() for name in ("gain_of_rows", "gain_of_factor")}
        return {**gains, "p_rows": self.p_rows, "times": self.times}


def fit_joint_law(
    factors: ArrayLike,
    rows: ArrayLike,
    errors: ArrayLike,
    covariance: ArrayLike,
    *,
    n_samples: int = 2000,
    seed: int = 0,
) -> JointFit:
    """Fit the joint law to points.

    Args:
        factors: (m,) of each point, above 0; at least two different ones.
        rows: (m,) of each point; at least three different numbers.
        errors: (m,) mean error of each point.
        covariance: (m, m) of the points, up to a part that all share, which the floor takes.
        n_samples: laws to sample.
        seed: of the samples.

    Raises:
        InputError: too few factors or sizes.
    """
    x, n, y, points = (np.asarray(values, dtype=np.float64) for values in (factors, rows, errors, covariance))
    if len(np.unique(x)) < 2 or len(np.unique(n)) < 3:
        raise InputError(
            f"joint law: needs 2 values of the factor and 3 sizes, got {len(np.unique(x))} and {len(np.unique(n))}"
        )
    grid = np.array([(alpha, beta) for alpha in _ALPHAS for beta in _BETAS])
    # relative to their geometric means, so that the height keeps one magnitude
    centers = np.exp(np.log(x).mean()), np.exp(np.log(n).mean())
    falling = np.exp(-np.outer(grid[:, 0], np.log(x / centers[0])) - np.outer(grid[:, 1], np.log(n / centers[1])))
    precision = np.asarray(np.linalg.inv(points), dtype=np.float64)
    floor, height = solve_line(falling, np.broadcast_to(y, falling.shape), precision)
    residual = y - floor[:, None] - height[:, None] * falling
    chi2 = ((residual @ precision) * residual).sum(axis=1)
    # where the law misses the points by more than their errors, these are widened (Birge 1932)
    misfit = max(1.0, float(np.sqrt(chi2.min() / max(len(y) - 4, 1))))
    likelihood = np.exp(-0.5 * (chi2 - chi2.min()) / misfit**2)
    rng = np.random.default_rng(seed)
    chosen = rng.choice(len(grid), n_samples, p=likelihood / likelihood.sum())
    noisy = y + rng.normal(size=(n_samples, len(y))) @ np.linalg.cholesky(points).T * misfit
    floor, height = solve_line(falling[chosen], noisy, precision)
    alpha, beta = grid[chosen].T
    return JointFit(floor, height * centers[0] ** alpha * centers[1] ** beta, alpha, beta, misfit)
