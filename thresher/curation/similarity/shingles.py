"""Shingles: the sets of short pieces (n words or n characters) that texts are compared by."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.numeric.arrays import Int64, UInt32
from thresher.numeric.numba_jit import jit

CHUNK_ROWS = 65_536
UNITS = ("word", "character")
_SPACE = np.uint32(32)
_PRIME = np.uint64(0x100000001B3)  # FNV-1a, 64 bit
_BASIS = np.uint64(0xCBF29CE484222325)


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


def shingles(texts: pl.Series, *, n: int, unit: str) -> Shingles:
    """Return the set of shingles of each text.

    A text of fewer than n words or characters is one shingle; one without any has none. Words are
    divided by spaces, so texts should be normalized first.

    Cost: linear in the length of the texts; 4 bytes per shingle.

    Args:
        texts: (n,) string, no nulls.
        n: length of a shingle.
        unit: "word" or "character".
    """
    parts, sizes = [], []
    for start in range(0, len(texts), CHUNK_ROWS):
        part = texts[start : start + CHUNK_ROWS]
        lengths = part.str.len_chars().to_numpy().astype(np.int64)
        codes = np.frombuffer("".join(part.to_list()).encode("utf-32-le"), dtype=np.uint32)
        ends = np.cumsum(lengths)
        hashes, counts = _hash_rows(codes, ends - lengths, ends, n, unit == "word")
        parts.append(hashes)
        sizes.append(counts)
    offsets = np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate([np.zeros(0, np.int64), *sizes]))])
    return Shingles(np.concatenate([np.zeros(0, np.uint32), *parts]), offsets.astype(np.int64))


@jit
def _mixed(value: np.uint64) -> np.uint32:
    """Return 32 well mixed bits (the finalizer of MurmurHash3)."""
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    return np.uint32(value >> np.uint64(32))


@jit
def _word_hashes(codes: UInt32, start: int, end: int, out: NDArray[np.uint64]) -> int:
    """Write the hash of each word of a row to `out`; returns the number of words."""
    n_words, value, is_inside = 0, _BASIS, False
    for at in range(start, end):
        if codes[at] == _SPACE:
            if is_inside:
                out[n_words] = value
                n_words += 1
            value, is_inside = _BASIS, False
        else:
            value = (value ^ np.uint64(codes[at])) * _PRIME
            is_inside = True
    if is_inside:
        out[n_words] = value
        n_words += 1
    return n_words


@jit
def _hash_rows(codes: UInt32, starts: Int64, ends: Int64, n: int, by_word: bool) -> tuple[UInt32, Int64]:
    """Return the shingles of all rows one after another, and how many each row has."""
    hashes = np.empty(len(codes), np.uint32)
    counts = np.zeros(len(starts), np.int64)
    longest = 0
    for row in range(len(starts)):
        longest = max(longest, ends[row] - starts[row])
    pieces = np.empty(longest + 1, np.uint64)
    filled = 0
    for row in range(len(starts)):
        if by_word:
            n_pieces = _word_hashes(codes, starts[row], ends[row], pieces)
        else:
            n_pieces = ends[row] - starts[row]
            for i in range(n_pieces):
                pieces[i] = np.uint64(codes[starts[row] + i])
        if n_pieces == 0:
            continue
        width = min(n, n_pieces)
        n_here = n_pieces - width + 1
        for first in range(n_here):
            value = _BASIS
            for i in range(first, first + width):
                value = (value ^ pieces[i]) * _PRIME
                value ^= value >> np.uint64(29)  # a product alone carries nothing downwards
            hashes[filled + first] = _mixed(value)
        mine = np.sort(hashes[filled : filled + n_here])
        n_distinct = 0
        for i in range(n_here):
            if i == 0 or mine[i] != mine[i - 1]:
                hashes[filled + n_distinct] = mine[i]
                n_distinct += 1
        counts[row] = n_distinct
        filled += n_distinct
    return hashes[:filled].copy(), counts


@jit
def n_shared(a: UInt32, b: UInt32) -> int:
    """Return the size of the intersection of two sorted sets."""
    i = j = shared = 0
    while i < len(a) and j < len(b):
        if a[i] == b[j]:
            shared += 1
            i += 1
            j += 1
        elif a[i] < b[j]:
            i += 1
        else:
            j += 1
    return shared
