"""Weights of rows: how much each counts in the loss, from a column of the user's."""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.numeric.arrays import Float64
from thresher.trainer.engine.tokenization import Examples

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.trainer.split import RowSplit

ZERO = "its weight is 0"
JOB_WEIGHT = "thresher_weight"  # of the snapshots of a job: how many rows each stands for


def read_weights(rows: Dataset, column: str) -> Float64:
    """Return the weight of each row, (n,) float64, as the column has it.

    Raises:
        InputError: a weight is missing, no number, below 0 or infinite, or all are 0.
        NotFoundError: there is no such column.
    """
    given = rows.column(column)
    values = given.cast(pl.Float64, strict=False).to_numpy()
    is_bad = ~np.isfinite(values) | (values < 0)
    if given.dtype == pl.Boolean:
        is_bad[:] = True
    if is_bad.any():
        first = int(np.flatnonzero(is_bad)[0])
        place = rows.frame.row(first, named=True)
        found = "nothing" if given[first] is None else repr(given[first])
        more = f" and {int(is_bad.sum()) - 1:,} more rows" if is_bad.sum() > 1 else ""
        raise InputError(
            f"weight: column '{column}' must hold a number of at least 0 for each row, found {found} in "
            f"{place['file']} line {place['line']}{more}; fix these rows, or leave them out"
        )
    if not values.any():
        raise InputError(
            f"weight: at least one row must weigh more than 0, found 0 in all {len(values):,} rows of column '{column}'"
        )
    return values


def weigh_examples(examples: Examples, rows: Dataset, column: str | None) -> Examples:
    """Return examples with the weights of their rows, scaled to mean 1; those of weight 0 leave.

    Args:
        examples: of the rows.
        rows: that the examples are of.
        column: that holds the weights; None leaves the examples as they are.

    Raises:
        InputError: as `read_weights`.
        NotFoundError: there is no such column.
    """
    if column is None:
        return examples
    own = read_weights(rows, column)[examples.position]
    is_learned = own > 0
    scale = 1.0 / own[is_learned].mean() if is_learned.any() else 1.0
    learned = np.flatnonzero(is_learned).tolist()
    n_zero = len(own) - len(learned)
    return replace(
        examples,
        rows=[replace(examples.rows[i], weight=float(own[i] * scale)) for i in learned],
        position=[examples.position[i] for i in learned],
        left_out=examples.left_out + Counter({ZERO: n_zero} if n_zero else {}),
    )


def hash_weights(rows: Dataset, column: str) -> str:
    """Return the hash of the weights of rows, whatever their order."""
    pairs = sorted(zip(rows.frame["row_id"], read_weights(rows, column).tolist(), strict=True))
    return hashlib.sha256(repr(pairs).encode()).hexdigest()


def identify_weights(column: str | None, split: RowSplit) -> dict[str, Any]:
    """Return the hashes of the weights of the rows of both sides, where they have some."""
    if column is None:
        return {}
    sides = {"train": split.train, "control": split.control}
    return {"weights": {name: hash_weights(rows, column) for name, rows in sides.items() if rows is not None}}
