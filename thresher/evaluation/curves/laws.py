"""Laws of learning curves: how the held-out error falls with the number of training rows.

    power        e(n) = c + a n^-b                     pow3
    rectified    e(n) = c + a / (d^b + n^b)            mmf4; arXiv:2402.02314 with alpha = 1
    exponential  e(n) = c + a exp(-k n)                exp3
    logarithmic  e(n) = c + a L(m / n)                 as much for every doubling, up to m rows
    broken       e(n) = c + a (L(m / n) + s L(k / n))  more for a doubling before k rows than after
    constant     e(n) = c

with L(x) = max(0, ln x), a >= 0 (height) and c >= 0 (floor). For a given shape (b; b and d; k; m;
m, k and s) each is linear in (a, c). Shapes lie on a grid and (a, c) follow in closed form by
weighted least squares, so a fit needs no starting value and cannot diverge. Points that err
together, because one test set measured all of them, are weighted by the inverse of their covariance
(generalized least squares).

The logarithmic law and the broken one are the slow tails. Nothing in the points says where such a
tail ends, so its end m is spread evenly over powers of two, up to 4,096 times the largest size. The
broken law is for what is learned fast by the first rows and slowly by the rest, as with many
classes; without it, the curve seems to flatten where it goes on rising slowly.

A few points hardly determine the shape: `weigh_shapes` keeps every shape of the grid with its
likelihood, and curves are sampled from all of them, not only from the neighborhood of the best one.

Array sizes: r curves, m measured sizes, g shapes on the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from thresher.numeric.arrays import Float64

LawName = Literal["power", "rectified", "exponential", "logarithmic", "broken", "constant"]
N_PARAMETERS: dict[LawName, int] = {
    "power": 3,
    "rectified": 4,
    "exponential": 3,
    "logarithmic": 3,
    "broken": 5,
    "constant": 1,
}
# height and floor
N_LINEAR: dict[LawName, int] = {law: 1 if law == "constant" else 2 for law in N_PARAMETERS}

_EXPONENTS = np.linspace(0.05, 1.5, 1161)  # steps of 0.00125
_FEW_EXPONENTS = np.linspace(0.05, 1.5, 233)  # for the law that has a second shape parameter
_PRE_LEARNED = 48  # values of d, from a quarter of the smallest size to twice the largest
_DECAYS = np.geomspace(0.25, 64, 1600)  # values of k, in decays over the largest size
_TAIL_ENDS = (1, 2, 4, 16, 64, 256, 4096)  # values of m of the broken law, in largest sizes
_BREAKS = 16  # values of k, within the measured sizes
_STEEPER = (2.0, 4.0, 8.0, 16.0, 32.0, 64.0)  # values of s
_ENDS, _FARTHEST_END = 600, 4096  # values of m: up to so many times the largest size


@dataclass(frozen=True)
class Fits:
    """The same law fitted to several curves.

    Attributes:
        law: which.
        c: (r,) error with endless rows.
        a: (r,) height of the falling part.
        shape: (r, 3) b and d; k; m; or m, k and s; zeros in the places that a law does not use.
        chi2: (r,) weighted sum of squared residuals.
    """

    law: LawName
    c: Float64
    a: Float64
    shape: Float64
    chi2: Float64

    def errors(self, sizes: ArrayLike) -> Float64:
        """Return the error of each curve at each size: (r, m)."""
        n = np.asarray(sizes, dtype=np.float64)
        return self.c[:, None] + self.a[:, None] * _falling(self.law, self.shape, n)

    def take(self, index: ArrayLike) -> Fits:
        """Return these curves only."""
        i = np.asarray(index)
        return Fits(self.law, self.c[i], self.a[i], self.shape[i], self.chi2[i])


def fit_law(law: LawName, sizes: ArrayLike, errors: ArrayLike, weights: ArrayLike) -> Fits:
    """Fit one law to several curves that were measured at the same sizes.

    Args:
        law: which.
        sizes: (m,) rows, above 0.
        errors: (r, m) one curve per row.
        weights: (m,) one over the variance of each point, or (m, m) the inverse of the
            covariance.
    """
    n = np.asarray(sizes, dtype=np.float64)
    y = np.atleast_2d(np.asarray(errors, dtype=np.float64))
    p = _as_precision(weights)
    shapes = _shapes(law, n)
    c, a, residual = _fit_shapes(_falling(law, shapes, n), y, p)
    best, curve = residual.argmin(axis=1), np.arange(len(y))
    fits = Fits(law, c[curve, best], a[curve, best], shapes[best], np.zeros(len(y)))
    chi2 = _square(y - fits.errors(n), p)  # the written-out sum above cancels near zero
    return Fits(law, fits.c, fits.a, fits.shape, chi2)


@dataclass(frozen=True)
class ShapeWeights:
    """All shapes of a law, each with its likelihood on one curve; the prior is uniform.

    The variance of the points is an estimate with `dof` degrees of freedom, so the likelihood is
    Student's t.

    Attributes:
        law: which.
        sizes: (m,) rows.
        errors: (m,) points of the curve.
        precision: (m, m) inverse of the estimated covariance of the points.
        shapes: (g, 3) grid.
        chi2: (g,) weighted sum of squared residuals at the best height and floor.
        dof: degrees of freedom of the variance.
    """

    law: LawName
    sizes: Float64
    errors: Float64
    precision: Float64
    shapes: Float64
    chi2: Float64
    dof: float

    @property
    def log_likelihood(self) -> Float64:
        """Log-likelihood of each shape up to a constant that all laws share, (g,)."""
        log_t: Float64 = -0.5 * (self.dof + len(self.sizes)) * np.log1p(self.chi2 / self.dof)
        return log_t

    @property
    def log_evidence(self) -> float:
        """Log of the mean likelihood over the grid: a law pays for having many shapes."""
        highest = float(self.log_likelihood.max())
        return highest + float(np.log(np.exp(self.log_likelihood - highest).mean()))

    def sample(self, n_samples: int, rng: np.random.Generator) -> Fits:
        """Return (n_samples,) curves: shapes by likelihood, height and floor from noisy points."""
        # a shape of the grid for each curve, in proportion to its likelihood
        likelihood = np.exp(self.log_likelihood - self.log_likelihood.max())
        chosen = rng.choice(len(self.shapes), n_samples, p=likelihood / likelihood.sum())
        # its standard deviation, relative to the estimated one: scaled inverse chi-square
        freedom = self.dof + len(self.sizes) - N_LINEAR[self.law]
        spread = np.sqrt((self.dof + self.chi2[chosen]) / rng.chisquare(max(freedom, 1.0), n_samples))
        # the points moved by that noise, and the height and floor that fit them best
        root = np.linalg.cholesky(np.linalg.inv(self.precision))  # root root' is the covariance
        noise = rng.normal(size=(n_samples, len(self.sizes))) @ root.T
        y = self.errors + noise * spread[:, None]
        c, a = solve_line(_falling(self.law, self.shapes[chosen], self.sizes), y, self.precision)
        return Fits(self.law, c, a, self.shapes[chosen], self.chi2[chosen])


def weigh_shapes(law: LawName, sizes: ArrayLike, errors: ArrayLike, weights: ArrayLike, *, dof: float) -> ShapeWeights:
    """Weigh every shape of a law against one curve.

    Args:
        law: which.
        sizes: (m,) rows, above 0.
        errors: (m,) points.
        weights: (m,) one over the estimated variance of each point, or (m, m) the inverse of their
            covariance.
        dof: degrees of freedom of that variance.
    """
    n, y, p = np.asarray(sizes, np.float64), np.asarray(errors, np.float64), _as_precision(weights)
    shapes = _shapes(law, n)
    phi = _falling(law, shapes, n)
    c, a, _ = _fit_shapes(phi, y[None], p)
    chi2 = _square(y - c[0][:, None] - a[0][:, None] * phi, p)
    return ShapeWeights(law, n, y, p, shapes, chi2, dof)


def _as_precision(weights: ArrayLike) -> Float64:
    """Return (m, m) from one weight per point, or from the matrix itself."""
    w = np.asarray(weights, dtype=np.float64)
    return np.diag(w) if w.ndim == 1 else w


def _square(residual: Float64, p: Float64) -> Float64:
    """Return r' P r of each row r: (r,)."""
    squares: Float64 = ((residual @ p) * residual).sum(axis=-1)
    return squares


def _fit_shapes(phi: Float64, y: Float64, p: Float64) -> tuple[Float64, Float64, Float64]:
    """Return c, a and the weighted sum of squared residuals of each curve and shape: (r, g)."""
    c, a = _solve(phi, y, p)
    # (y - c - a phi)' P (y - c - a phi), multiplied out so that no (r, g, m) array is needed
    ones = p.sum(axis=1)
    residual = (
        _square(y, p)[:, None]
        + c * c * p.sum()
        + a * a * _square(phi, p)
        - 2 * c * (y @ ones)[:, None]
        - 2 * a * (y @ p @ phi.T)
        + 2 * a * c * (phi @ ones)
    )
    return c, a, residual


def _solve(phi: Float64, y: Float64, p: Float64) -> tuple[Float64, Float64]:
    """Return c >= 0 and a >= 0 by weighted least squares, for each curve and shape: (r, g) each."""
    mean_phi, centered, variance, square = _moments(phi, p)
    mean_y = (y @ p.sum(axis=1)) / p.sum()
    a = (y @ p @ centered.T) / variance  # slope of y on phi
    c = mean_y[:, None] - a * mean_phi  # intercept
    slope_at_zero_floor = (y @ p @ phi.T) / square
    return _clip_to_bounds(c, a, slope_at_zero_floor, mean_y[:, None])


def solve_line(phi: Float64, y: Float64, p: Float64) -> tuple[Float64, Float64]:
    """Return c and a as `_solve` does, for curve i with shape i alone: (r,) each."""
    mean_phi, centered, variance, square = _moments(phi, p)
    mean_y, weighted = (y @ p.sum(axis=1)) / p.sum(), y @ p
    a = (weighted * centered).sum(axis=1) / variance
    return _clip_to_bounds(mean_y - a * mean_phi, a, (weighted * phi).sum(axis=1) / square, mean_y)


def _moments(phi: Float64, p: Float64) -> tuple[Float64, Float64, Float64, Float64]:
    """Return phi's weighted mean, phi minus it, and weighted sums of squares of both."""
    tiny = np.finfo(float).tiny
    mean = (phi @ p.sum(axis=1)) / p.sum()
    centered = phi - mean[:, None]
    return mean, centered, np.maximum(_square(centered, p), tiny), np.maximum(_square(phi, p), tiny)


def _clip_to_bounds(c: Float64, a: Float64, slope_at_zero_floor: Float64, mean_y: Float64) -> tuple[Float64, Float64]:
    """Move a solution to the edge of c >= 0 and a >= 0 where it lies outside."""
    # a floor below zero becomes zero, and the height is the best one through the origin
    a, c = np.where(c < 0, slope_at_zero_floor, a), np.where(c < 0, 0.0, c)
    # a height below zero becomes zero, and the floor is the mean of the points
    return np.where(a < 0, np.maximum(mean_y, 0.0), c), np.where(a < 0, 0.0, a)


def _shapes(law: LawName, n: Float64) -> Float64:
    """Return the grid of shapes (g, 3), relative to the measured sizes: units do not matter."""
    grid: list[Any] = []
    if law == "power":
        grid = [_EXPONENTS]
    elif law == "rectified":
        grid = [_FEW_EXPONENTS, np.geomspace(n.min() / 4, 2 * n.max(), _PRE_LEARNED)]
    elif law == "exponential":
        grid = [_DECAYS / n.max()]
    elif law == "logarithmic":
        # from just above the smallest size: an end below it would leave the constant law
        grid = [np.geomspace(n.min() * 2**0.25, _FARTHEST_END * n.max(), _ENDS)]
    elif law == "broken":
        within = np.geomspace(n.min(), n.max(), _BREAKS + 2)[1:-1]
        grid = [np.array(_TAIL_ENDS) * n.max(), within, np.array(_STEEPER)]
    # every value of a parameter with every value of the others
    columns = [column.ravel() for column in np.meshgrid(*grid, indexing="ij")]
    unused = [np.zeros(len(columns[0]) if columns else 1)] * (3 - len(columns))
    return np.column_stack([*columns, *unused])


def _falling(law: LawName, shapes: Float64, n: Float64) -> Float64:
    """Return the falling part at a = 1: (g, m)."""
    first, second, third = shapes[:, :1], shapes[:, 1:2], shapes[:, 2:]
    if law == "power":
        return np.asarray(n[None, :] ** -first)
    if law == "rectified":
        # scaled by d^b + 1: the height a keeps one magnitude whatever the exponent
        return np.asarray((second**first + 1) / (second**first + n[None, :] ** first))
    if law == "exponential":
        return np.asarray(np.exp(-first * n[None, :]))
    if law == "logarithmic":
        return np.asarray(np.maximum(np.log(first / n[None, :]), 0.0))
    if law == "broken":
        before, tail = (np.maximum(np.log(end / n[None, :]), 0.0) for end in (second, first))
        return np.asarray((tail + third * before) / (1 + third))  # one magnitude whatever s
    return np.zeros((len(shapes), len(n)))
