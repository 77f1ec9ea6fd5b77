"""Shingles: the sets of short pieces (n words or n characters) that texts are compared by."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from thresher.dataset.own_text.words import FNV_BASIS, FNV_PRIME, split_series
from thresher.numeric.arrays import Int64, UInt8, UInt32, UInt64
from thresher.numeric.growing_array import GrowingArray
from thresher.numeric.hashing import mix_bits
from thresher.numeric.numba_jit import jit, jit_part

Unit = Literal["word", "character"]
SPACE = 32  # code point; words are divided by single spaces


class Shingles(NamedTuple):
    """The sets of n rows, as hashes.

    Attributes:
        hashes: (m,) uint32, the rows' sets one after another, each sorted and without repeats. Two
            different shingles have one hash with probability 2**-32.
        offsets: (n + 1,) int64, row i has `hashes[offsets[i]:offsets[i + 1]]`.
    """

    hashes: UInt32
    offsets: Int64

    def sizes(self) -> Int64:
        """Return the number of shingles of each row, (n,)."""
        return np.diff(self.offsets)


def build_shingles(texts: pl.Series, *, n: int, unit: Unit) -> Shingles:
    """Return the set of shingles of each text.

    A text of fewer than n words or characters is one shingle; one without any has none. Words are
    divided by spaces, so texts should be normalized first.

    Cost: linear in the length of the texts; 4 bytes per shingle.

    Args:
        texts: (n,) string, no nulls.
        n: length of a shingle.
        unit: "word" or "character".
    """
    hashes, sizes = GrowingArray(np.uint32), [np.zeros(1, np.int64)]
    for chunk in split_series(texts):
        part, counts = hash_texts(*pack_texts(chunk), n, unit == "word")
        hashes.append(part)
        sizes.append(counts)
    return Shingles(hashes.values, np.cumsum(np.concatenate(sizes)))


def pack_texts(texts: pl.Series) -> tuple[UInt8, Int64, Int64]:
    """Return the UTF-8 of all texts in one array, and where each text starts and ends."""
    ends = np.cumsum(texts.str.len_bytes().to_numpy(), dtype=np.int64)
    packed = np.frombuffer("".join(texts.to_list()).encode(), dtype=np.uint8)
    return packed, np.concatenate([[0], ends[:-1]]).astype(np.int64)[: len(ends)], ends


@jit_part
def hash_words(codes: UInt32, start: int, end: int, hashes: UInt64, sizes: Int64) -> int:
    """Write the hash and the length of each word of a text; return the number of words."""
    n_words, value, size = 0, FNV_BASIS, 0
    for at in range(start, end + 1):
        # a word ends at a space and at the end of the text; of several spaces only the first ends
        # one
        if at == end or codes[at] == SPACE:
            if size:
                hashes[n_words], sizes[n_words] = value, size
                n_words += 1
            value, size = FNV_BASIS, 0
        else:
            value = (value ^ np.uint64(codes[at])) * FNV_PRIME
            size += 1
    return n_words


@jit_part
def hash_run(pieces: UInt64, first: int, width: int) -> np.uint64:
    """Return the hash of `width` pieces, from `first` on."""
    value = FNV_BASIS
    for i in range(first, first + width):
        value = (value ^ pieces[i]) * FNV_PRIME
        value ^= value >> np.uint64(29)  # a product alone carries nothing downwards
    return value


@jit_part
def decode(packed: UInt8, start: int, end: int, codes: UInt32) -> int:
    """Write the code points of UTF-8 bytes; return how many there are."""
    n, at = 0, start
    while at < end:
        first = packed[at]
        if first < 0x80:
            value, more = np.uint32(first), 0
        elif first < 0xE0:
            value, more = np.uint32(first & 0x1F), 1
        elif first < 0xF0:
            value, more = np.uint32(first & 0x0F), 2
        else:
            value, more = np.uint32(first & 0x07), 3
        for i in range(1, more + 1):  # six bits in each byte that follows
            value = np.uint32((value << np.uint32(6)) | np.uint32(packed[at + i] & 0x3F))
        codes[n] = value
        n, at = n + 1, at + 1 + more
    return n


@jit_part
def hash_text(packed: UInt8, start: int, end: int, n: int, by_word: bool, out: UInt32) -> int:
    """Write the set of shingles of one text, sorted and without repeats; return its size.

    Args:
        packed: UTF-8 of texts.
        start: of the text.
        end: behind it.
        n: length of a shingle.
        by_word: of words, not of characters.
        out: with room for as many as the text has bytes.
    """
    if start == end:
        return 0
    codes = np.empty(end - start, np.uint32)
    n_codes = decode(packed, start, end, codes)
    pieces = np.empty(n_codes + 1, np.uint64)
    # pieces[:n_pieces] are the text's words, or its characters
    if by_word:
        n_pieces = hash_words(codes, 0, n_codes, pieces, np.empty(n_codes + 1, np.int64))
    else:
        n_pieces = n_codes
        for i in range(n_codes):
            pieces[i] = np.uint64(codes[i])
    if n_pieces == 0:
        return 0
    width = min(n, n_pieces)
    n_runs = n_pieces - width + 1
    for first in range(n_runs):
        out[first] = np.uint32(mix_bits(hash_run(pieces, first, width)) >> np.uint64(32))
    # write each distinct hash once, in ascending order, over the unsorted ones
    ordered = np.sort(out[:n_runs])
    n_distinct = 0
    for i in range(n_runs):
        if i == 0 or ordered[i] != ordered[i - 1]:
            out[n_distinct] = ordered[i]
            n_distinct += 1
    return n_distinct


@jit
def hash_texts(packed: UInt8, starts: Int64, ends: Int64, n: int, by_word: bool) -> tuple[UInt32, Int64]:
    """Return the shingles of texts one after another, and how many each text has."""
    hashes, counts = np.empty((ends - starts).sum(), np.uint32), np.zeros(len(starts), np.int64)
    n_filled = 0  # hashes[:n_filled] are the shingles of the texts before this one
    for row in range(len(starts)):
        counts[row] = hash_text(packed, starts[row], ends[row], n, by_word, hashes[n_filled:])
        n_filled += counts[row]
    return hashes[:n_filled].copy(), counts


@jit_part
def count_shared(a: UInt32, b: UInt32) -> int:
    """Return the size of the intersection of two sorted sets."""
    i = j = n_shared = 0
    # all common elements before a[i] and b[j] are counted; the smaller of the two cannot occur
    # again
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            n_shared += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return n_shared
