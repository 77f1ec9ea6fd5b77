"""Exact duplicates: rows whose texts are equal once case, spaces and the like are set aside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl

from thresher.curation.normalize import SCOPES, normalize_texts, scope_texts
from thresher.curation.rule import EXISTING, Rows
from thresher.curation.similarity.duplicate_groups import FIRST, Copies, check_keep, keep_needs, line_up, verdict_of
from thresher.curation.verdict import Verdict
from thresher.validation import check_one_of


@dataclass(frozen=True, kw_only=True)
class ExactDuplicates:
    """Drop rows whose text is equal to that of a row that stays.

    Texts are compared after normalization, by value and not by a hash. The whole row counts by
    default, the label of classification data included: the same text under two labels is a conflict
    (rule `conflicts`) and no duplicate.

    Cost: linear in the length of the texts, and one grouping. Existing rows: none is dropped; a row
    that repeats one is. Ties: the first in the file stays, see `keep`. A text of which
    normalization leaves nothing is compared as it is.

    Attributes:
        scope: "row" compares prompt and response, "prompt" or "response" only that.
        ignore_case: "A" equals "a".
        ignore_space: runs of white space are equal, and those at the ends are nothing.
        ignore_unicode_form: compatible characters (NFKC) are equal, such as full-width and plain
            letters.
        ignore_punctuation: punctuation is a space; leave it off for code and formulas.
        keep: "first", "longest", "highest:NAME" or "lowest:NAME" with a column of numbers or a
            feature.
    """

    name: ClassVar[str] = "exact-duplicates"
    accepts: ClassVar[Mapping[str, frozenset[str]]] = {EXISTING: frozenset()}

    scope: str = "row"
    ignore_case: bool = True
    ignore_space: bool = True
    ignore_unicode_form: bool = True
    ignore_punctuation: bool = False
    keep: str = FIRST

    def __post_init__(self) -> None:
        """Check the settings."""
        check_one_of(self.name, "scope", self.scope, SCOPES)
        check_keep(self.name, self.keep)

    @property
    def needs(self) -> frozenset[str]:
        """The feature that decides which row stays, if one does."""
        return keep_needs(self.keep)

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop all but one row of each group of equal texts."""
        line = line_up(pool, existing, self.keep)
        texts = [self._texts(rows) for rows in (existing, pool) if rows is not None]
        ordered = pl.DataFrame({"text": pl.concat(texts).gather(line.order), "row": line.order})
        best = ordered.select(pl.col("row").first().over("text")).to_series().to_numpy()
        stands = np.empty(len(line.order), np.int64)
        stands[line.order] = best
        stands[: line.n_existing] = np.arange(line.n_existing)
        similarity = np.full(len(stands), np.nan, np.float32)
        similarity[stands != np.arange(len(stands))] = 1.0
        return verdict_of(Copies(stands, similarity), pool, existing, reason="exact-duplicate", measure="", notes={})

    def _texts(self, rows: Rows) -> pl.Series:
        return normalize_texts(
            scope_texts(rows.dataset, self.scope),
            unicode=self.ignore_unicode_form,
            case=self.ignore_case,
            space=self.ignore_space,
            punctuation=self.ignore_punctuation,
        )
