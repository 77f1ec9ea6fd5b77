"""Rows as the tables of other libraries, and as a notebook shows them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from thresher.errors import MissingExtraError
from thresher.printable import escape_html

if TYPE_CHECKING:
    import pandas as pd

    from thresher.dataset.dataset import Dataset

N_SHOWN = 5
N_CHARACTERS = 160


def to_polars(rows: Dataset) -> pl.DataFrame:
    """Return the user's own columns: (n, columns); values of mixed types come as JSON text."""
    return pl.DataFrame([rows.column(name).alias(name) for name in rows.column_names])


def to_pandas(rows: Dataset, *, needed_by: str = "Dataset.to_pandas") -> pd.DataFrame:
    """Return the user's own columns as pandas has them.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError:
        raise MissingExtraError("pandas", needed_by, "hub") from None
    return pd.DataFrame(to_polars(rows).to_dict(as_series=False))


def render_head(rows: Dataset) -> str:
    """Return the first rows as an HTML table; all text is escaped and cut."""
    head = to_polars(rows.take(range(min(N_SHOWN, len(rows)))))
    return render_table(head.columns, list(head.iter_rows()))


def render_table(columns: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """Return an HTML table with every cell escaped and cut to 160 characters."""
    left = "style='text-align:left'"
    head = "".join(f"<th {left}>{escape_html(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td {left}>{escape_html(str(cell)[:N_CHARACTERS])}</td>" for cell in line) + "</tr>"
        for line in lines
    )
    return f"<table><tr>{head}</tr>{body}</table>"
