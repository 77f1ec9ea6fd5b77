"""Own texts: what is left of each text without the text that many rows share, and its wrapper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import polars as pl

from thresher.dataset.own_text.marking import SHARED, mark_shared
from thresher.dataset.own_text.shared_text import SharedText, find_shared_text
from thresher.dataset.own_text.words import Words, locate_words, map_pieces, split_words
from thresher.numeric.arrays import Bool, Int32, Int64, UInt8, UInt32, UInt64
from thresher.numeric.hashing import mix_bits
from thresher.numeric.numba_jit import jit, jit_part

HALF = np.uint64(32)  # bits
NO_TEXT = pl.Series("text", [], dtype=pl.String)


class Wrappers(NamedTuple):
    """The different wrappers of some texts, each as the set of its words.

    Attributes:
        hashes: uint32, the sets one after another, each sorted.
        offsets: (k + 1,) int64, wrapper i has the words from `offsets[i]` to `offsets[i + 1]`.
    """

    hashes: UInt32
    offsets: Int64


@dataclass(frozen=True, kw_only=True)
class OwnTexts:
    """What n texts say of their own.

    Attributes:
        texts: (n,) string: each text without what it shares with many; the whole text where nothing
            else would be left.
        rest: (n,) string: what was left out, "" for most.
        wrapper: (n,) int64, which of the wrappers each text has.
        wrappers: the different ones.
    """

    texts: pl.Series
    rest: pl.Series
    wrapper: Int64
    wrappers: Wrappers

    @property
    def has_wrapper(self) -> Bool:
        """Whether something was left out of a text, (n,)."""
        sizes = np.diff(self.wrappers.offsets)
        is_wrapped: Bool = sizes[self.wrapper] > 0
        return is_wrapped


def find_own_texts(sides: Sequence[pl.Series]) -> list[OwnTexts]:
    """Return what each text says of its own, for each side; wrappers are numbered through.

    What many texts of one side share is looked for on all sides: an evaluation set of a few rows
    has the wrapper that the pool shows.

    Cost: linear in the length of the texts.

    Args:
        sides: texts of each side, such as the pool's and the evaluation set's; no nulls.
    """
    shared = find_shared_text([split_words(side) for side in sides])
    pieces = [list(map_pieces(partial(divide_texts, shared=shared), side)) for side in sides]
    wrapper, wrappers = number_wrappers([piece.sets for side in pieces for piece in side])
    ends = np.cumsum([len(side) for side in sides])
    return [
        OwnTexts(
            texts=pl.concat([NO_TEXT.alias("text"), *(each.own for each in side)]),
            rest=pl.concat([NO_TEXT.alias("rest"), *(each.rest for each in side)]),
            wrapper=numbers,
            wrappers=wrappers,
        )
        for side, numbers in zip(pieces, np.split(wrapper, ends[:-1]), strict=True)
    ]


class DividedTexts(NamedTuple):
    """What n texts say of their own, and what they share.

    Attributes:
        own: (n,) string.
        rest: (n,) string.
        sets: of the shared words of each; see `number_wrappers`.
    """

    own: pl.Series
    rest: pl.Series
    sets: Wrappers


def divide_texts(texts: pl.Series, shared: SharedText) -> DividedTexts:
    """Divide some texts; where their words begin is read anew, which spares it for all texts.

    Args:
        texts: (n,) string, as many as fit into memory with all that is said of their words.
        shared: what they share with many others.
    """
    words, starts = locate_words(texts)
    marks = mark_shared(words, shared)
    return DividedTexts(*_cut(texts, words, starts, marks), Wrappers(*_collect_wrappers(words, marks)))


def _collect_wrappers(words: Words, marks: UInt8) -> tuple[UInt32, Int64]:
    """Return the set of the shared words of each text, sorted, and where it ends."""
    shared = np.flatnonzero((marks == SHARED) & words.is_letter)
    rows = np.searchsorted(words.offsets, shared, side="right") - 1
    # in the upper half the row, in the lower half the word; sorted, since np.unique hashes first
    pairs = np.sort((rows.astype(np.uint64) << HALF) | words.hashes[shared])
    pairs = pairs[np.append(True, pairs[1:] != pairs[:-1])[: len(pairs)]]
    ends = np.searchsorted(pairs >> HALF, np.arange(len(words.offsets), dtype=np.uint64))
    return pairs.astype(np.uint32), ends.astype(np.int64)


def number_wrappers(parts: Sequence[Wrappers]) -> tuple[Int64, Wrappers]:
    """Return which wrapper each text of all parts has, and the different wrappers.

    Args:
        parts: the set of each text, equal ones included.
    """
    hashes, ends = [part.hashes for part in parts], [part.offsets for part in parts]
    starts = np.cumsum([0, *(len(each) for each in hashes)])
    offsets = np.concatenate([[0], *(side[1:] + start for side, start in zip(ends, starts, strict=False))]).astype(
        np.int64
    )
    joined = np.concatenate([np.zeros(0, np.uint32), *hashes])
    _, first, wrapper = np.unique(_hash_sets(joined, offsets), return_index=True, return_inverse=True)
    sizes = offsets[first + 1] - offsets[first]
    different = [joined[offsets[row] : offsets[row + 1]] for row in first.tolist()]
    sets = np.concatenate([np.zeros(0, np.uint32), *different])
    return wrapper.astype(np.int64), Wrappers(sets, np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))


@jit
def _hash_sets(hashes: UInt32, offsets: Int64) -> UInt64:
    keys = np.zeros(len(offsets) - 1, np.uint64)
    for row in range(len(keys)):
        for at in range(offsets[row], offsets[row + 1]):
            keys[row] = mix_bits(keys[row] ^ np.uint64(hashes[at]))
    return keys


def _cut(texts: pl.Series, words: Words, starts: Int32, marks: UInt8) -> tuple[pl.Series, pl.Series]:
    """Return the texts of the unmarked words and those of the marked ones."""
    is_marked, offsets = marks > 0, words.offsets
    # a piece begins at the first word of a text, and wherever marked words begin or end
    is_begin = np.zeros(len(marks), np.bool_)
    is_begin[1:] = is_marked[1:] != is_marked[:-1]
    is_begin[offsets[:-1][offsets[1:] > offsets[:-1]]] = True
    piece = np.flatnonzero(is_begin)
    ends = np.searchsorted(piece, offsets)
    rows = np.unique(np.searchsorted(offsets, np.flatnonzero(is_marked), side="right") - 1)
    own, rest, begins = texts.to_list(), [""] * len(texts), starts[piece].tolist()
    is_first_marked = is_marked[offsets[rows]].tolist()
    numbers = (rows.tolist(), ends[rows].tolist(), ends[rows + 1].tolist(), is_first_marked)
    for row, first, last, begins_marked in zip(*numbers, strict=True):
        text = own[row]
        places = [0, *begins[first + 1 : last], len(text)]
        pieces = [text[start:stop].strip() for start, stop in pairwise(places)]
        # pieces are marked and unmarked by turns
        halves = " ".join(pieces[::2]), " ".join(pieces[1::2])
        rest[row], own[row] = halves if begins_marked else reversed(halves)
    return pl.Series("text", own, dtype=pl.String), pl.Series("rest", rest, dtype=pl.String)


@jit_part
def is_nested(a: int, b: int, hashes: UInt32, offsets: Int64) -> bool:
    """Tell whether one of two wrappers has all words of the other; see `Wrappers`."""
    if a == b:
        return True
    x, y = hashes[offsets[a] : offsets[a + 1]], hashes[offsets[b] : offsets[b + 1]]
    i = j = n_shared = 0
    while i < len(x) and j < len(y):
        if x[i] == y[j]:
            n_shared += 1
        step_i, step_j = x[i] <= y[j], y[j] <= x[i]
        i, j = i + step_i, j + step_j
    return n_shared == min(len(x), len(y))
