"""Features of rows beside the pool: those the user has already, and those of a target."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.features.compute import compute
from thresher.features.context import FeatureContext
from thresher.features.registry import is_pairwise
from thresher.numeric.arrays import Array

if TYPE_CHECKING:
    from thresher.dataset import Dataset


class SideInputs(NamedTuple):
    """Features of rows beside the pool, under "ROLE_FEATURE".

    Attributes:
        arrays: (q, ...) of those rows, or (n, ...) of the pool's where they are measured together.
        missing: (n,) string of the latter: why a row of the pool has no value, else null.
    """

    arrays: dict[str, Array]
    missing: dict[str, pl.Series]

    def add(self, other: SideInputs) -> None:
        """Take those of another role in."""
        self.arrays.update(other.arrays)
        self.missing.update(other.missing)


def compute_side_inputs(
    role: str, names: Set[str], rows: Dataset, pool: Dataset, context: FeatureContext
) -> SideInputs:
    """Compute what a selector accepts of rows beside the pool.

    The rows are read in the order of their ids: like that of the pool, the order of their file does
    not matter, also where they take turns.

    Args:
        role: "existing" or "target".
        names: of the features.
        rows: of that role.
        pool: rows that are chosen from, in the order of their features.
        context: models, device and cache.

    Returns:
        An array for each feature, under "ROLE_FEATURE": (q, ...) for the rows that have a value of
        every feature, or, for a pairwise one, (n, ...) of the pool's rows with these as examples.

    Raises:
        InputError: there are no rows, or none has a value.
    """
    rows = rows.take(rows.frame["row_id"].arg_sort().to_numpy().astype(np.int64))
    pairwise = {name for name in names if is_pairwise(name)}
    features = compute(rows, names - pairwise, context)
    is_whole = np.ones(len(rows), dtype=np.bool_)
    for reasons in features.missing.values():
        is_whole &= reasons.is_null().to_numpy()
    if not is_whole.any():
        raise InputError(f"{role}: must hold rows that have a value, found none among {len(rows)}")
    arrays: dict[str, Array] = {f"{role}_{name}": features[name][is_whole] for name in names - pairwise}
    missing: dict[str, pl.Series] = {}
    for name in sorted(pairwise):
        measured = compute(pool, {name}, replace(context, examples=rows))
        arrays[f"{role}_{name}"] = measured[name]
        if name in measured.missing:
            missing[f"{role}_{name}"] = measured.missing[name]
    return SideInputs(arrays, missing)
