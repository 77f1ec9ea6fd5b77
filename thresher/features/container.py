"""Features: named arrays aligned with the rows. Plain numpy; no model and no disk here."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.errors import InputError, NotFoundError
from thresher.numeric.array_store import NO_STORE, ArrayStore
from thresher.numeric.arrays import Array
from thresher.numeric.matmul import NUMPY, MatmulBackend
from thresher.printable import escape_line

# Names that features had in files and caches written by version 0.1.0; they are accepted
# everywhere.
FORMER_NAMES = {
    "n_scored": "n_response_tokens",
    "n_cut": "n_truncated_tokens",
    "hidden": "hidden_state",
    "gradient_plain": "target_gradient",
    "utility": "in_context_utility",
    "knowledge": "answer_accuracy",
}


def current_name(name: str) -> str:
    """Return the name that a feature has now, given this or its former one."""
    return FORMER_NAMES.get(name, name)


@dataclass(frozen=True, kw_only=True)
class Features(Mapping[str, Array]):
    """Named arrays, each with one entry per row, checked when built.

    Attributes:
        row_id: (n,) string.
        arrays: name -> (n, ...) array: `embedding` (n, d) float32, `length` (n,) int64 tokens,
            `column:NAME` (n,) int64 codes of the values of a column, `number:NAME` (n,) float64,
            and so on.
        context: name -> array that is not aligned with the rows: `existing_embedding` (m, d)
            float32 of rows the user already has, `target_embedding` (q, d) float32; but for those
            that measure the rows together with others, such as `target_influence`.
        missing: name -> (n,) string: why the array has no value (NaN) for a row, null where it has
            one. Only features that can lack values are in it.
        notes: name -> facts about how an array came to be that belong into a manifest, such as rows
            that were cut.
        reasons: name -> (n,) string: why a value is what it is, null where there is nothing to say.
        products: makes matrix products of the arrays; numpy unless whoever computed them knows a
            device.
        store: keeps what selectors compute and others can use again, such as neighbor graphs;
            nothing unless whoever computed the features has a cache.
    """

    row_id: pl.Series
    arrays: Mapping[str, Array]
    context: Mapping[str, Array] = field(default_factory=dict)
    missing: Mapping[str, pl.Series] = field(default_factory=dict)
    notes: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    reasons: Mapping[str, pl.Series] = field(default_factory=dict)
    products: MatmulBackend = NUMPY
    store: ArrayStore = NO_STORE

    def __post_init__(self) -> None:
        """Refuse arrays of the wrong length, infinities, and NaN without a reason."""
        n = len(self.row_id)
        for name, array in self.arrays.items():
            if len(array) != n:
                raise InputError(f"feature '{name}' must have one entry per row ({n}), got {len(array)}")
        for name, array in (*self.arrays.items(), *self.context.items()):
            bad = self._bad_rows(name, array) if np.issubdtype(array.dtype, np.floating) else np.zeros(0, np.int64)
            if len(bad):
                raise InputError(f"feature '{name}' has {len(bad)} rows with NaN or infinity (first: {bad[0]})")

    def _bad_rows(self, name: str, array: Array) -> NDArray[np.int64]:
        """Return the rows that are not finite, unless they have a reason and are all NaN."""
        inner = tuple(range(1, array.ndim))
        is_finite = np.isfinite(array).all(axis=inner)
        if name not in self.missing:
            return np.flatnonzero(~is_finite)
        has_reason = self.missing[name].is_not_null().to_numpy()
        is_nan = np.isnan(array).all(axis=inner)
        return np.flatnonzero(np.where(has_reason, ~is_nan, ~is_finite))

    def __repr__(self) -> str:
        """Return the number of rows, and the shape of each array."""
        shapes = {name: array.shape[1:] for name, array in self.arrays.items()}
        return escape_line(f"Features({len(self.row_id)} rows, shapes={shapes})")

    def __getitem__(self, name: str) -> Array:
        """Return the array of that name, or say which names there are."""
        if (current := current_name(name)) not in self.arrays:
            raise NotFoundError(
                f"feature '{name}' was not computed; there are: {', '.join(sorted(self.arrays)) or 'none'}"
            )
        return self.arrays[current]

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

    def missing_reasons(self, *names: str, other: Array | None = None) -> pl.Series:
        """Return (n,) string: why a row lacks one of these features, the first that it lacks.

        Null where it has all.

        Args:
            names: of features.
            other: (n,) texts, reasons for rows that lack none; "" for none.
        """
        texts = np.full(self.n_rows, "") if other is None else other
        none = pl.Series("excluded", texts, dtype=pl.String).replace("", None)
        known = [self.missing[name] for name in names if name in self.missing]
        return pl.select(pl.coalesce(*known, none)).to_series().alias("excluded")
