"""Rows as the tables of other libraries."""

from __future__ import annotations

from typing import TYPE_CHECKING

import polars as pl

from thresher.errors import MissingExtraError

if TYPE_CHECKING:
    import pandas as pd


def to_pandas(rows: pl.DataFrame, *, needed_by: str) -> pd.DataFrame:
    """Return a table as pandas has it.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtraError("pandas", needed_by, "hub") from None
    return pd.DataFrame(rows.to_dict(as_series=False))
