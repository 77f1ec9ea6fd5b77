"""What rules for duplicates compare of rows: own words, wrappers, answers and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from thresher.curation.similarity.shingles import Unit, build_shingles
from thresher.dataset.normalize import Scope, normalize_texts
from thresher.dataset.own_text.own_text import find_own_texts
from thresher.numeric.arrays import Bool, Int64, UInt32

if TYPE_CHECKING:
    from thresher.dataset import Dataset

SHORT_WORDS = 30  # own prompts of fewer words are different where their numbers are
LONG_WORDS = 20  # answers from so many words on may be similar; shorter ones must be equal
COMMON_PROMPTS = 4  # an answer to more prompts, such as "yes", is not one of a kind


class OwnRows(NamedTuple):
    """What is compared of n rows, besides their shingles.

    Attributes:
        wrapper: (n,) int64, which wrapper each row's prompt has.
        wrapper_hashes: words of the wrappers, see `Wrappers`.
        wrapper_offsets: the same.
        group: (n,) int64, numbers of a short prompt; rows of different groups are different.
        answer: (n,) int64, answers that differ have different numbers; 0 where none is compared.
        is_common: (n,) bool, whether a row's answer is that of many prompts, or none or a label.
        answer_hashes: shingles of long answers, see `Shingles`.
        answer_offsets: the same.
    """

    wrapper: Int64
    wrapper_hashes: UInt32
    wrapper_offsets: Int64
    group: Int64
    answer: Int64
    is_common: Bool
    answer_hashes: UInt32
    answer_offsets: Int64


def compare_own_rows(
    sides: Sequence[Dataset], scope: Scope, *, n_gram: int, unit: Unit, same_answer: bool
) -> tuple[pl.Series, OwnRows]:
    """Return the own words of each row, (n,), and what else is compared.

    Args:
        sides: rows of one kind, one dataset after the other.
        scope: as for `scope_texts`; of classification data, "row" is the text alone.
        n_gram: of shingles of long answers.
        unit: of these shingles.
        same_answer: compare answers; only where the scope is the row, and has one.
    """
    kind = sides[0].kind
    frame = pl.concat([side.frame.select("prompt", "response") for side in sides])
    is_response = kind == "text" or scope == "response"
    (own,) = find_own_texts([frame["response" if is_response else "prompt"]])
    table = pl.DataFrame({"words": normalize_texts(own.texts, punctuation=True)})
    words, is_answered = table["words"], kind == "sft" and not is_response
    if is_answered:
        answers = normalize_texts(frame["response"], punctuation=True)
        table = table.with_columns(answer=answers, is_long=answers.str.count_matches(r"\S+") >= LONG_WORDS)
        if scope == "row":
            (response,) = find_own_texts([frame["response"]])
            parts = table.select("words", response=normalize_texts(response.texts, punctuation=True))
            words = parts.select(pl.concat_str("words", "response", separator=" \0 ").alias("text")).to_series()
    answer, is_common = _encode_answers(table) if is_answered else (None, np.ones(len(table), np.bool_))
    is_compared = answer is not None and same_answer and scope == "row"
    blank = pl.Series("blank", [""]).new_from_index(0, len(table))
    long_answers = (
        table.select(pl.when("is_long").then("answer").otherwise(blank)).to_series() if is_compared else blank
    )
    sets = build_shingles(long_answers, n=n_gram, unit=unit)
    is_short = pl.col("words").str.count_matches(r"\S+") < SHORT_WORDS
    numbers = table.select(pl.when(is_short).then(_list_numbers("words")).otherwise(pl.lit("")).rank("dense"))
    return words, OwnRows(
        wrapper=own.wrapper,
        wrapper_hashes=own.wrappers.hashes,
        wrapper_offsets=own.wrappers.offsets,
        group=numbers.to_series().to_numpy().astype(np.int64),
        answer=answer if answer is not None and is_compared else np.zeros(len(table), np.int64),
        is_common=is_common,
        answer_hashes=sets.hashes,
        answer_offsets=sets.offsets,
    )


def _encode_answers(table: pl.DataFrame) -> tuple[Int64, Bool]:
    """Return a number for each answer, of long ones for their numbers alone, and which are common.

    Args:
        table: words of the prompt, answer, and whether that is long.
    """
    code = (
        pl.when("is_long")
        .then(pl.lit("long ") + _list_numbers("answer"))
        .otherwise(pl.lit("short ") + pl.col("answer"))
    )
    coded = table.select("words", "is_long", code=code.rank("dense"))
    is_common = (pl.col("words").n_unique().over("code") > COMMON_PROMPTS) & ~pl.col("is_long")
    return coded["code"].to_numpy().astype(np.int64), coded.select(is_common).to_series().to_numpy()


def _list_numbers(column: str) -> pl.Expr:
    """Return the numbers in a column's texts, sorted, as one text."""
    return pl.col(column).str.extract_all(r"\p{Nd}+").list.sort().list.join(" ")
