"""Stable names of rows: a hash of the canonical content, or a column that the user names."""

from __future__ import annotations

import polars as pl
import xxhash

SEPARATOR = "\0"  # no canonical text holds one: rows with a NUL are rejected


def hash_contents(kind: str, prompt: pl.Series, response: pl.Series, extra: pl.Series) -> pl.Series:
    """Return the XXH3-128 hash of each row's content: (n,) strings of 32 hex digits.

    Args:
        kind: "sft", "classification" or "text".
        prompt: (n,) text.
        response: (n,) text.
        extra: (n,) what prompt and response do not say of a conversation, else "".
    """
    frame = pl.DataFrame({"prompt": prompt, "response": response, "extra": extra})
    content = frame.select(pl.concat_str(pl.lit(kind), "prompt", "response", "extra", separator=SEPARATOR)).to_series()
    digest = xxhash.xxh3_128_hexdigest
    return pl.Series("row_id", [digest(text) for text in content.cast(pl.Binary).to_list()], dtype=pl.String)


def number_repeats(row_id: pl.Series) -> pl.Series:
    """Append "-1", "-2", ... to the second, third, ... appearance of an id."""
    if row_id.n_unique() == len(row_id):
        return row_id
    nth = pl.int_range(pl.len()).over("row_id")
    named = pl.when(nth == 0).then("row_id").otherwise(pl.format("{}-{}", "row_id", nth))
    return row_id.alias("row_id").to_frame().select(named.alias("row_id")).to_series()


def hash_row_ids(row_id: pl.Series) -> str:
    """Return one hash of a set of rows, independent of their order: 32 hex digits."""
    hasher = xxhash.xxh3_128()
    ordered = row_id.sort()
    for start in range(0, len(ordered), 1 << 16):
        hasher.update(("\n".join(ordered[start : start + (1 << 16)].to_list()) + "\n").encode())
    return hasher.hexdigest()
