"""Which rows of a pool are held out for measuring: rows, or whole groups of them."""

from __future__ import annotations

import hashlib

import polars as pl

from thresher.dataset import Dataset
from thresher.errors import InputError
from thresher.numeric.arrays import Bool
from thresher.trainer.split import sample_by_hash

SPLIT_SEED = 0  # the test set is the same in every experiment on the same pool


def hold_out(rows: Dataset, share: float, *, by: str | None) -> tuple[Bool, list[str]]:
    """Return which rows are held out, and the groups they are of.

    Rows that are held out one by one have near relatives among those that are learned, from the
    same source or author; whole groups tell how good a model will be on groups it has never seen.

    Args:
        rows: of the pool.
        share: of the rows, or of the groups, in 0..1.
        by: column of the groups; None for rows, which have no groups.

    Raises:
        InputError: there is only one group.
        NotFoundError: there is no such column.
    """
    if by is None:
        return sample_by_hash(rows.frame["row_id"], share, seed=SPLIT_SEED), []
    groups = read_groups(rows, by)
    names = groups.unique().sort().to_list()
    if len(names) < 2:
        raise InputError(f"eval_by: {by} must have at least 2 values, so that some are learned, found {len(names)}")
    n_held_out = min(max(1, round(share * len(names))), len(names) - 1)
    held_out = sorted(sorted(names, key=_hash)[:n_held_out])
    return groups.is_in(held_out).to_numpy(), held_out


def _hash(name: str) -> str:
    return hashlib.sha256(f"{SPLIT_SEED}:{name}".encode()).hexdigest()


def read_groups(rows: Dataset, column: str) -> pl.Series:
    """Return the group of each row as text; rows without one are a group of their own.

    Args:
        rows: of the pool.
        column: of the user's, or "label".

    Raises:
        NotFoundError: there is no such column.
    """
    is_label = column == "label" and rows.kind == "classification"
    values = rows.frame["response"] if is_label else rows.column(column)
    return values.cast(pl.String).fill_null("(none)")
