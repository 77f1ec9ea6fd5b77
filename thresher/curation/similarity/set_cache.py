"""Sets of shingles of single texts, made when they are compared, the latest of them kept.

All sets of a pool take four bytes per character, several times the texts. Few rows are compared
with another, and those mostly with rows of their own kind, so a part of the sets is enough.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.curation.similarity.own_rows import OwnRows
from thresher.curation.similarity.shingles import hash_text
from thresher.numeric.arrays import Int64, UInt8, UInt32
from thresher.numeric.numba_jit import jit

ROW_BYTES = 512  # of sets that are kept, on average
MIN_KEPT = 1 << 18  # shingles that are kept in any case


class SetCache(NamedTuple):
    """Texts, and a ring of shingles in which each new set takes the place of the oldest ones.

    Attributes:
        packed: UTF-8 of the texts.
        starts: (m,) int64, where each text begins.
        ends: (m,) int64, where it ends.
        sizes: (m,) int64, shingles of each text, -1 where they are not counted yet.
        shape: length of a shingle, and whether it is of words.
        ring: (r,) uint32.
        place: (m,) int64, where each set begins, counted on through all rounds of the ring; -1 for
            one that was not made.
        filled: (1,) int64, where the next one begins.
    """

    packed: UInt8
    starts: Int64
    ends: Int64
    sizes: Int64
    shape: tuple[int, bool]
    ring: UInt32
    place: Int64
    filled: Int64


def build_set_cache(own: OwnRows, shape: tuple[int, bool], n_shingles: Int64) -> SetCache:
    """Return a cache without sets: item i is the text of row i, item n + i its long answer.

    Args:
        own: n rows.
        shape: length of a shingle, and whether it is of words.
        n_shingles: (n,) of each row's text.
    """
    n, m = len(n_shingles), len(own.starts)
    n_bytes = own.ends - own.starts
    # a text has no more shingles than bytes; sets are not divided, hence twice the longest
    most = max(ROW_BYTES // 4 * n, 2 * int(n_bytes.max(initial=0)), MIN_KEPT)
    ring = np.empty(min(most, int(n_bytes.sum() + n_bytes.max(initial=0))), np.uint32)
    sizes = np.concatenate([n_shingles, np.full(m - n, -1, np.int64)])
    return SetCache(own.packed, own.starts, own.ends, sizes, shape, ring, np.full(m, -1), np.zeros(1, np.int64))


@jit
def read_set(item: int, sets: SetCache) -> UInt32:
    """Return the set of an item, sorted; it is valid until the next one is read."""
    ring, filled = sets.ring, sets.filled
    at = sets.place[item]
    # what is older than one round has been written over
    if at >= 0 and filled[0] - at <= len(ring):
        at %= len(ring)
        return ring[at : at + sets.sizes[item]]
    room = sets.ends[item] - sets.starts[item]
    left = len(ring) - filled[0] % len(ring)
    if room > left:  # sets are not divided: go on at the beginning of the next round
        filled[0] += left
    at = filled[0] % len(ring)
    n, by_word = sets.shape
    size = hash_text(sets.packed, sets.starts[item], sets.ends[item], n, by_word, ring[at:])
    sets.sizes[item], sets.place[item] = size, filled[0]
    # the room behind a set was written to while it was made
    filled[0] += room
    return ring[at : at + size]
