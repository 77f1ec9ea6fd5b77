"""What all rules for duplicates share: which row of a group stays, and how the verdict names it."""

from __future__ import annotations

from typing import ClassVar, NamedTuple

import numpy as np
import polars as pl

from thresher.curation.rule import EXISTING, Rows, Rule
from thresher.curation.verdict import POOL, Verdict
from thresher.errors import SettingsError
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float32, Int64

# the rules that share this
DUPLICATES = ("exact-duplicates", "near-duplicates", "semantic-duplicates")
FIRST, LONGEST = "first", "longest"
HIGHEST, LOWEST = "highest:", "lowest:"


class DuplicateRule(Rule):
    """Base of the rules for duplicates, whose setting `keep` says which row of a group stays."""

    keep: str
    _compared: ClassVar[frozenset[str]] = frozenset()
    """Features by which rows are compared, the pool's and the existing ones."""

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: `keep` is none of the forms, or another setting has an illegal value.
        """
        super().__post_init__()
        is_named = self.keep.startswith((HIGHEST, LOWEST)) and self.keep.partition(":")[2].strip()
        if self.keep not in (FIRST, LONGEST) and not is_named:
            raise SettingsError(
                f"{self.name}: keep must be 'first', 'longest', 'highest:NAME' or 'lowest:NAME' (NAME is a column of "
                f"numbers or a feature), got {self.keep!r}"
            )

    @property
    def requirements(self) -> Requirements:
        """Existing rows, and the features that rows are compared and preferred by."""
        features = find_keep_features(self.keep) | self._compared
        return Requirements(
            features=features, side_features={EXISTING: self._compared}, feature_settings={"own_text": True}
        )


def find_keep_features(keep: str) -> frozenset[str]:
    """Return the feature that decides which row of a group stays, if one does."""
    if not keep.startswith((HIGHEST, LOWEST)):
        return frozenset()
    from thresher.features.registry import available

    name = keep.partition(":")[2].strip()
    return frozenset({name if ":" in name or name in available() else f"number:{name}"})


class PreferenceOrder(NamedTuple):
    """Existing rows and the pool's, numbered through, the most preferred first.

    Attributes:
        rows: (m + n,) int64, a permutation of the row numbers; existing rows come first.
        n_existing: m. Rows 0..m-1 are the existing ones; row m + i is row i of the pool.
    """

    rows: Int64
    n_existing: int


def order_by_preference(pool: Rows, existing: Rows | None, keep: str) -> PreferenceOrder:
    """Return in which order the rows are preferred.

    Args:
        pool: n rows, with the feature of `find_keep_features`.
        existing: m rows, or None. They come first in any case.
        keep: "first" in the file, "longest" in characters, or "highest:NAME", "lowest:NAME"; ties
            go to the first, and rows without a number come last.

    Raises:
        SettingsError: NAME is a feature of more than one number per row, or a column's name, too.
    """
    n_existing = 0 if existing is None else len(existing)
    rows = np.concatenate([np.arange(n_existing), n_existing + _rank_pool(pool, keep)]).astype(np.int64)
    return PreferenceOrder(rows, n_existing)


def _rank_pool(pool: Rows, keep: str) -> Int64:
    if keep == FIRST:
        return np.arange(len(pool), dtype=np.int64)
    if keep == LONGEST:
        frame = pool.dataset.frame
        value = (frame["prompt"].str.len_chars() + frame["response"].str.len_chars()).to_numpy().astype(np.float64)
    else:
        (feature,) = find_keep_features(keep)
        if ":" not in feature and feature in pool.dataset.column_names:
            way, _, name = keep.partition(":")
            raise SettingsError(
                f"keep: '{keep}' names both a feature and a column of the rows; write {way}:number:{name.strip()} "
                "for the column, or rename it"
            )
        value = np.asarray(pool.features[feature], dtype=np.float64)
        if value.ndim != 1:
            raise SettingsError(f"keep: '{keep}' must name one number per row, got {value.shape[1]:,}; name another")
        value = -value if keep.startswith(LOWEST) else value
    return np.argsort(np.where(np.isnan(value), np.inf, -value), kind="stable").astype(np.int64)


def encode_labels(pool: Rows, existing: Rows | None) -> Int64 | None:
    """Return the label of each row as a number, existing rows first, (m + n,), or None."""
    if pool.dataset.kind != "classification":
        return None
    labels = pl.concat([rows.dataset.frame["response"] for rows in (existing, pool) if rows is not None])
    codes: Int64 = labels.rank("dense").to_numpy().astype(np.int64)
    return codes


class DuplicateAssignment(NamedTuple):
    """Which rows repeat which, of m existing rows and then the n of the pool.

    Attributes:
        representative: (m + n,) int64, the row that represents each row: itself where it is kept.
        similarity: (m + n,) float32 with that row, NaN for a kept row.
    """

    representative: Int64
    similarity: Float32


def build_duplicate_verdict(
    assignment: DuplicateAssignment,
    pool: Rows,
    existing: Rows | None,
    *,
    reason: str,
    measure: str,
    notes: dict[str, int | float | str],
) -> Verdict:
    """Return the verdict that drops every row that another represents.

    Args:
        assignment: of m existing rows and then the n of the pool.
        pool: n rows.
        existing: m rows, or None.
        reason: short name.
        measure: name of the similarity for the explanation, such as "Jaccard"; "" where all copies
            are equal.
        notes: for the manifest.
    """
    m, n = (0 if existing is None else len(existing)), len(pool)
    representative = assignment.representative[m:]
    is_copy = representative != np.arange(m, m + n)
    ids = pool.row_id if existing is None else pl.concat([existing.row_id, pool.row_id])
    is_representative = np.zeros(m + n, np.bool_)
    is_representative[representative[is_copy]] = True
    table = pl.DataFrame(
        {
            "of": ids.gather(representative),
            "in_pool": representative >= m,
            "similarity": assignment.similarity[m:],
            "is_copy": is_copy,
            "in_group": is_copy | is_representative[m:],
        }
    )
    place = pl.when("in_pool").then(pl.lit("")).otherwise(pl.lit(" of the rows you already have"))
    closeness = pl.format(f" ({measure} {{}})", pl.col("similarity").round(3)) if measure else pl.lit("")
    dropped = pl.when("is_copy")
    parts = table.select(
        reason=dropped.then(pl.lit(reason)),
        explanation=dropped.then(pl.format("repeats row {}{}{}", "of", place, closeness)),
        duplicate_of=dropped.then("of"),
        duplicate_in=dropped.then(pl.when("in_pool").then(pl.lit(POOL)).otherwise(pl.lit(EXISTING))),
        similarity=dropped.then("similarity").fill_nan(None),
        cluster=pl.when("in_group").then("of"),
    )
    return Verdict.from_frame(parts, notes=notes)
