"""Texts as words: a hash for each word, where it begins, and whether it ends a passage."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple, TypeVar

import numpy as np
import polars as pl

from thresher.numeric.arrays import Bool, Int32, Int64, UInt32, UInt64
from thresher.numeric.growing_array import GrowingArray
from thresher.numeric.hashing import mix_bits
from thresher.numeric.numba_jit import jit, jit_part
from thresher.numeric.threads import count_threads

T = TypeVar("T")
CHUNK_ROWS = 65_536
CHUNK_BYTES = 1 << 21  # of text: what is read at once, so that long rows take no more memory
FNV_PRIME = np.uint64(0x100000001B3)  # FNV-1a, 64 bit
FNV_BASIS = np.uint64(0xCBF29CE484222325)
LINE_FEED, CARRIAGE_RETURN = 10, 13


class Words(NamedTuple):
    """The words of n texts. Case of ASCII letters does not count, nor does white space.

    A word is a run of letters and digits, or one mark of punctuation, or one character of a script
    that puts no spaces between words.

    Attributes:
        hashes: (w,) uint32, the texts' words one after another.
        is_last: (w,) bool, whether a word is the last one of a passage: of a line or a sentence.
        is_letter: (w,) bool, False for a mark of punctuation.
        offsets: (n + 1,) int64, text i has the words from `offsets[i]` to `offsets[i + 1]`.
    """

    hashes: UInt32
    is_last: Bool
    is_letter: Bool
    offsets: Int64


def split_series(texts: pl.Series) -> Iterator[pl.Series]:
    """Yield texts in pieces; see `list_pieces`."""
    texts = texts.cast(pl.String)  # one without rows may have any type
    for start, stop in list_pieces(texts.str.len_bytes()):
        yield texts[start:stop]


def map_pieces(function: Callable[[pl.Series], T], texts: pl.Series) -> Iterator[T]:
    """Yield what a function gives for each piece of texts, in their order; several run at once."""
    pieces = list(split_series(texts))
    if len(pieces) < 2:
        yield from map(function, pieces)
        return
    with ThreadPoolExecutor(count_threads()) as pool:
        yield from pool.map(function, pieces)


def list_pieces(n_bytes: pl.Series, max_rows: int = CHUNK_ROWS) -> Iterator[tuple[int, int]]:
    """Yield where pieces of rows start and stop; only a single row has more than `CHUNK_BYTES`."""
    ends = np.concatenate([[0], np.cumsum(n_bytes.to_numpy(), dtype=np.int64)])
    start, n = 0, len(n_bytes)
    while start < n:
        fitting = int(np.searchsorted(ends, ends[start] + CHUNK_BYTES, side="right")) - 1
        stop = min(max(fitting, start + 1), start + max_rows)
        yield start, stop
        start = stop


def encode_codes(texts: pl.Series) -> tuple[UInt32, Int64, Int64]:
    """Return the code points of all texts in one array, and where each text starts and ends."""
    lengths = texts.str.len_chars().to_numpy().astype(np.int64)
    codes = np.frombuffer("".join(texts.to_list()).encode("utf-32-le"), dtype=np.uint32)
    ends = np.cumsum(lengths)
    return codes, ends - lengths, ends


def split_words(texts: pl.Series) -> Words:
    """Return the words of each text.

    Cost: linear in the length of the texts; 6 bytes per word.

    Args:
        texts: (n,) string, no nulls.
    """
    hashes, flags = GrowingArray(np.uint32), (GrowingArray(np.bool_), GrowingArray(np.bool_))
    counts = [np.zeros(1, np.int64)]
    for words, _ in map_pieces(locate_words, texts):
        hashes.append(words.hashes)
        flags[0].append(words.is_last)
        flags[1].append(words.is_letter)
        counts.append(np.diff(words.offsets))
    return Words(hashes.values, flags[0].values, flags[1].values, np.cumsum(np.concatenate(counts)))


def locate_words(texts: pl.Series) -> tuple[Words, Int32]:
    """Return the words of each text, and in which place of its text each one begins, (w,)."""
    hashes, starts, is_last, is_letter, counts = _split(*encode_codes(texts))
    return Words(hashes, is_last, is_letter, np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)), starts


@jit_part
def _is_space(code: int) -> bool:
    """Tell whether a character is white space."""
    if code <= 0x20 or code == 0x85 or code == 0xA0:
        return True
    is_general = 0x2000 <= code <= 0x200B or 0x2028 <= code <= 0x2029 or code == 0x202F or code == 0x205F
    return is_general or code == 0x1680 or code == 0x3000 or code == 0xFEFF


@jit_part
def _is_line_end(code: int) -> bool:
    return code in (LINE_FEED, CARRIAGE_RETURN)


@jit_part
def _is_mark(code: int) -> bool:
    """Tell whether a character is punctuation, or a sign such as + or $."""
    if code < 0x80:
        is_letter = 48 <= code <= 57 or 65 <= code <= 90 or 97 <= code <= 122
        return not is_letter
    is_wide = 0xFF01 <= code <= 0xFF0F or 0xFF1A <= code <= 0xFF20 or 0xFF3B <= code <= 0xFF65
    return is_wide or 0xA1 <= code <= 0xBF or 0x2010 <= code <= 0x206F or 0x3001 <= code <= 0x303F


@jit_part
def _is_alone(code: int) -> bool:
    """Tell whether a character is of a script without spaces between words."""
    is_southeast = 0x0E00 <= code <= 0x0EFF or 0x1000 <= code <= 0x109F or 0x1780 <= code <= 0x17FF
    is_east = 0x2E80 <= code < 0xA4D0 or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF
    return is_southeast or is_east


@jit_part
def _ends_sentence(code: int) -> bool:
    """Tell whether a mark ends a sentence, or a heading such as "Question:"."""
    if code < 0x80:
        return code == 33 or code == 46 or code == 58 or code == 59 or code == 63  # ! . : ; ?
    return code == 0x3002 or code == 0xFF01 or code == 0xFF1A or code == 0xFF1F or code == 0xFF1B


@jit
def _split(codes: UInt32, begins: Int64, ends: Int64) -> tuple[UInt32, Int32, Bool, Bool, Int64]:
    """Return hashes, starts, ends of passages, letters, and the number of words of each text."""
    hashes, starts = np.empty(len(codes), np.uint32), np.empty(len(codes), np.int32)
    is_last, is_letter = np.zeros(len(codes), np.bool_), np.zeros(len(codes), np.bool_)
    counts = np.zeros(len(begins), np.int64)
    n = 0  # words so far
    for row in range(len(begins)):
        first, at = n, begins[row]
        while at < ends[row]:
            code = codes[at]
            if _is_space(code):
                # a line feed ends the passage of the word before it
                if _is_line_end(code) and n > first:
                    is_last[n - 1] = True
                at += 1
                continue
            starts[n], value = at - begins[row], FNV_BASIS
            is_letter[n] = not _is_mark(code)
            if _is_mark(code) or _is_alone(code):
                value = (value ^ np.uint64(code)) * FNV_PRIME
                at += 1
                is_before_space = at == ends[row] or code >= 0x80 or _is_space(codes[at])
                is_last[n] = is_before_space and _ends_sentence(code)
            else:
                while at < ends[row] and not (_is_space(codes[at]) or _is_mark(codes[at]) or _is_alone(codes[at])):
                    lower = codes[at] + 32 if 65 <= codes[at] <= 90 else codes[at]
                    value = (value ^ np.uint64(lower)) * FNV_PRIME
                    at += 1
            hashes[n] = np.uint32(mix_bits(value) >> np.uint64(32))
            n += 1
        if n > first:
            is_last[n - 1] = True
        counts[row] = n - first
    return hashes[:n].copy(), starts[:n].copy(), is_last[:n].copy(), is_letter[:n].copy(), counts


@jit_part
def find_slot(table: UInt64, key: np.uint64) -> np.int64:
    """Return where a key other than 0 is in a hash table, or the empty slot where it belongs.

    Args:
        table: its length is a power of two, larger than the number of keys; 0 where it is empty.
        key: well mixed.
    """
    mask = len(table) - 1
    at = np.int64(key & np.uint64(mask))
    while table[at] != np.uint64(0) and table[at] != key:
        at = (at + 1) & mask
    return at


def build_table(keys: UInt64) -> UInt64:
    """Return a hash table of keys for `find_slot`."""
    table = np.zeros(1 << max(4, int(2 * len(keys)).bit_length()), np.uint64)
    _fill_table(table, keys)
    return table


@jit
def _fill_table(table: UInt64, keys: UInt64) -> None:
    for key in keys:
        table[find_slot(table, key)] = key
