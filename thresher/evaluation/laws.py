"""Laws of learning curves: how the held-out error falls with the number of training rows.

    power        e(n) = c + a n^-b                     pow3
    rectified    e(n) = c + a / (d^b + n^b)            mmf4; arXiv:2402.02314 with alpha = 1
    exponential  e(n) = c + a exp(-k n)                exp3
    constant     e(n) = c

with a >= 0 (height) and c >= 0 (floor). For a given shape (b; b and d; k) each is linear in (a, c).
Shapes lie on a grid and (a, c) follow in closed form by weighted least squares, so a fit needs no
starting value and cannot diverge.

A few points hardly determine the shape: `weigh_shapes` keeps every shape of the grid with its
likelihood, and curves are sampled from all of them, not only from the neighborhood of the best one.

Array sizes: r curves, m measured sizes, g shapes on the grid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from thresher.numeric.arrays import Float64

LawName = Literal["power", "rectified", "exponential", "constant"]
N_PARAMETERS: dict[LawName, int] = {"power": 3, "rectified": 4, "exponential": 3, "constant": 1}
# height and floor
N_LINEAR: dict[LawName, int] = {"power": 2, "rectified": 2, "exponential": 2, "constant": 1}

_EXPONENTS = np.linspace(0.05, 1.5, 1161)  # steps of 0.00125
_FEW_EXPONENTS = np.linspace(0.05, 1.5, 233)  # for the law that has a second shape parameter
_PRE_LEARNED = 48  # values of d, from a quarter of the smallest size to twice the largest
_DECAYS = np.geomspace(0.25, 64, 1600)  # values of k, in decays over the largest size


@dataclass(frozen=True)
class Fits:
    """The same law fitted to several curves.

    Attributes:
        law: which.
        c: (r,) error with endless rows.
        a: (r,) height of the falling part.
        shape: (r, 2) exponent b and pre-learned rows d; decay k and 0 for the exponential.
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
        weights: (m,) one over the variance of each point.
    """
    n = np.asarray(sizes, dtype=np.float64)
    y = np.atleast_2d(np.asarray(errors, dtype=np.float64))
    w = np.asarray(weights, dtype=np.float64)
    shapes = _shapes(law, n)
    c, a, residual = _fit_shapes(_falling(law, shapes, n), y, w)
    best, curve = residual.argmin(axis=1), np.arange(len(y))
    fits = Fits(law, c[curve, best], a[curve, best], shapes[best], np.zeros(len(y)))
    chi2 = ((y - fits.errors(n)) ** 2) @ w  # the written-out sum above cancels near zero
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
        weights: (m,) one over the estimated variance of each point.
        shapes: (g, 2) grid.
        chi2: (g,) weighted sum of squared residuals at the best height and floor.
        dof: degrees of freedom of the variance.
    """

    law: LawName
    sizes: Float64
    errors: Float64
    weights: Float64
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
        y = self.errors + rng.normal(size=(n_samples, len(self.sizes))) * spread[:, None] / np.sqrt(self.weights)
        c, a = _solve_each(_falling(self.law, self.shapes[chosen], self.sizes), y, self.weights)
        return Fits(self.law, c, a, self.shapes[chosen], self.chi2[chosen])


def weigh_shapes(law: LawName, sizes: ArrayLike, errors: ArrayLike, weights: ArrayLike, *, dof: float) -> ShapeWeights:
    """Weigh every shape of a law against one curve.

    Args:
        law: which.
        sizes: (m,) rows, above 0.
        errors: (m,) points.
        weights: (m,) one over the estimated variance of each point.
        dof: degrees of freedom of that variance.
    """
    n, y, w = (np.asarray(values, dtype=np.float64) for values in (sizes, errors, weights))
    shapes = _shapes(law, n)
    phi = _falling(law, shapes, n)
    c, a, _ = _fit_shapes(phi, y[None], w)
    chi2 = ((y - c[0][:, None] - a[0][:, None] * phi) ** 2) @ w
    return ShapeWeights(law, n, y, w, shapes, chi2, dof)


def _fit_shapes(phi: Float64, y: Float64, w: Float64) -> tuple[Float64, Float64, Float64]:
    """Return c, a and the weighted sum of squared residuals of each curve and shape: (r, g)."""
    c, a = _solve(phi, y, w)
    # sum over m of w (y - c - a phi)^2, multiplied out so that no (r, g, m) array is needed
    residual = (
        ((y * y) @ w)[:, None]
        + c * c * w.sum()
        + a * a * ((phi * phi) @ w)
        - 2 * c * (y @ w)[:, None]
        - 2 * a * ((y * w) @ phi.T)
        + 2 * a * c * (phi @ w)
    )
    return c, a, residual


def _solve(phi: Float64, y: Float64, w: Float64) -> tuple[Float64, Float64]:
    """Return c >= 0 and a >= 0 by weighted least squares, for each curve and shape: (r, g) each."""
    mean_phi, centered, variance, square = _moments(phi, w)
    mean_y = (y @ w) / w.sum()
    a = ((y * w) @ centered.T) / variance  # slope of y on phi
    c = mean_y[:, None] - a * mean_phi  # intercept
    slope_at_zero_floor = ((y * w) @ phi.T) / square
    return _clip_to_bounds(c, a, slope_at_zero_floor, mean_y[:, None])


def _solve_each(phi: Float64, y: Float64, w: Float64) -> tuple[Float64, Float64]:
    """Return c and a as `_solve` does, for curve i with shape i alone: (r,) each."""
    mean_phi, centered, variance, square = _moments(phi, w)
    mean_y = (y @ w) / w.sum()
    a = ((y * centered) @ w) / variance
    return _clip_to_bounds(mean_y - a * mean_phi, a, ((y * phi) @ w) / square, mean_y)


def _moments(phi: Float64, w: Float64) -> tuple[Float64, Float64, Float64, Float64]:
    """Return phi's weighted mean, phi minus it, and weighted sums of squares of both."""
    tiny = np.finfo(float).tiny
    mean = (phi @ w) / w.sum()
    centered = phi - mean[:, None]
    return mean, centered, np.maximum((centered**2) @ w, tiny), np.maximum((phi**2) @ w, tiny)


def _clip_to_bounds(c: Float64, a: Float64, slope_at_zero_floor: Float64, mean_y: Float64) -> tuple[Float64, Float64]:
    """Move a solution to the edge of c >= 0 and a >= 0 where it lies outside."""
    # a floor below zero becomes zero, and the height is the best one through the origin
    a, c = np.where(c < 0, slope_at_zero_floor, a), np.where(c < 0, 0.0, c)
    # a height below zero becomes zero, and the floor is the mean of the points
    return np.where(a < 0, np.maximum(mean_y, 0.0), c), np.where(a < 0, 0.0, a)


def _shapes(law: LawName, n: Float64) -> Float64:
    """Return the grid of shapes (g, 2), relative to the measured sizes: units do not matter."""
    if law == "power":
        return np.column_stack([_EXPONENTS, np.zeros(len(_EXPONENTS))])
    if law == "rectified":  # every exponent with every d
        d = np.geomspace(n.min() / 4, 2 * n.max(), _PRE_LEARNED)
        return np.column_stack([np.repeat(_FEW_EXPONENTS, len(d)), np.tile(d, len(_FEW_EXPONENTS))])
    if law == "exponential":
        return np.column_stack([_DECAYS / n.max(), np.zeros(len(_DECAYS))])
    return np.zeros((1, 2))


def _falling(law: LawName, shapes: Float64, n: Float64) -> Float64:
    """Return the falling part at a = 1: (g, m)."""
    first, second = shapes[:, :1], shapes[:, 1:]
    if law == "power":
        return np.asarray(n[None, :] ** -first)
    if law == "rectified":
        # scaled by d^b + 1: the height a keeps one magnitude whatever the exponent
        return np.asarray((second**first + 1) / (second**first + n[None, :] ** first))
    if law == "exponential":
        return np.asarray(np.exp(-first * n[None, :]))
    return np.zeros((len(shapes), len(n)))
