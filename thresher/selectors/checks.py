"""Checks of settings and of the number of rows to rank, worded the same for every selector."""

from __future__ import annotations

from thresher.errors import InputError
from thresher.validation import check_named, check_number, check_one_of, check_whole

__all__ = ["check_n_ranked", "check_named", "check_number", "check_one_of", "check_whole"]


def check_n_ranked(name: str, n_ranked: int, n: int) -> None:
    """Refuse a number of rows to rank that the pool does not have.

    Raises:
        InputError: `n_ranked` is not in 1..n.
    """
    if not 1 <= n_ranked <= n:
        raise InputError(f"{name}: the number of rows to rank must be in 1..{n}, got {n_ranked}")
