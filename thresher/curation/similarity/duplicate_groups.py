"""What all rules for duplicates share: which row of a group stays, and how the verdict names it."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from thresher.curation.rule import EXISTING, Rows
from thresher.curation.verdict import POOL, Verdict
from thresher.errors import SettingsError
from thresher.numeric.arrays import Float32, Int64

if TYPE_CHECKING:
    from thresher.dataset import Dataset

DUPLICATES = ("exact-duplicates", "near-duplicates", "semantic-duplicates")  # the rules that share this
FIRST, LONGEST = "first", "longest"
HIGHEST, LOWEST = "highest:", "lowest:"


def check_keep(rule: str, keep: str) -> None:
    """Refuse an unknown way to choose the row that stays.

    Raises:
        SettingsError: `keep` is none of the forms.
    """
    named = keep.startswith((HIGHEST, LOWEST)) and keep.partition(":")[2].strip()
    if keep not in (FIRST, LONGEST) and not named:
        raise SettingsError(
            f"{rule}: keep must be 'first', 'longest', 'highest:NAME' or 'lowest:NAME' (NAME is a column of numbers or "
            f"a feature), got {keep!r}"
        )


def keep_needs(keep: str) -> frozenset[str]:
    """Return the feature that decides which row of a group stays, if one does."""
    if not keep.startswith((HIGHEST, LOWEST)):
        return frozenset()
    from thresher.features.registry import available

    name = keep.partition(":")[2].strip()
    return frozenset({name if ":" in name or name in available() else f"number:{name}"})


class Line(NamedTuple):
    """Existing rows and then the pool's, in one line.

    Attributes:
        order: (m + n,) int64, indices in the order in which rows are preferred: existing ones
            first.
        n_existing: m, rows 0..m-1 are existing ones; row m + i is row i of the pool.
    """

    order: Int64
    n_existing: int


def line_up(pool: Rows, existing: Rows | None, keep: str) -> Line:
    """Return in which order the rows are preferred.

    Args:
        pool: n rows, with the feature of `keep_needs`.
        existing: m rows, or None. They come first in any case.
        keep: "first" in the file, "longest" in characters, or "highest:NAME", "lowest:NAME"; ties
            go to the first, and rows without a number come last.

    Raises:
        SettingsError: NAME is a feature of more than one number per row.
    """
    n_existing = 0 if existing is None else len(existing)
    order = np.concatenate([np.arange(n_existing), n_existing + _preferred(pool, keep)]).astype(np.int64)
    return Line(order, n_existing)


def _preferred(pool: Rows, keep: str) -> Int64:
    if keep == FIRST:
        return np.arange(len(pool), dtype=np.int64)
    if keep == LONGEST:
        frame = pool.dataset.frame
        value = (frame["prompt"].str.len_chars() + frame["response"].str.len_chars()).to_numpy().astype(np.float64)
    else:
        (need,) = keep_needs(keep)
        value = np.asarray(pool.features[need], dtype=np.float64)
        if value.ndim != 1:
            raise SettingsError(f"keep: '{keep}' must name one number per row, got {value.shape[1]:,}; name another")
        value = -value if keep.startswith(LOWEST) else value
    best_first: Int64 = np.argsort(np.where(np.isnan(value), np.inf, -value), kind="stable").astype(np.int64)
    return best_first


def label_codes(pool: Dataset, existing: Dataset | None) -> Int64 | None:
    """Return the label of each row as a number, existing rows first, (m + n,); None for rows without labels."""
    if pool.kind != "classification":
        return None
    parts = [pool.frame["response"]] if existing is None else [existing.frame["response"], pool.frame["response"]]
    codes: Int64 = pl.concat(parts).rank("dense").to_numpy().astype(np.int64)
    return codes


class Copies(NamedTuple):
    """Which rows repeat which, in one line of existing rows and the pool's.

    Attributes:
        stands: (m + n,) int64, the row that stands for each row: itself where it is kept.
        similarity: (m + n,) float32 with that row, NaN for a kept row.
    """

    stands: Int64
    similarity: Float32


def verdict_of(
    copies: Copies,
    pool: Rows,
    existing: Rows | None,
    *,
    reason: str,
    measure: str,
    notes: dict[str, int | float | str],
) -> Verdict:
    """Return the verdict that drops every row for which another stands.

    Args:
        copies: of m existing rows and then the n of the pool.
        pool: n rows.
        existing: m rows, or None.
        reason: short name.
        measure: name of the similarity for the explanation, such as "Jaccard"; "" where all copies
            are equal.
        notes: for the manifest.
    """
    m, n = (0 if existing is None else len(existing)), len(pool)
    stands = copies.stands[m:]
    is_copy = stands != np.arange(m, m + n)
    ids = pool.row_id if existing is None else pl.concat([existing.row_id, pool.row_id])
    dropped, named = pl.Series(is_copy), ids.gather(stands)
    in_pool = pl.Series(stands >= m)
    is_standing = np.zeros(m + n, np.bool_)
    is_standing[stands[is_copy]] = True
    table = pl.DataFrame({"of": named, "in_pool": in_pool, "similarity": copies.similarity[m:]})
    where = pl.when("in_pool").then(pl.lit("")).otherwise(pl.lit(" of the rows you already have"))
    close = pl.format(f" ({measure} {{}})", pl.col("similarity").round(3)) if measure else pl.lit("")
    gone = pl.lit(dropped)
    table = table.select(
        reason=pl.when(gone).then(pl.lit(reason)),
        explanation=pl.when(gone).then(pl.format("repeats row {}{}{}", "of", where, close)),
        duplicate_of=pl.when(gone).then("of"),
        duplicate_in=pl.when(gone).then(pl.when("in_pool").then(pl.lit(POOL)).otherwise(pl.lit(EXISTING))),
        similarity=pl.when(gone).then("similarity").fill_nan(None),
        cluster=pl.when(gone | pl.lit(pl.Series(is_standing[m:]))).then("of"),
    )
    return Verdict(
        reason=table["reason"],
        explanation=table["explanation"],
        duplicate_of=table["duplicate_of"],
        duplicate_in=table["duplicate_in"],
        similarity=table["similarity"],
        cluster=table["cluster"],
        notes=notes,
    )
