"""CSV tables that are safe to open in a spreadsheet: no text becomes a formula, and none is lost.

Spreadsheets take a cell that begins with =, +, -, @, a tab or a carriage return for a formula, and
`=cmd|...` starts a program. Such texts get an apostrophe in front, which marks text; so do texts
that begin with an apostrophe, so that it can be removed again. Numbers are unchanged. Source:
OWASP, CSV Injection.
"""

from __future__ import annotations

import polars as pl

_MARK = "'"
_FORMULA = r"^[=+\-@\t\r']"


def escape_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Return a table in which no text is a formula."""
    texts = [pl.col(name) for name, kind in table.schema.items() if kind == pl.String]
    marked = [pl.concat_str(pl.lit(_MARK), text) for text in texts]
    return table.with_columns(
        pl.when(text.str.contains(_FORMULA)).then(other).otherwise(text).name.keep()
        for text, other in zip(texts, marked, strict=True)
    )


def unescape_formulas(table: pl.DataFrame) -> pl.DataFrame:
    """Return the table as it was before `escape_formulas`."""
    return table.with_columns(pl.col(pl.String).str.strip_prefix(_MARK))
