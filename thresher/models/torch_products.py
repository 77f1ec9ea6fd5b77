"""Matrix products of features on a GPU, through torch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

import numpy as np

from thresher.models.async_copy import PendingTensor, prefetch_one, to_device_async
from thresher.models.device import free_bytes, may_have_gpu
from thresher.models.precision import exact_inference
from thresher.numeric.arrays import Float32, Ints
from thresher.numeric.matmul import NUMPY, MatmulBackend

if TYPE_CHECKING:
    import torch


# About a second of two cores: below it, loading and copying cost what the device saves. Reasoned,
# not measured.
WORTH_A_DEVICE = 5e10
USABLE = 0.8  # of the device's free memory
BLOCK_CELLS = 1 << 25  # products made at a time: 128 MB


def load_products(device: str | None) -> MatmulBackend:
    """Return what makes matrix products where features are computed: numpy but for CUDA devices.

    Args:
        device: as the user named it; None for a CUDA device where there is one.
    """
    if not (may_have_gpu() if device is None else device.startswith("cuda")):
        return NUMPY
    try:
        import torch
    except ImportError:
        return NUMPY
    return TorchProducts(device or "cuda") if torch.cuda.is_available() else NUMPY


class TorchProducts:
    """Products on one device, in float32 with TF32 switched off.

    They differ from numpy's by rounding, like those of another BLAS: gains that are as close are
    compared in float64.
    """

    def __init__(self, device: str, *, worth: float = WORTH_A_DEVICE) -> None:
        """Name a device.

        Args:
            device: as torch names it.
            worth: multiplications below which the work stays in numpy.
        """
        import torch

        self._device = torch.device(device)
        self._worth = worth

    @property
    def name(self) -> str:
        """The device."""
        return f"torch on {self._device}"

    def choose_backend(self, n_multiplications: float, n_bytes: int) -> MatmulBackend:
        """Return this for work that is large enough and fits the free memory, else numpy's."""
        if n_multiplications < self._worth:
            return NUMPY
        free = free_bytes(self._device)
        # two blocks of products under way, and what their making takes
        room = n_bytes + 3 * 4 * BLOCK_CELLS
        return self if free is None or room <= USABLE * free else NUMPY

    def lower_triangle(self, x: Float32) -> Float32:
        """Compute the triangle by blocks of rows; one is copied while the next is computed."""
        import torch

        out = np.empty((len(x), len(x)), np.float32)
        step = max(1, BLOCK_CELLS // len(x))

        def blocks() -> Iterator[tuple[int, int, PendingTensor]]:
            # once: pinned, it would be in memory a second time
            held = torch.from_numpy(x).to(self._device)
            for first in range(0, len(x), step):
                last = min(first + step, len(x))
                yield first, last, PendingTensor(held[first:last] @ held[:last].T)

        with _making_products(self._device):
            for first, last, product in prefetch_one(blocks()):
                out[first:last, :last] = product.array()
        return out

    def load_rows(self, x: Float32) -> _TorchRows:
        """Copy rows to the device."""
        import torch

        with _making_products(self._device):
            return _TorchRows(torch.from_numpy(x).to(self._device))


class _TorchRows:
    def __init__(self, x: torch.Tensor) -> None:
        self._x = x

    def largest_products(self, rows: Ints, others: _TorchRows, members: Ints, k: int) -> tuple[Float32, Ints]:
        """Return the k largest alone: half the bytes of all products."""
        import torch

        def to_device(numbers: Ints) -> torch.Tensor:
            return to_device_async(torch.from_numpy(numbers.astype(np.int64)), self._x.device)

        with _making_products(self._x.device):
            product = self._x[to_device(rows)] @ others._x[to_device(members)].T
            largest = torch.topk(product, min(k, len(members)), dim=1, sorted=False)
            value, place = PendingTensor(largest.values), PendingTensor(largest.indices)
        return value.array(), members[place.array()]


def _making_products(device: torch.device) -> AbstractContextManager[None]:
    """Keep torch to products of float32, and say what to do where they do not fit.

    Raises:
        InputError: the device has no room for rows or products.
    """
    return exact_inference(
        f"products on {device}: rows and their products must fit the device's memory, which had room when they "
        f"were planned and has none now; free it of other work, or set device to 'cpu'"
    )
