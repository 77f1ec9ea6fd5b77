"""Features: named arrays aligned with the rows. Plain numpy; no model and no disk here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.errors import InputError, NotFoundError

Array = NDArray[Any]


@dataclass(frozen=True, kw_only=True)
class Features(Mapping[str, Array]):
    """Named arrays, each with one entry per row, checked when built.

    Attributes:
        row_id: (n,) string.
        arrays: name -> (n, ...) array: `embedding` (n, d) float32, `length` (n,) int64 tokens,
            `column:NAME` (n,) int64 codes of the values of a column, and so on.
        context: name -> array that is not aligned with the rows: `existing_embedding` (m, d)
            float32 of rows the user already has, `target_embedding` (q, d) float32.
    """

    row_id: pl.Series
    arrays: Mapping[str, Array]
    context: Mapping[str, Array] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse NaN, infinities and arrays of the wrong length."""
        n = len(self.row_id)
        for name, array in self.arrays.items():
            if len(array) != n:
                raise InputError(f"feature '{name}' must have one entry per row ({n}), got {len(array)}")
        for name, array in (*self.arrays.items(), *self.context.items()):
            if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
                bad = np.flatnonzero(~np.isfinite(array).reshape(len(array), -1).all(axis=1))
                raise InputError(f"feature '{name}' has {len(bad)} rows with NaN or infinity (first: {bad[0]})")

    def __getitem__(self, name: str) -> Array:
        """Return the array of that name, or say which names there are."""
        if name not in self.arrays:
            raise NotFoundError(
                f"feature '{name}' was not computed; there are: {', '.join(sorted(self.arrays)) or 'none'}"
            )
        return self.arrays[name]

    def __contains__(self, name: object) -> bool:
        """Tell whether an array of that name was computed."""
        return name in self.arrays

    def get(self, name: str, default: Any = None) -> Any:
        """Return the array of that name, or the default."""
        return self.arrays.get(name, default)

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names of the arrays."""
        return iter(self.arrays)

    def __len__(self) -> int:
        """Return the number of arrays; `n_rows` is the number of rows."""
        return len(self.arrays)

    @property
    def n_rows(self) -> int:
        """Number of rows."""
        return len(self.row_id)
