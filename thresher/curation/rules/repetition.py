"""Repetition and boilerplate: rows that say the same thing over and over, or nothing of their own."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import ClassVar, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.curation.normalize import SCOPES, normalize_texts, plain_texts
from thresher.curation.rule import Rows
from thresher.curation.verdict import Verdict
from thresher.numeric.arrays import Float64, Int64, UInt64
from thresher.numeric.numba_jit import jit
from thresher.validation import check_number, check_one_of, check_whole

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
_BASIS, _PRIME = np.uint64(0xCBF29CE484222325), np.uint64(0x100000001B3)


class _Test(NamedTuple):
    """One heuristic.

    Attributes:
        setting: the limit's name.
        words: what is measured, for the explanation.
        value: (n,) measured.
        is_high: rows above the limit fail; else those below.
    """

    setting: str
    words: str
    value: Float64
    is_high: bool = True


@dataclass(frozen=True, kw_only=True)
class Repetition:
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
    needs: ClassVar[frozenset[str]] = frozenset()

    scope: str = "response"
    min_words: int = 50
    repeated_lines: float = 0.3
    repeated_line_characters: float = 0.2
    top_gram: float = 0.2
    repeated_gram: float = 0.15
    min_word_length: float = 3.0
    max_word_length: float = 10.0
    symbols: float = 0.1
    letterless_words: float = 0.2
    list_lines: float = 0.9
    phrases: tuple[str, ...] = BOILERPLATE

    def __post_init__(self) -> None:
        """Check the settings."""
        check_one_of(self.name, "scope", self.scope, SCOPES)
        check_whole(self.name, "min_words", self.min_words, 1)
        for field in fields(self):
            if isinstance(field.default, float):
                check_number(self.name, field.name, getattr(self, field.name), 0.0, float("inf"))

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row that fails a test; the first that it fails is its reason."""
        texts = plain_texts(pool.dataset, self.scope)
        is_long = texts.str.count_matches(r"\S+").to_numpy() >= self.min_words
        reason, text = self._phrases(texts)
        rows = np.flatnonzero(is_long & reason.is_null().to_numpy())
        reasons, sentences = reason.to_list(), text.to_list()
        for test in self._tests(texts.gather(rows)) if len(rows) else []:
            limit = self._limit(test.setting)
            fails = test.value > limit if test.is_high else test.value < limit
            for i in np.flatnonzero(fails).tolist():
                if reasons[rows[i]] is None:
                    reasons[rows[i]] = "repetition" if "repeated" in test.words else "no-prose"
                    bound = "most" if test.is_high else "least"
                    sentences[rows[i]] = f"{test.words} is {test.value[i]:.3g}, at {bound} {limit:.3g} is allowed"
        return Verdict(
            reason=pl.Series("reason", reasons, dtype=pl.String),
            explanation=pl.Series("explanation", sentences, dtype=pl.String),
            notes={"rows_too_short_to_tell": int((~is_long).sum())},
        )

    def _limit(self, setting: str) -> float:
        name, _, less = setting.partition("-")
        limit = float(getattr(self, name))
        if less and limit >= 1:  # switched off, for longer runs of words too; occurrences that overlap make more than 1
            return float("inf")
        return limit - float(less or 0)

    def _phrases(self, texts: pl.Series) -> tuple[pl.Series, pl.Series]:
        """Return the reason and the explanation of rows that hold one of the phrases."""
        frame = normalize_texts(texts).alias("text").to_frame()
        phrases = [phrase.lower() for phrase in self.phrases if phrase]
        first = pl.col("text").str.extract_many(phrases).list.first() if phrases else pl.lit(None, pl.String)
        phrase = frame.with_columns(phrase=first)["phrase"]
        out = phrase.to_frame().select(
            reason=pl.when(pl.col("phrase").is_not_null()).then(pl.lit("boilerplate")),
            explanation=pl.format("holds '{}'", "phrase"),
        )
        return out["reason"], out["explanation"]

    def _tests(self, texts: pl.Series) -> list[_Test]:
        """Measure texts."""
        lines = _line_shares(texts)
        words = _word_shares(texts)
        grams = _gram_shares(texts)
        return [
            _Test("repeated_lines", "the share of repeated lines", lines["repeated"]),
            _Test("repeated_line_characters", "the share of characters in repeated lines", lines["characters"]),
            *(
                _Test(f"top_gram-{0.02 * i}", f"the share of the most repeated {n}-gram", grams[:, i])
                for i, n in enumerate(TOP_GRAMS)
            ),
            *(
                _Test(f"repeated_gram-{0.01 * i}", f"the share of repeated {n}-grams", grams[:, len(TOP_GRAMS) + i])
                for i, n in enumerate(REPEATED_GRAMS)
            ),
            _Test("min_word_length", "the mean length of a word", words["length"], is_high=False),
            _Test("max_word_length", "the mean length of a word", words["length"]),
            _Test("symbols", "the number of symbols per word", words["symbols"]),
            _Test("letterless_words", "the share of words without a letter", words["letterless"]),
            _Test("list_lines", "the share of lines that are list items", lines["items"]),
        ]


def _line_shares(texts: pl.Series) -> dict[str, Float64]:
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
    found = frame.select("row").join(shares, on="row", how="left", maintain_order="left")
    is_enough = (found["n"].fill_null(0) >= 4).to_numpy()
    return {
        name: np.where(is_enough, found[name].fill_null(0.0).to_numpy().astype(np.float64), 0.0)
        for name in ("repeated", "characters", "items")
    }


def _word_shares(texts: pl.Series) -> dict[str, Float64]:
    """Return what the words of each text are like."""
    frame = texts.alias("text").to_frame()
    n_words = pl.col("text").str.count_matches(r"\S+").clip(1)
    found = frame.select(
        length=pl.col("text").str.count_matches(r"\S") / n_words,
        symbols=pl.col("text").str.count_matches(r"#|\.\.\.|…") / n_words,
        letterless=1 - pl.col("text").str.count_matches(r"\S*\p{L}\S*") / n_words,
    )
    return {name: found[name].to_numpy().astype(np.float64) for name in found.columns}


def _gram_shares(texts: pl.Series) -> Float64:
    """Return (n, 9): share of characters in the most frequent 2- to 4-gram, and in all repeated 5- to 10-grams."""
    plain = normalize_texts(texts)
    lengths = plain.str.len_chars().to_numpy().astype(np.int64)
    codes = np.frombuffer("".join(plain.to_list()).encode("utf-32-le"), dtype=np.uint32)
    ends = np.cumsum(lengths)
    return _gram_kernel(codes, ends - lengths, ends, np.array(TOP_GRAMS), np.array(REPEATED_GRAMS))


@jit
def _split(codes: NDArray[np.uint32], start: int, end: int) -> tuple[UInt64, Int64]:
    """Return hash and length of each word of one text whose words are divided by single spaces."""
    hashes, sizes = np.empty(end - start, np.uint64), np.empty(end - start, np.int64)
    n, value, size = 0, _BASIS, 0
    for at in range(start, end + 1):
        if at == end or codes[at] == 32:
            if size:
                hashes[n], sizes[n] = value, size
                n += 1
            value, size = _BASIS, 0
        else:
            value = (value ^ np.uint64(codes[at])) * _PRIME
            size += 1
    return hashes[:n], sizes[:n]


@jit
def _grams(hashes: UInt64, width: int) -> UInt64:
    """Return the hash of each run of `width` words."""
    out = np.empty(max(len(hashes) - width + 1, 0), np.uint64)
    for first in range(len(out)):
        value = _BASIS
        for i in range(first, first + width):
            value = (value ^ hashes[i]) * _PRIME
            value ^= value >> np.uint64(29)
        out[first] = value
    return out


@jit
def _top_share(hashes: UInt64, sizes: Int64, width: int) -> float:
    """Return the share of characters in the most frequent run of `width` words; 0 where none is repeated."""
    grams = _grams(hashes, width)
    order = np.argsort(grams)
    best, best_size, run = 1, 0, 1
    for i in range(1, len(order) + 1):
        if i < len(order) and grams[order[i]] == grams[order[i - 1]]:
            run += 1
            continue
        size = sizes[order[i - 1] : order[i - 1] + width].sum()
        if run > best or (run == best and run > 1 and size > best_size):
            best, best_size = run, size
        run = 1
    return float(best * best_size / max(sizes.sum(), 1))


@jit
def _repeated_share(hashes: UInt64, sizes: Int64, width: int) -> float:
    """Return the share of characters in runs of `width` words that occurred before, each character counted once."""
    grams = _grams(hashes, width)
    order = np.argsort(grams, kind="mergesort")
    is_covered = np.zeros(len(hashes), np.bool_)
    for i in range(1, len(order)):
        if grams[order[i]] == grams[order[i - 1]]:
            is_covered[order[i] : order[i] + width] = True
    return float(sizes[is_covered].sum() / max(sizes.sum(), 1))


@jit
def _gram_kernel(codes: NDArray[np.uint32], starts: Int64, ends: Int64, top: Int64, repeated: Int64) -> Float64:
    out = np.zeros((len(starts), len(top) + len(repeated)))
    for row in range(len(starts)):
        hashes, sizes = _split(codes, starts[row], ends[row])
        for i in range(len(top)):
            out[row, i] = _top_share(hashes, sizes, top[i])
        for i in range(len(repeated)):
            out[row, len(top) + i] = _repeated_share(hashes, sizes, repeated[i])
    return out
