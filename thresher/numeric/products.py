"""Where the matrix products of features run: here in numpy, or on a device that the caller knows of.

Selectors know no device. Whoever hands them features says with them where products may run
(`Features.products`); a `Products` decides by the size of the work whether a device is worth it.
All products are of float32 in full precision.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from thresher.numeric.arrays import Float32, Ints


class Held(Protocol):
    """Rows, held where their products are made."""

    def largest(self, rows: Ints, others: Any, members: Ints, k: int) -> tuple[Float32, Ints]:
        """Multiply some rows with some of the others, held in the same place.

        Args:
            rows: (q,) which.
            others: what `hold` gave.
            members: (m,) which of the others.
            k: how many of the largest products are needed.

        Returns:
            (q, c) products of each row, the k largest among them, in no order; (q, c) the members
            they belong to.
        """


class Products(Protocol):
    """Makes matrix products."""

    @property
    def name(self) -> str:
        """Where they run, for manifests."""

    def for_work(self, n_multiplications: float, n_bytes: int) -> Products:
        """Return what should do work of that size, over so many bytes of rows and results at a time."""

    def lower_triangle(self, x: Float32) -> Float32:
        """Return (n, n) whose entries on and below the diagonal are x_i . x_j, the others anything."""

    def hold(self, x: Float32) -> Held:
        """Put rows where their products are made; they must not change while they are held."""


class _NumpyHeld:
    def __init__(self, x: Float32) -> None:
        self._x = x

    def largest(self, rows: Ints, others: _NumpyHeld, members: Ints, k: int) -> tuple[Float32, Ints]:
        """Return all products: who keeps the largest has passed over the others in the time it takes to sort them."""
        product = self._x[rows] @ others._x[members].T
        return product, np.broadcast_to(members, product.shape)


class NumpyProducts:
    """Products by the BLAS."""

    name = "numpy"

    def for_work(self, n_multiplications: float, n_bytes: int) -> Products:
        """Return this."""
        return self

    def lower_triangle(self, x: Float32) -> Float32:
        """Compute each pair once: half the work of a product of the whole."""
        from scipy.linalg.blas import ssyrk

        out = np.empty((len(x), len(x)), np.float32)
        # Fortran's upper triangle is C's lower one
        return np.asarray(ssyrk(1.0, x.T, trans=1, c=out.T, overwrite_c=1, lower=0), dtype=np.float32).T

    def hold(self, x: Float32) -> _NumpyHeld:
        """Hold the array itself."""
        return _NumpyHeld(x)


NUMPY = NumpyProducts()
