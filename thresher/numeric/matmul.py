"""Where the matrix products of features run: in numpy, or on a device that the caller knows of.

Selectors know no device. Whoever hands them features says along with them where products may run
(`Features.products`), and the backend decides by the size of the work whether a device pays off.
All products are of float32 in full precision.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from thresher.numeric.arrays import Float32, Ints


class LoadedRows(Protocol):
    """Rows in the memory of the backend that multiplies them."""

    def largest_products(self, rows: Ints, others: Any, members: Ints, k: int) -> tuple[Float32, Ints]:
        """Multiply some rows with some of the others, loaded by the same backend.

        Args:
            rows: (q,) which.
            others: what `load_rows` returned.
            members: (m,) which of the others.
            k: how many of the largest products are needed.

        Returns:
            (q, c) products of each row, the k largest among them, in no order; (q, c) the members
            they belong to.
        """


class MatmulBackend(Protocol):
    """Computes matrix products."""

    @property
    def name(self) -> str:
        """Where they run, for manifests."""

    def choose_backend(self, n_multiplications: float, n_bytes: int) -> MatmulBackend:
        """Return the backend for work of that size, holding that many bytes at a time."""

    def lower_triangle(self, x: Float32) -> Float32:
        """Return (n, n): x_i . x_j on and below the diagonal, anything above it."""

    def load_rows(self, x: Float32) -> LoadedRows:
        """Put rows where their products are computed; they must not change while they are there."""


class _NumpyRows:
    def __init__(self, x: Float32) -> None:
        self._x = x

    def largest_products(self, rows: Ints, others: _NumpyRows, members: Ints, k: int) -> tuple[Float32, Ints]:
        """Return all products: skipping the small ones takes the caller less time than sorting."""
        product = self._x[rows] @ others._x[members].T
        return product, np.broadcast_to(members, product.shape)


class NumpyBackend:
    """Products by the BLAS."""

    name = "numpy"

    def choose_backend(self, n_multiplications: float, n_bytes: int) -> MatmulBackend:
        """Return this backend."""
        return self

    def lower_triangle(self, x: Float32) -> Float32:
        """Compute each pair once: half the work of a full product."""
        from scipy.linalg.blas import ssyrk

        out = np.empty((len(x), len(x)), np.float32)
        # Fortran's upper triangle is C's lower one
        return np.asarray(ssyrk(1.0, x.T, trans=1, c=out.T, overwrite_c=1, lower=0), dtype=np.float32).T

    def load_rows(self, x: Float32) -> _NumpyRows:
        """Keep the array itself."""
        return _NumpyRows(x)


NUMPY = NumpyBackend()
