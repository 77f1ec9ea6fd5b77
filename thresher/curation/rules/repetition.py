"""Repetition and boilerplate: rows that repeat themselves, or say nothing of their own."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import polars as pl

from thresher.curation.rule import Rows, Rule
from thresher.curation.similarity.shingles import hash_run, hash_words
from thresher.curation.verdict import Verdict
from thresher.dataset.normalize import Scope, normalize_texts, plain_texts
from thresher.dataset.own_text.words import encode_codes
from thresher.numeric.arrays import Float64, Int64, UInt32, UInt64
from thresher.numeric.numba_jit import jit, jit_part
from thresher.validation import option

TOP_GRAMS = (2, 3, 4)
REPEATED_GRAMS = (5, 6, 7, 8, 9, 10)
BOILERPLATE = (
    "lorem ipsum",
    "as an ai language model",
    "as a large language model",
    "i'm sorry, but i cannot",
    "i\u2019m sorry, but i cannot",
    "i cannot fulfill your request",
    "please enable javascript",
    "this page requires javascript",
)


class _Test(NamedTuple):
    """One heuristic.

    Attributes:
        limit: values beyond it fail.
        words: what is measured, for the explanation.
        value: (n,) measured.
        is_high: rows above the limit fail; else those below.
    """

    limit: float
    words: str
    value: Float64
    is_high: bool = True


@dataclass(frozen=True, kw_only=True)
class Repetition(Rule):
    """Drop rows that repeat themselves, are no prose at all, or hold a known empty phrase.

    The limits are those of MassiveText for web pages: share of repeated lines, share of characters
    in the most frequent 2- to 4-gram and in all repeated 5- to 10-grams, mean length of a word,
    words without a letter, symbols ('#' and dots) per word, and lines that are list items. Shares
    of a short text mean little (one of five words is 20 %), so texts of fewer than `min_words`
    words are only searched for phrases. Lines are counted in texts of four or more.

    Source: Rae et al. 2021, arXiv:2112.11446, table A1 and section A.1.1; phrases after Raffel et
    al. 2020 (arXiv:1910.10683, section 2.2). Differs: no stop-word test, which works in English
    alone; the paragraph tests are left to the lines. Cost: O(words log words) per row. Fails: code,
    tables, lyrics and lists repeat themselves rightly; set a limit to 1 to switch it off.

    Attributes:
        scope: which text is looked at: "response", "prompt" or "row"; of classification data always
            the text.
        min_words: shorter texts are only searched for phrases.
        repeated_lines: largest share of lines that occurred before.
        repeated_line_characters: largest share of characters in such lines.
        top_gram: largest share of characters in the most frequent 2-gram; 3- and 4-grams 0.02 and
            0.04 less.
        repeated_gram: largest share of characters in repeated 5-grams; 0.01 less for each further
            word.
        min_word_length: smallest mean length of a word in characters.
        max_word_length: largest.
        symbols: most '#' and ellipses per word.
        letterless_words: largest share of words without a letter.
        list_lines: largest share of lines that begin like a list item.
        phrases: texts, in lower case, that no row may hold.
    """

    name: ClassVar[str] = "repetition"

    scope: Scope = "response"
    min_words: int = option(50, ge=1)
    repeated_lines: float = option(0.3, ge=0, le=math.inf)
    repeated_line_characters: float = option(0.2, ge=0, le=math.inf)
    top_gram: float = option(0.2, ge=0, le=math.inf)
    repeated_gram: float = option(0.15, ge=0, le=math.inf)
    min_word_length: float = option(3.0, ge=0, le=math.inf)
    max_word_length: float = option(10.0, ge=0, le=math.inf)
    symbols: float = option(0.1, ge=0, le=math.inf)
    letterless_words: float = option(0.2, ge=0, le=math.inf)
    list_lines: float = option(0.9, ge=0, le=math.inf)
    phrases: tuple[str, ...] = BOILERPLATE

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row that fails a test; the first that it fails is its reason."""
        texts = plain_texts(pool.dataset, self.scope)
        is_long = texts.str.count_matches(r"\S+").to_numpy() >= self.min_words
        reasons, sentences = self._find_phrases(texts)
        rows = np.flatnonzero(is_long & np.array([reason is None for reason in reasons]))
        for test in self._measure(texts.gather(rows)) if len(rows) else []:
            fails = test.value > test.limit if test.is_high else test.value < test.limit
            for i in np.flatnonzero(fails).tolist():
                if reasons[rows[i]] is None:
                    reasons[rows[i]] = "repetition" if "repeated" in test.words else "no-prose"
                    bound = "most" if test.is_high else "least"
                    sentences[rows[i]] = f"{test.words} is {test.value[i]:.3g}, at {bound} {test.limit:.3g} is allowed"
        return Verdict(
            reason=pl.Series("reason", reasons, dtype=pl.String),
            explanation=pl.Series("explanation", sentences, dtype=pl.String),
            notes={"rows_too_short_to_tell": int((~is_long).sum())},
        )

    def _find_phrases(self, texts: pl.Series) -> tuple[list[str | None], list[str | None]]:
        """Return the reason and the explanation of rows that hold one of the phrases."""
        phrases = [phrase.lower() for phrase in self.phrases if phrase]
        if not phrases:
            return [None] * len(texts), [None] * len(texts)
        first = normalize_texts(texts).str.extract_many(phrases).list.first().to_list()
        return (
            [None if phrase is None else "boilerplate" for phrase in first],
            [None if phrase is None else f"holds '{phrase}'" for phrase in first],
        )

    def _measure(self, texts: pl.Series) -> list[_Test]:
        lines, words, grams = _measure_lines(texts), _measure_words(texts), _measure_grams(texts)
        return [
            _Test(self.repeated_lines, "the share of repeated lines", lines["repeated"]),
            _Test(self.repeated_line_characters, "the share of characters in repeated lines", lines["characters"]),
            *(
                _Test(_lower_limit(self.top_gram, 0.02 * i), f"the share of the most repeated {n}-gram", grams[:, i])
                for i, n in enumerate(TOP_GRAMS)
            ),
            *(
                _Test(
                    _lower_limit(self.repeated_gram, 0.01 * i),
                    f"the share of repeated {n}-grams",
                    grams[:, len(TOP_GRAMS) + i],
                )
                for i, n in enumerate(REPEATED_GRAMS)
            ),
            _Test(self.min_word_length, "the mean length of a word", words["length"], is_high=False),
            _Test(self.max_word_length, "the mean length of a word", words["length"]),
            _Test(self.symbols, "the number of symbols per word", words["symbols"]),
            _Test(self.letterless_words, "the share of words without a letter", words["letterless"]),
            _Test(self.list_lines, "the share of lines that are list items", lines["items"]),
        ]


def _lower_limit(limit: float, less: float) -> float:
    """Return the limit for longer runs; 1 switches them off, too, though overlaps can exceed it."""
    return math.inf if limit >= 1 else limit - less


def _measure_lines(texts: pl.Series) -> dict[str, Float64]:
    """Return shares of lines of each text; 0 where it has fewer than four."""
    frame = texts.alias("text").to_frame().with_row_index("row")
    lines = (
        frame.select("row", pl.col("text").str.split("\n"))
        .explode("text")
        .select("row", line=pl.col("text").str.strip_chars())
        .filter(pl.col("line") != "")
    )
    is_repeated = pl.int_range(pl.len()).over("row", "line") > 0
    size = pl.col("line").str.len_chars()
    shares = (
        lines.with_columns(is_repeated=is_repeated, size=size)
        .group_by("row")
        .agg(
            n=pl.len(),
            repeated=pl.col("is_repeated").mean(),
            characters=(pl.col("size") * pl.col("is_repeated")).sum() / pl.col("size").sum(),
            items=pl.col("line").str.contains(r"^([-*•]|\d{1,3}[.)])\s").mean(),
        )
    )
    joined = frame.select("row").join(shares, on="row", how="left", maintain_order="left")
    is_enough = (joined["n"].fill_null(0) >= 4).to_numpy()
    return {
        name: np.where(is_enough, joined[name].fill_null(0.0).to_numpy().astype(np.float64), 0.0)
        for name in ("repeated", "characters", "items")
    }


def _measure_words(texts: pl.Series) -> dict[str, Float64]:
    """Return what the words of each text are like."""
    frame = texts.alias("text").to_frame()
    n_words = pl.col("text").str.count_matches(r"\S+").clip(1)
    shares = frame.select(
        length=pl.col("text").str.count_matches(r"\S") / n_words,
        symbols=pl.col("text").str.count_matches(r"#|\.\.\.|…") / n_words,
        letterless=1 - pl.col("text").str.count_matches(r"\S*\p{L}\S*") / n_words,
    )
    return {name: shares[name].to_numpy().astype(np.float64) for name in shares.columns}


def _measure_grams(texts: pl.Series) -> Float64:
    """Return the shares of characters in the top 2- to 4-gram and repeated 5- to 10-grams."""
    return _measure_rows(*encode_codes(normalize_texts(texts)), np.array(TOP_GRAMS), np.array(REPEATED_GRAMS))


@jit_part
def _hash_grams(hashes: UInt64, width: int) -> UInt64:
    """Return the hash of each run of `width` words."""
    grams = np.empty(max(len(hashes) - width + 1, 0), np.uint64)
    for first in range(len(grams)):
        grams[first] = hash_run(hashes, first, width)
    return grams


@jit_part
def _measure_top(hashes: UInt64, sizes: Int64, width: int) -> float:
    """Return the share of characters in the most frequent run of words; 0 if none is repeated."""
    grams = _hash_grams(hashes, width)
    order = np.argsort(grams)
    best, best_size, run = 1, 0, 1  # of the most frequent gram; run: of this one so far
    for i in range(1, len(order) + 1):
        if i < len(order) and grams[order[i]] == grams[order[i - 1]]:
            run += 1
            continue
        # the gram of order[i - 1] is complete: of equally frequent ones the longest counts
        size = sizes[order[i - 1] : order[i - 1] + width].sum()
        if run > best or (run == best and run > 1 and size > best_size):
            best, best_size = run, size
        run = 1
    return float(best * best_size / max(sizes.sum(), 1))


@jit_part
def _measure_repeated(hashes: UInt64, sizes: Int64, width: int) -> float:
    """Return the share of characters in runs of words that occurred before, each counted once."""
    grams = _hash_grams(hashes, width)
    order = np.argsort(grams, kind="mergesort")  # stable: first occurrences come first
    is_covered = np.zeros(len(hashes), np.bool_)
    for i in range(1, len(order)):
        if grams[order[i]] == grams[order[i - 1]]:
            is_covered[order[i] : order[i] + width] = True
    return float(sizes[is_covered].sum() / max(sizes.sum(), 1))


@jit
def _measure_rows(codes: UInt32, starts: Int64, ends: Int64, top: Int64, repeated: Int64) -> Float64:
    shares = np.zeros((len(starts), len(top) + len(repeated)))
    for row in range(len(starts)):
        n_characters = ends[row] - starts[row]
        hashes, sizes = np.empty(n_characters, np.uint64), np.empty(n_characters, np.int64)
        n_words = hash_words(codes, starts[row], ends[row], hashes, sizes)
        hashes, sizes = hashes[:n_words], sizes[:n_words]
        for i in range(len(top)):
            shares[row, i] = _measure_top(hashes, sizes, top[i])
        for i in range(len(repeated)):
            shares[row, len(top) + i] = _measure_repeated(hashes, sizes, repeated[i])
    return shares
