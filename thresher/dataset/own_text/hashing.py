"""Hashes of runs of words, made word by word."""

from __future__ import annotations

import numpy as np

from thresher.dataset.own_text.words import FNV_PRIME, find_slot
from thresher.numeric.arrays import Int64, UInt32, UInt64
from thresher.numeric.hashing import mix_bits
from thresher.numeric.numba_jit import jit, jit_part

SEED = np.uint64(0x243F6A8885A308D3)  # hash of no words


@jit_part
def extend_hash(key: np.uint64, word: np.uint32) -> np.uint64:
    """Return the hash of some words and one more; never 0."""
    return mix_bits((key ^ np.uint64(word)) * FNV_PRIME) | np.uint64(1)


@jit_part
def hash_four(a: np.uint32, b: np.uint32, c: np.uint32, d: np.uint32) -> np.uint64:
    """Return the hash of four words; never 0."""
    return extend_hash(extend_hash(extend_hash(extend_hash(SEED, a), b), c), d)


@jit
def measure_starts(hashes: UInt32, begin: Int64, stop: Int64, step: int, table: UInt64, longest: int) -> Int64:
    """Return the words of the longest beginning of each row that is in a table, (n,)."""
    length = np.zeros(len(begin), np.int64)
    for row in range(len(begin)):
        key = SEED
        for level in range(min(longest, step * (stop[row] - begin[row]))):
            key = extend_hash(key, hashes[begin[row] + step * level])
            if table[find_slot(table, key)] == key:
                length[row] = level + 1
    return length
