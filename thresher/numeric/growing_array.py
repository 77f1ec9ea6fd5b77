"""An array that grows at its end without a second copy of what it has."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray


class GrowingArray:
    """A vector that parts are appended to.

    Parts kept in a list and joined at the end take twice the memory for a moment. Here the block is
    made longer in place: the system moves its pages and copies nothing.
    """

    def __init__(self, dtype: DTypeLike) -> None:
        """Begin without elements."""
        self._array: NDArray[Any] = np.empty(0, dtype)

    def __len__(self) -> int:
        """Return the number of elements."""
        return len(self._array)

    def append(self, part: NDArray[Any]) -> None:
        """Add (m,) elements; `values` taken before are no longer valid."""
        filled = len(self._array)
        self._array.resize(filled + len(part), refcheck=False)
        self._array[filled:] = part

    @property
    def values(self) -> NDArray[Any]:
        """All elements so far, to be read once nothing more is appended."""
        return self._array
