"""Shingles: the sets of short pieces (n words or n characters) that texts are compared by."""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from thresher.dataset.own_text.words import CHUNK_ROWS, FNV_BASIS, FNV_PRIME, encode_codes
from thresher.numeric.arrays import Int64, UInt32, UInt64
from thresher.numeric.hashing import mix_bits
from thresher.numeric.numba_jit import jit

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
    parts, sizes = [np.zeros(0, np.uint32)], [np.zeros(1, np.int64)]
    for start in range(0, len(texts), CHUNK_ROWS):
        hashes, counts = _hash_rows(*encode_codes(texts[start : start + CHUNK_ROWS]), n, unit == "word")
        parts.append(hashes)
        sizes.append(counts)
    return Shingles(np.concatenate(parts), np.cumsum(np.concatenate(sizes)))


@jit
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


@jit
def hash_run(pieces: UInt64, first: int, width: int) -> np.uint64:
    """Return the hash of `width` pieces, from `first` on."""
    value = FNV_BASIS
    for i in range(first, first + width):
        value = (value ^ pieces[i]) * FNV_PRIME
        value ^= value >> np.uint64(29)  # a product alone carries nothing downwards
    return value


@jit
def _hash_rows(codes: UInt32, starts: Int64, ends: Int64, n: int, by_word: bool) -> tuple[UInt32, Int64]:
    """Return the shingles of all rows one after another, and how many each row has."""
    # a row of c characters has at most c pieces and c shingles
    hashes, counts = np.empty(len(codes), np.uint32), np.zeros(len(starts), np.int64)
    longest = 0
    for row in range(len(starts)):
        longest = max(longest, ends[row] - starts[row])
    pieces, sizes = np.empty(longest + 1, np.uint64), np.empty(longest + 1, np.int64)
    n_filled = 0  # hashes[:n_filled] are the shingles of the rows before this one
    for row in range(len(starts)):
        # pieces[:n_pieces] are the row's words, or its characters
        if by_word:
            n_pieces = hash_words(codes, starts[row], ends[row], pieces, sizes)
        else:
            n_pieces = ends[row] - starts[row]
            for i in range(n_pieces):
                pieces[i] = np.uint64(codes[starts[row] + i])
        if n_pieces == 0:
            continue
        width = min(n, n_pieces)
        n_runs = n_pieces - width + 1
        for first in range(n_runs):
            hashes[n_filled + first] = np.uint32(mix_bits(hash_run(pieces, first, width)) >> np.uint64(32))
        # write each distinct hash once, in ascending order, over the unsorted ones
        ordered = np.sort(hashes[n_filled : n_filled + n_runs])
        n_distinct = 0
        for i in range(n_runs):
            if i == 0 or ordered[i] != ordered[i - 1]:
                hashes[n_filled + n_distinct] = ordered[i]
                n_distinct += 1
        counts[row] = n_distinct
        n_filled += n_distinct
    return hashes[:n_filled].copy(), counts


@jit
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
