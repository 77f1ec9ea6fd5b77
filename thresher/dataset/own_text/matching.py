"""Which rows of one dataset ask what rows of another ask: the check of held-out rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from thresher.dataset.normalize import Scope, normalize_texts, scope_texts
from thresher.dataset.own_text.own_text import OwnTexts, Wrappers, find_own_texts, is_nested
from thresher.errors import first_three
from thresher.numeric.arrays import Bool, Int64
from thresher.numeric.numba_jit import jit

if TYPE_CHECKING:
    from thresher.dataset import Dataset

# a question with more different answers, such as "Tell a joke", says nothing of its own
MOST_ANSWERS = 4
# nor does an answer to more different questions, such as "yes"
MOST_QUESTIONS = 4
MARKS = r"^[\p{P}\s]+|[\p{P}\s]+$"


def match_rows(
    rows: Dataset, others: Dataset, *, scope: Scope = "prompt", own: Sequence[OwnTexts] | None = None
) -> Int64:
    """Return for each row one of the others with its question, (n,) int64, -1 where there is none.

    Compared is what the questions say of their own (`find_own_texts`), without case, form of
    Unicode, white space, and punctuation at the ends. They match

    - where their wrappers are the same, or one has no more than the other, or their answers are
      equal and few questions have that answer;
    - and the question has few answers, or their answers are equal. Labels do not count.

    Cost: linear in the length of the texts, and one join.

    Args:
        rows: n rows.
        others: rows of the same kind, or of another.
        scope: what counts as the question; rows that are text alone have only one text.
        own: what the questions of both say of their own, where it is known.
    """
    if own is None:
        own = find_own_texts([scope_texts(side, scope) for side in (rows, others)])
    table, wrappers = _build_table(rows, others, scope, own)
    ours, theirs = (
        table.filter(pl.col("is_other") == is_other).unique(["question", "answer", "wrapper"], keep="first")
        for is_other in (False, True)
    )
    pairs = ours.join(theirs, on="question", suffix="_other")
    is_same = pl.col("answer") == pl.col("answer_other")
    pairs = pairs.filter(is_same | ~pl.col("has_many_answers")).with_columns(is_same=is_same & ~pl.col("is_common"))
    is_wrapped = _compare_wrappers(pairs["wrapper"].to_numpy(), pairs["wrapper_other"].to_numpy(), wrappers)
    matched = pairs.filter(pl.Series(is_wrapped) | pairs["is_same"]).sort("row_other")
    first = matched.unique(["question", "answer", "wrapper"], keep="first")
    mine = table.filter(~pl.col("is_other")).join(
        first.select("question", "answer", "wrapper", "row_other"),
        on=["question", "answer", "wrapper"],
        how="left",
        maintain_order="left",
    )
    match: Int64 = mine["row_other"].fill_null(-1).to_numpy().astype(np.int64)
    return match


def describe_matches(rows: Dataset, others: Dataset, match: Int64) -> str:
    """Return where the first matched rows are, such as "pool.jsonl:3 is test.jsonl:1"."""
    at = np.flatnonzero(match >= 0)
    mine, other = (
        [f"{file}:{line}" for file, line in frame.select("file", "line").iter_rows()]
        for frame in (rows.frame[at], others.frame[match[at]])
    )
    return first_three([f"{one} is {two}" for one, two in zip(mine, other, strict=True)])


def _build_table(
    rows: Dataset, others: Dataset, scope: Scope, own: Sequence[OwnTexts]
) -> tuple[pl.DataFrame, Wrappers]:
    """Return question, answer and wrapper of each row of either side, and the wrappers."""
    sides = (rows, others)
    is_answered = scope == "prompt" and all(side.kind == "sft" for side in sides)
    parts = [
        pl.DataFrame({"question": _strip(normalize_texts(texts.texts)), "wrapper": texts.wrapper}).with_columns(
            row=pl.int_range(pl.len()),
            is_other=pl.lit(number == 1),
            answer=_strip(normalize_texts(side.frame["response"])) if is_answered else pl.lit(""),
        )
        for number, (side, texts) in enumerate(zip(sides, own, strict=True))
    ]
    table = pl.concat(parts).with_columns(
        has_many_answers=pl.col("answer").n_unique().over("question") > MOST_ANSWERS,
        is_common=(pl.col("question").n_unique().over("answer") > MOST_QUESTIONS) | (not is_answered),
    )
    return table, own[0].wrappers


def _strip(texts: pl.Series) -> pl.Series:
    """Return texts without punctuation at their ends; a text of punctuation alone stays."""
    stripped = texts.str.replace_all(MARKS, "")
    return pl.select(pl.when(stripped == "").then(texts).otherwise(stripped)).to_series()


def _compare_wrappers(a: Int64, b: Int64, wrappers: Wrappers) -> Bool:
    """Tell of each pair of wrappers whether one has no more than the other, (m,)."""
    # a loop is compiled anew for arrays that may not be written
    a, b = (np.require(each, np.int64, "W") for each in (a, b))
    return _are_nested(a, b, wrappers.hashes, wrappers.offsets)


@jit
def _are_nested(a: Int64, b: Int64, hashes: np.ndarray, offsets: Int64) -> Bool:
    nested = np.empty(len(a), np.bool_)
    for i in range(len(a)):
        nested[i] = is_nested(a[i], b[i], hashes, offsets)
    return nested
