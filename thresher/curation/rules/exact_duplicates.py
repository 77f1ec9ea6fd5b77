"""Exact duplicates: rows whose texts are equal, whatever their case, spaces and the like."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import orjson
import polars as pl

from thresher.artifacts.json_text import encode_json
from thresher.curation.rule import Rows
from thresher.curation.similarity.duplicate_groups import (
    FIRST,
    DuplicateAssignment,
    DuplicateRule,
    build_duplicate_verdict,
    order_by_preference,
)
from thresher.curation.verdict import Verdict
from thresher.dataset import Dataset
from thresher.dataset.conversation import Conversation
from thresher.dataset.normalize import Scope, normalize_texts, scope_texts


@dataclass(frozen=True, kw_only=True)
class ExactDuplicates(DuplicateRule):
    """Drop rows whose text is equal to that of a row that stays.

    Texts are compared after normalization, by value and not by a hash. The whole row counts by
    default: system prompts and other text that rows share, tools and their calls, and the label of
    classification data, so that the same text under two labels is a conflict (rule `conflicts`) and
    no duplicate. Rows that are equal but for shared text are for `near-duplicates`.

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

    scope: Scope = "row"
    ignore_case: bool = True
    ignore_space: bool = True
    ignore_unicode_form: bool = True
    ignore_punctuation: bool = False
    keep: str = FIRST

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop all but one row of each group of equal texts."""
        order = order_by_preference(pool, existing, self.keep)
        sides = [rows for rows in (existing, pool) if rows is not None]
        texts = pl.concat([self._normalize(rows) for rows in sides])
        if self.scope == "row":
            texts = _add_calls(texts, [rows.dataset for rows in sides])
        preferred = pl.DataFrame({"text": texts.gather(order.rows), "row": order.rows})
        representative = np.empty(len(texts), np.int64)
        # the most preferred row of a text represents all its rows; existing rows stay in any case
        representative[order.rows] = preferred.select(pl.col("row").first().over("text")).to_series().to_numpy()
        representative[: order.n_existing] = np.arange(order.n_existing)
        is_own = representative == np.arange(len(texts))
        assignment = DuplicateAssignment(representative, np.where(is_own, np.nan, 1.0).astype(np.float32))
        return build_duplicate_verdict(assignment, pool, existing, reason="exact-duplicate", measure="", notes={})

    def _normalize(self, rows: Rows) -> pl.Series:
        return normalize_texts(
            scope_texts(rows.dataset, self.scope),
            unicode=self.ignore_unicode_form,
            case=self.ignore_case,
            space=self.ignore_space,
            punctuation=self.ignore_punctuation,
        )


def _add_calls(texts: pl.Series, sides: Sequence[Dataset]) -> pl.Series:
    """Return texts with what conversations hold besides them, of those texts that occur twice.

    Args:
        texts: (n,) of all sides.
        sides: their rows, one dataset after the other.
    """
    is_repeated = texts.is_duplicated().to_numpy()
    parts, first = [], 0
    for rows in sides:
        part, at = texts[first : first + len(rows)], np.flatnonzero(is_repeated[first : first + len(rows)])
        first += len(rows)
        if rows.kind == "sft" and len(at):
            more = [_describe_calls(conversation) for conversation in rows.messages(at)]
            part = part.scatter(at, part.gather(at) + pl.Series(more, dtype=pl.String))
        parts.append(part)
    return pl.concat(parts)


def _describe_calls(conversation: Conversation) -> str:
    """Return roles, calls and tools of a conversation as JSON, which its text does not show."""
    turns = [{key: value for key, value in turn.items() if key != "content"} for turn in conversation.messages]
    content = {"turns": turns, "tools": conversation.tools}
    return "\0" + encode_json(content, option=orjson.OPT_SORT_KEYS).decode()
