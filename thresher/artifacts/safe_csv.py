"""CSV tables that a spreadsheet may open: no text of a row becomes a formula there, and none is lost.

A cell that begins with =, +, -, @, a tab or a carriage return is a formula for spreadsheets, and
`=cmd|...` starts a program. Such texts get an apostrophe in front, which spreadsheets take for
"text", and so do those that begin with one, so that it can be taken away again. Numbers are left as
they are. Source: OWASP, CSV Injection.
"""

from __future__ import annotations

import polars as pl

_MARK = "'"
_FORMULA = r"^[=+\-@\t\r']"


def escape_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table whose texts are no formulas."""
    texts = [pl.col(name) for name, kind in table.schema.items() if kind == pl.String]
    marked = [pl.concat_str(pl.lit(_MARK), text) for text in texts]
    return table.with_columns(
        pl.when(text.str.contains(_FORMULA)).then(other).otherwise(text).name.keep()
        for text, other in zip(texts, marked, strict=True)
    )


def unescape_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table that was escaped."""
    return table.with_columns(pl.col(pl.String).str.strip_prefix(_MARK))
