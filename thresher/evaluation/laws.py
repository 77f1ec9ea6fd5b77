"""Laws of learning curves: how the held-out error falls with the number of training rows.

    power        e(n) = c + a n^-b                     pow3
    rectified    e(n) = c + a / (d^b + n^b)            mmf4; Lin et al. 2024, arXiv:2402.02314, with alpha = 1
    exponential  e(n) = c + a exp(-k n)                exp3
    constant     e(n) = c

with a >= 0 and c >= 0. For a given shape (b; b and d; k) each is linear in (a, c). Shapes lie on a grid and (a, c)
follow in closed form by weighted least squares, so that a fit has no starting value and cannot diverge.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]
LawName = Literal["power", "rectified", "exponential", "constant"]
N_PARAMETERS: dict[LawName, int] = {"power": 3, "rectified": 4, "exponential": 3, "constant": 1}

_EXPONENTS = np.linspace(0.05, 1.5, 291)  # steps of 0.005
_FEW_EXPONENTS = np.linspace(0.05, 1.5, 117)  # where there is a second shape beside
_PRE_LEARNED = 12  # values of d, from a quarter of the smallest size to twice the largest
_DECAYS = np.geomspace(0.25, 64, 400)  # values of k, in decays over the largest size


@dataclass(frozen=True)
class Fits:
    """The same law fitted to several curves.

    Attributes:
        law: which.
        c: (r,) error that no number of rows gets below.
        a: (r,) height of the part that falls.
        shape: (r, 2) exponent b and pre-learned rows d; decay k and 0 for the exponential.
        chi2: (r,) weighted sum of squared residuals.
    """

    law: LawName
    c: Array
    a: Array
    shape: Array
    chi2: Array

    def errors(self, sizes: ArrayLike) -> Array:
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
    phi = _falling(law, shapes, n)  # (g, m)
    c, a = _solve(phi, y, w)
    # sum of w (y - c - a phi)^2, written out so that no (r, g, m) array is made
    residual = (
        ((y * y) @ w)[:, None]
        + c * c * w.sum()
        + a * a * ((phi * phi) @ w)
        - 2 * c * (y @ w)[:, None]
        - 2 * a * ((y * w) @ phi.T)
        + 2 * a * c * (phi @ w)
    )
    best, curve = residual.argmin(axis=1), np.arange(len(y))
    found = Fits(law, c[curve, best], a[curve, best], shapes[best], np.zeros(len(y)))
    chi2 = ((y - found.errors(n)) ** 2) @ w  # again without the cancellation of the sum above
    return Fits(law, found.c, found.a, found.shape, chi2)


def _solve(phi: Array, y: Array, w: Array) -> tuple[Array, Array]:
    """Return c and a of the weighted least squares with c >= 0 and a >= 0, for each curve and shape: (r, g) each."""
    mean_phi, mean_y = (phi @ w) / w.sum(), (y @ w) / w.sum()
    centred = phi - mean_phi[:, None]
    spread = np.maximum((centred**2) @ w, np.finfo(float).tiny)
    a = ((y * w) @ centred.T) / spread
    c = mean_y[:, None] - a * mean_phi
    through_zero = ((y * w) @ phi.T) / np.maximum((phi**2) @ w, np.finfo(float).tiny)
    a, c = np.where(c < 0, through_zero, a), np.where(c < 0, 0.0, c)
    return np.where(a < 0, np.maximum(mean_y, 0.0)[:, None], c), np.where(a < 0, 0.0, a)


def _shapes(law: LawName, n: Array) -> Array:
    """Return the grid of shapes (g, 2), in rows relative to the measured sizes, so that units do not matter."""
    if law == "power":
        return np.column_stack([_EXPONENTS, np.zeros(len(_EXPONENTS))])
    if law == "rectified":
        d = np.geomspace(n.min() / 4, 2 * n.max(), _PRE_LEARNED)
        return np.column_stack([np.repeat(_FEW_EXPONENTS, len(d)), np.tile(d, len(_FEW_EXPONENTS))])
    if law == "exponential":
        return np.column_stack([_DECAYS / n.max(), np.zeros(len(_DECAYS))])
    return np.zeros((1, 2))


def _falling(law: LawName, shapes: Array, n: Array) -> Array:
    """Return the part that falls, at a = 1: (g, m)."""
    first, second = shapes[:, :1], shapes[:, 1:]
    if law == "power":
        return np.asarray(n[None, :] ** -first)
    if law == "rectified":
        # scaled by d^b + 1: the height a keeps one magnitude whatever the exponent
        return np.asarray((second**first + 1) / (second**first + n[None, :] ** first))
    if law == "exponential":
        return np.asarray(np.exp(-first * n[None, :]))
    return np.zeros((len(shapes), len(n)))
