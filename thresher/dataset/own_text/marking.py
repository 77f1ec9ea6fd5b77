"""Which words of texts are of the text that many rows share."""

from __future__ import annotations

import numpy as np

from thresher.dataset.own_text.hashing import SEED, extend_hash, hash_four, measure_starts
from thresher.dataset.own_text.shared_text import GAP, GRAM, SharedText
from thresher.dataset.own_text.words import Words, find_slot
from thresher.numeric.arrays import Int64, UInt8, UInt32, UInt64
from thresher.numeric.numba_jit import jit, jit_part

SHARED, CHANGED = 1, 2  # marks of a word: of shared text, or in the place of a word of it


def mark_shared(words: Words, shared: SharedText) -> UInt8:
    """Return each word's mark, (w,): `SHARED`, `CHANGED` or 0; 0 in a text with nothing else."""
    first, last = words.offsets[:-1], words.offsets[1:]
    head = measure_starts(words.hashes, first, last, 1, shared.prefixes, shared.longest[0])
    tail = measure_starts(words.hashes, last - 1, first + head - 1, -1, shared.suffixes, shared.longest[1])
    return _mark(words, head, tail, shared)


@jit
def _mark(words: Words, head: Int64, tail: Int64, shared: SharedText) -> UInt8:
    """Return the mark of each word: those of head and tail, and known ones between them."""
    offsets = words.offsets
    marked = np.zeros(len(words.hashes), np.uint8)
    for row in range(len(offsets) - 1):
        first, last = offsets[row] + head[row], offsets[row + 1] - tail[row]
        marked[offsets[row] : first] = SHARED
        marked[last : offsets[row + 1]] = SHARED
        _mark_known(words, first, last, shared.passages, shared.grams, marked)
        _mark_changed(words.hashes, (offsets[row], first, last, offsets[row + 1]), shared.bridges, marked)
        # a text of which only punctuation would be left is all its own
        n_own = 0
        for at in range(offsets[row], offsets[row + 1]):
            n_own += words.is_letter[at] and not marked[at]
        if n_own == 0:
            marked[offsets[row] : offsets[row + 1]] = 0
    return marked


@jit_part
def _mark_known(words: Words, first: int, last: int, passages: UInt64, grams: UInt64, marked: UInt8) -> None:
    """Mark shared passages and runs of words between two places."""
    hashes = words.hashes
    key, start = SEED, first
    for at in range(first, last):
        key = extend_hash(key, hashes[at])
        if words.is_last[at] or at == last - 1:
            if passages[find_slot(passages, key)] == key:
                marked[start : at + 1] = SHARED
            key, start = SEED, at + 1
        if at + GRAM <= last:
            gram = hash_four(hashes[at], hashes[at + 1], hashes[at + 2], hashes[at + 3])
            if grams[find_slot(grams, gram)] == gram:
                marked[at : at + GRAM] = SHARED


@jit_part
def _mark_changed(hashes: UInt32, places: tuple[int, int, int, int], bridges: UInt64, marked: UInt8) -> None:
    """Mark words that stand in shared text, between words of it that are known to be near.

    Args:
        hashes: of words.
        places: where the text begins, where its prefix ends, where its suffix begins, its end.
        bridges: see `SharedText`.
        marked: changed in place.
    """
    begin, first, last, stop = places
    at = begin
    while at < stop:
        if marked[at]:
            at += 1
            continue
        end = at
        while end < stop and not marked[end]:
            end += 1
        # words from `at` up to `end` are not marked, those on either side are; right behind the
        # prefix and right before the suffix is the place of what is a row's own
        is_slot = (at == first and first > begin) or (end == last and last < stop)
        is_inside = at - 2 >= begin and end + 2 <= stop and end - at <= GAP
        if is_inside and not is_slot and marked[at - 2] and marked[end + 1]:
            key = hash_four(hashes[at - 2], hashes[at - 1], hashes[end], hashes[end + 1])
            if bridges[find_slot(bridges, key)] == key:
                marked[at:end] = CHANGED
        at = end
