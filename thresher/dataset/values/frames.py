"""Rows as the tables of other libraries, and as a notebook shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from thresher.errors import MissingExtraError
from thresher.printable import escape_html

if TYPE_CHECKING:
    import pandas as pd

N_CHARACTERS = 160


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


def render_table(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return an HTML table with every cell escaped and cut to 160 characters."""
    left = "style='text-align:left'"
    head = "".join(f"<th {left}>{escape_html(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td {left}>{escape_html(str(cell)[:N_CHARACTERS])}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    return f"<table><tr>{head}</tr>{body}</table>"
