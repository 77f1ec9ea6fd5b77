"""Arrays that a computation may find again instead of computing them anew."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol

from thresher.numeric.arrays import Array


class StoredArrays(NamedTuple):
    """What a computation gave.

    Attributes:
        arrays: name -> array; whoever gets them may change them.
        facts: name -> JSON value.
    """

    arrays: Mapping[str, Array]
    facts: Mapping[str, Any]


class ArrayStore(Protocol):
    """Keeps what was computed. Selectors know no disk: whoever hands them features brings it."""

    def load_or_compute(self, key: Mapping[str, Any], compute: Callable[[], StoredArrays]) -> StoredArrays:
        """Return what was computed under this key before, or compute it.

        Args:
            key: JSON values, everything that determines the arrays.
            compute: gives them.
        """

    def has_arrays(self, key: Mapping[str, Any]) -> bool:
        """Tell whether arrays of this key are there."""


class NoStore:
    """Computes everything anew."""

    def load_or_compute(self, key: Mapping[str, Any], compute: Callable[[], StoredArrays]) -> StoredArrays:
        """Return what `compute` gives."""
        del key
        return compute()

    def has_arrays(self, key: Mapping[str, Any]) -> bool:
        """Tell that there are none."""
        del key
        return False


NO_STORE = NoStore()
