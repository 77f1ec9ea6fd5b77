"""How far runs of different seeds lie apart at each size of a learning curve.

Three seeds say too little about one size alone, and one spread for all sizes would say too much:
it falls with the rows, and falls fast where the largest size is the whole pool and the seeds draw
nearly the same rows. So the variance is taken to be a power of the size,

    v(n) = v n^-g,   0 <= g <= 1.5,

with v estimated for each g from the sums of squares of all sizes. The result is averaged over g by
its likelihood (chi-square, with v integrated out) times the prior exp(-4 g): few runs hardly tell
g, and a spread that is too small is worse than one that is too large. With two runs at one size
only, nothing is known of g, and the spread of that size stands for all.

Variance functions of this kind: Davidian and Carroll 1987, doi:10.1080/01621459.1987.10478543.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from thresher.numeric.arrays import Float64

_EXPONENTS = np.linspace(0.0, 1.5, 61)
_PRIOR_RATE = 4.0


def estimate_seed_variance(sizes: Float64, runs: Sequence[Float64]) -> tuple[Float64, float]:
    """Return the variance between seeds at each size, and its degrees of freedom.

    Args:
        sizes: (m,) rows.
        runs: per size, (seeds,) the error of each run; at least one size has two.

    Returns:
        (m,) variances; and the runs less the sizes, less one where g was estimated.
    """
    squares = np.array([((run - run.mean()) ** 2).sum() for run in runs])
    dof = np.array([len(run) - 1.0 for run in runs])
    # equal runs: what rounding adds is all the spread
    least = (1e-6 * max(1.0, *(float(np.abs(run).max()) for run in runs))) ** 2
    if np.count_nonzero(dof) == 1 or squares.sum() <= least * dof.sum():
        return np.full(len(sizes), max(float(squares.sum() / dof.sum()), least)), float(dof.sum())
    # v for each exponent: (g,); its likelihood with v integrated out
    log_n = np.log(sizes / sizes.max())
    v = (squares * np.exp(_EXPONENTS[:, None] * log_n)).sum(axis=1) / dof.sum()
    log_likelihood = 0.5 * (_EXPONENTS * (dof @ log_n) - dof.sum() * np.log(v))
    log_posterior = log_likelihood - _PRIOR_RATE * _EXPONENTS
    weight = np.exp(log_posterior - log_posterior.max())
    log_variance = np.log(v)[:, None] - _EXPONENTS[:, None] * log_n
    return np.maximum(np.exp(weight / weight.sum() @ log_variance), least), float(dof.sum()) - 1
