"""Which text of a row a rule compares, and which differences in it do not count."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import polars as pl

if TYPE_CHECKING:
    from thresher.dataset import Dataset

Scope = Literal["row", "prompt", "response"]
SEPARATOR = "\n\0\n"  # between prompt and response: no canonical text holds a NUL


def scope_texts(rows: Dataset, scope: Scope) -> pl.Series:
    """Return the text of each row that is compared, (n,).

    Args:
        rows: n rows.
        scope: "row" for prompt and response (text rows have no prompt), "prompt" or "response".
    """
    if scope == "row" and rows.kind != "text":
        whole = pl.concat_str("prompt", pl.lit(SEPARATOR), "response")
        return rows.frame.select(whole.alias("text")).to_series()
    column = "response" if rows.kind == "text" else scope
    return rows.frame[column].alias("text")


def plain_texts(rows: Dataset, scope: Scope) -> pl.Series:
    """Return the text of each row as it reads, (n,): prompt and response by line, never a label.

    Args:
        rows: n rows.
        scope: "row", "prompt" or "response"; of classification data always the text.
    """
    texts = scope_texts(rows, "prompt" if rows.kind == "classification" else scope)
    return texts.str.replace(SEPARATOR, "\n", literal=True)


def normalize_texts(
    texts: pl.Series, *, unicode: bool = True, case: bool = True, space: bool = True, punctuation: bool = False
) -> pl.Series:
    """Return texts without differences that do not count, (n,).

    A text of which nothing would be left stays as it is.

    Args:
        texts: (n,) string, no nulls.
        unicode: bring compatible characters to one form (NFKC), such as full-width letters and
            ligatures.
        case: make all lower case.
        space: make each run of white space one space, none at the ends.
        punctuation: make each run of punctuation (Unicode category P, so not + < = $) a space.
    """
    column = pl.col("normal")
    if case:
        column = column.str.to_lowercase()
    if punctuation:
        column = column.str.replace_all(r"\p{P}+", " ")
    if space:
        column = column.str.replace_all(r"\s+", " ").str.strip_chars(" ")
    frame = pl.DataFrame([texts.alias("text"), (_normalize_unicode(texts) if unicode else texts).alias("normal")])
    return frame.select(pl.when(column == "").then(pl.col("text")).otherwise(column).alias("text")).to_series()


def _normalize_unicode(texts: pl.Series) -> pl.Series:
    """Return texts with compatible characters in one form; ASCII is in it already."""
    rows = (texts.str.len_bytes() != texts.str.len_chars()).arg_true()
    return texts.scatter(rows, texts.gather(rows).str.normalize("NFKC")) if len(rows) else texts


def normalize_words(rows: Dataset, scope: Scope) -> pl.Series:
    """Return the words of each row, (n,): normalized and without punctuation; never a label.

    Args:
        rows: n rows.
        scope: as for `scope_texts`; of classification data, "row" is the text alone.
    """
    is_text = rows.kind == "classification" and scope == "row"
    return normalize_texts(scope_texts(rows, "prompt" if is_text else scope), punctuation=True)
