"""What rules for duplicates compare of rows: own words, wrappers, answers and numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl

from thresher.dataset.normalize import Scope, normalize_texts
from thresher.dataset.own_text.own_text import Wrappers, divide_texts, number_wrappers
from thresher.dataset.own_text.shared_text import find_shared_text
from thresher.dataset.own_text.words import list_pieces, split_words
from thresher.numeric.arrays import Bool, Int64, UInt8, UInt32
from thresher.numeric.growing_array import GrowingArray

if TYPE_CHECKING:
    from thresher.dataset import Dataset

SHORT_WORDS = 30  # own prompts of fewer words are different where their numbers are
LONG_WORDS = 20  # answers from so many words on may be similar; shorter ones must be equal
COMMON_PROMPTS = 4  # an answer to more prompts, such as "yes", is not one of a kind


class OwnRows(NamedTuple):
    """What is compared of n rows.

    Attributes:
        packed: UTF-8 of the compared texts, one after another.
        starts: (2 n,) int64, where the own words of each row begin, then where each long answer
            that is compared does.
        ends: (2 n,) int64, where they end; an answer that is not compared has no bytes.
        wrapper: (n,) int64, which wrapper each row's prompt has.
        wrapper_hashes: words of the wrappers, see `Wrappers`.
        wrapper_offsets: the same.
        group: (n,) int64, numbers of a short prompt; rows of different groups are different.
        answer: (n,) int64, answers that differ have different numbers; 0 where none is compared.
        is_common: (n,) bool, whether a row's answer is that of many prompts, or none or a label.
    """

    packed: UInt8
    starts: Int64
    ends: Int64
    wrapper: Int64
    wrapper_hashes: UInt32
    wrapper_offsets: Int64
    group: Int64
    answer: Int64
    is_common: Bool


class _Compared(NamedTuple):
    """Which texts of a row are compared.

    Attributes:
        is_response: the response alone, or the text of a row that is only text.
        has_answer: there are answers beside the prompts.
        is_answer_compared: rows with different answers are different.
        is_whole: prompt and response together.
    """

    is_response: bool
    has_answer: bool
    is_answer_compared: bool
    is_whole: bool


def compare_own_rows(sides: Sequence[Dataset], scope: Scope, *, same_answer: bool) -> OwnRows:
    """Return the own words of each row, and what else is compared.

    Texts are normalized piece by piece: what stays of each row is the text that is compared, and
    some numbers.

    Args:
        sides: rows of one kind, one dataset after the other.
        scope: as for `scope_texts`; of classification data, "row" is the text alone.
        same_answer: compare answers; only where the scope is the row, and has one.
    """
    kind = sides[0].kind
    is_response = kind == "text" or scope == "response"
    has_answer = kind == "sft" and not is_response
    is_whole = has_answer and scope == "row"
    what = _Compared(is_response, has_answer, is_whole and same_answer, is_whole)
    texts = pl.concat([side.frame.select("prompt", "response") for side in sides])
    if is_response:
        texts = texts.select(prompt="response", response="response")
    shared = [find_shared_text([split_words(texts[name])]) for name in ("prompt", "response")[: 1 + is_whole]]
    packed, tables, sets = GrowingArray(np.uint8), [], []
    for start, stop in list_pieces(texts.select(pl.sum_horizontal(pl.all().str.len_bytes())).to_series()):
        part = texts[start:stop]
        prompt = divide_texts(part["prompt"], shared[0])
        part = part.with_columns(prompt=prompt.own)
        if is_whole:
            part = part.with_columns(own_response=divide_texts(part["response"], shared[1]).own)
        utf8, table = _compare_piece(part, what)
        packed.append(utf8)
        tables.append(table)
        sets.append(prompt.sets)
    return _number_rows(packed.values, pl.concat(tables), sets, what)


def _compare_piece(texts: pl.DataFrame, what: _Compared) -> tuple[UInt8, pl.DataFrame]:
    """Return the UTF-8 of what is compared of some rows, and a row of numbers for each.

    Args:
        texts: own words of the prompt, response, and own words of the response if those count.
        what: is compared.
    """
    table = pl.DataFrame({"words": normalize_texts(texts["prompt"], punctuation=True)})
    is_short = pl.col("words").str.count_matches(r"\S+") < SHORT_WORDS
    text, tail, size = pl.col("words"), pl.lit(""), pl.lit(0)
    is_long = code = pl.lit(None)
    if what.has_answer:
        answers = normalize_texts(texts["response"], punctuation=True)
        table = table.with_columns(answer=answers, is_long=answers.str.count_matches(r"\S+") >= LONG_WORDS)
        is_long = pl.col("is_long")
        # of long answers the numbers alone
        long_code, short_code = pl.lit("long ") + _list_numbers("answer"), pl.lit("short ") + pl.col("answer")
        code = pl.when(is_long).then(long_code).otherwise(short_code).hash()
    if what.is_whole:
        table = table.with_columns(response=normalize_texts(texts["own_response"], punctuation=True))
        text = pl.concat_str("words", "response", separator=" \0 ")
    if what.is_answer_compared:
        # a long answer is mostly all a row's own: then it is there already, at the end of the text
        tail = pl.when(is_long & (pl.col("answer") != pl.col("response"))).then("answer").otherwise(pl.lit(""))
        size = pl.when(is_long).then(pl.col("answer").str.len_bytes()).otherwise(0)
    numbers = pl.when(is_short).then(_list_numbers("words")).otherwise(pl.lit(""))
    compared = table.select(
        text=text,
        tail=tail,
        answer_size=size.cast(pl.Int64),
        prompt=pl.col("words").hash(),
        numbers=numbers.hash(),
        is_long=is_long,
        code=code,
    )
    packed = "".join(compared.select(pl.concat_str("text", "tail")).to_series().to_list()).encode()
    sizes = [pl.col(name).str.len_bytes().cast(pl.Int64).alias(f"{name}_size") for name in ("text", "tail")]
    return np.frombuffer(packed, np.uint8), compared.with_columns(sizes).drop("text", "tail")


def _number_rows(packed: UInt8, table: pl.DataFrame, sets: list[Wrappers], what: _Compared) -> OwnRows:
    """Return what is compared of all rows, from the numbers of each piece."""
    n = len(table)
    size, tail, answer_size = (table[f"{name}_size"].to_numpy() for name in ("text", "tail", "answer"))
    behind = np.cumsum(size + tail)
    starts = behind - size - tail
    wrapper, wrappers = number_wrappers(sets)
    is_common = np.ones(n, np.bool_)
    if what.has_answer:
        of_many = (pl.col("prompt").n_unique().over("code") > COMMON_PROMPTS) & ~pl.col("is_long")
        is_common = table.select(of_many).to_series().to_numpy()
    return OwnRows(
        packed=packed,
        starts=np.concatenate([starts, behind - answer_size]),
        ends=np.concatenate([starts + size, behind]),
        wrapper=wrapper,
        wrapper_hashes=wrappers.hashes,
        wrapper_offsets=wrappers.offsets,
        group=_number_values(table["numbers"]),
        answer=_number_values(table["code"]) if what.is_answer_compared else np.zeros(n, np.int64),
        is_common=is_common,
    )


def _number_values(values: pl.Series) -> Int64:
    """Return a number for each value, 1, 2, ...; equal values have one number."""
    numbers: Int64 = values.rank("dense").to_numpy().astype(np.int64)
    return numbers


def _list_numbers(column: str) -> pl.Expr:
    """Return the numbers in a column's texts, sorted, as one text."""
    return pl.col(column).str.extract_all(r"\p{Nd}+").list.sort().list.join(" ")
