"""Text that many rows share: prefixes, suffixes and passages, found by where rows part.

Copies of one row share text, too. The two differ in how rows part from one another: behind shared
text, such as a system prompt, rows go on in many ways at one place; copies with an edit here and
there part one by one, and at each place nearly all go on alike. So text counts as shared where at
least a fifth of the rows that have it go on otherwise than most, and in five ways or more.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.dataset.own_text.hashing import SEED, extend_hash, hash_four, measure_starts
from thresher.dataset.own_text.words import Words, build_table, find_slot
from thresher.numeric.arrays import Float64, Int64, UInt32, UInt64
from thresher.numeric.numba_jit import jit

MIN_TEXTS = 8  # different texts, in which nothing is looked for if they are fewer
MOST_ROWS = 8  # rows that must share a text, in all but small pools
FEWEST_ROWS = 6
WAYS = 5  # in which rows must go on behind the shared text, at least
PARTING = 0.2  # share of them that must go on otherwise than most
LONG = 6  # words from which on a text is shared by more than chance, whatever its share of the rows
SHORT_SHARE = 0.25  # of the rows that must share a shorter one
GRAM = 4  # words in a row that mark long shared text wherever they stand
GAP = 6  # words between two known places of a shared text that count as changed words of it
NO_PASSAGE = np.uint64(0)  # in place of a hash, where a text begins or ends
CHAIN = 0.5  # share of a passage's places that are beside one other passage, for both to be shared


class SharedText(NamedTuple):
    """Prefixes, suffixes (hashed from their ends) and passages that many rows share.

    Attributes:
        prefixes: hash table, see `words.find_slot`.
        suffixes: the same.
        passages: the same.
        grams: the same; of runs of four words of long shared text, to find it with a word changed.
        bridges: the same; of two words of long shared text and two more of it, a few words later.
        longest: words of the longest prefix and suffix.
    """

    prefixes: UInt64
    suffixes: UInt64
    passages: UInt64
    grams: UInt64
    bridges: UInt64
    longest: tuple[int, int]


def count_needed(n: int) -> int:
    """Return how many of n different texts must share a text; more than n where they are few."""
    return n + 1 if n < MIN_TEXTS else min(MOST_ROWS, max(FEWEST_ROWS, n // 3))


def find_shared_text(sides: list[Words]) -> SharedText:
    """Return the text that many rows of any side share.

    Cost: linear in the words of the texts.

    Args:
        sides: words of the texts of each side, such as the pool's and the evaluation set's.
    """
    prefixes, suffixes, passages, grams, bridges = ([np.zeros(0, np.uint64)] for _ in range(5))
    depth = [0, 0]
    for words in sides:
        rows = _find_distinct(words.hashes, words.offsets)
        needed = count_needed(len(rows))
        if needed > len(rows):
            continue
        first, last = words.offsets[rows], words.offsets[rows + 1]
        limits = (needed, WAYS, PARTING, LONG, SHORT_SHARE)
        nodes, levels = _find_common_starts(words.hashes, first, last - first, 1, limits)
        prefixes.append(nodes)
        depth[0] = max(depth[0], int(levels.max(initial=0)))
        length = measure_starts(words.hashes, first, last, 1, build_table(nodes), int(levels.max(initial=0)))
        # suffixes and passages are looked for behind the prefixes
        nodes, levels = _find_common_starts(words.hashes, last - 1, last - first - length, -1, limits)
        suffixes.append(nodes)
        depth[1] = max(depth[1], int(levels.max(initial=0)))
        tail = measure_starts(words.hashes, last - 1, first + length - 1, -1, build_table(nodes), depth[1])
        keys, begin, stop = _find_passages(words, first + length, last - tail, needed)
        passages.append(keys)
        for start, end in ((first, first + length), (last - tail, last), (begin, stop)):
            start, end = _list_stretches(words.hashes, start, end)
            grams.append(_hash_grams(words.hashes, start, end))
            bridges.append(_hash_bridges(words.hashes, start, end))
    return SharedText(
        prefixes=_join(prefixes),
        suffixes=_join(suffixes),
        passages=_join(passages),
        grams=_join(grams),
        bridges=_join(bridges),
        longest=(depth[0], depth[1]),
    )


def _join(keys: list[UInt64]) -> UInt64:
    """Return the hash table of several arrays of keys."""
    return build_table(np.unique(np.concatenate(keys)))


def _find_distinct(hashes: UInt32, offsets: Int64) -> Int64:
    """Return the first row of each distinct text, ascending; texts without words are left out."""
    keys = _hash_texts(hashes, offsets[:-1], offsets[1:])
    _, rows = np.unique(keys, return_index=True)
    rows = np.sort(rows)
    filled: Int64 = rows[offsets[rows + 1] > offsets[rows]]
    return filled


@jit
def _hash_texts(hashes: UInt32, begin: Int64, stop: Int64) -> UInt64:
    """Return the hash of the words between two places of each row, (n,)."""
    keys = np.empty(len(begin), np.uint64)
    for row in range(len(keys)):
        key = SEED
        for at in range(begin[row], stop[row]):
            key = extend_hash(key, hashes[at])
        keys[row] = key
    return keys


def _find_common_starts(
    hashes: UInt32, begin: Int64, length: Int64, step: int, limits: tuple[int, int, float, int, float]
) -> tuple[UInt64, Int64]:
    """Return hash and length of the beginnings behind which many rows part, level by level.

    Args:
        hashes: of words.
        begin: (n,) where each row's first word is.
        length: (n,) words of each row.
        step: 1 to read forward, -1 to read backward.
        limits: rows that must share a beginning; ways in which they go on; share that goes on
            otherwise than most; words of a long beginning; share of rows for a short one.
    """
    needed, ways, parting, long, short_share = limits
    nodes, levels = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    # rows that are still together with enough others, and of which group of them each is
    rows, group = np.arange(len(begin)), np.zeros(len(begin), np.int64)
    # of each group: hash of the words so far, rows, and words and rows of its last shared beginning
    key, size = np.full(1, SEED), np.full(1, len(begin))
    cut_level, cut_size = np.zeros(1, np.int64), np.full(1, len(begin))
    level = 0
    while len(rows):
        at = np.where(level < length[rows], begin[rows] + step * level, -1)
        child, child_key, child_size, parent, n_ways, largest = _count_children(hashes, at, group, key)
        n_new = level - cut_level
        is_parting = (n_ways >= ways) & (size - largest >= parting * size)
        is_usual = (n_new >= long) | (size >= short_share * cut_size)
        is_node = (n_new > 0) & is_parting & is_usual
        nodes.append(key[is_node])
        levels.append(np.full(int(is_node.sum()), level))
        cut_level[is_node], cut_size[is_node] = level, size[is_node]
        # go on with the children that are large enough, numbered anew
        is_large = child_size >= needed
        renumbered = np.where(is_large, np.cumsum(is_large) - 1, -1)
        key, size, parent = child_key[is_large], child_size[is_large], parent[is_large]
        cut_level, cut_size = cut_level[parent], cut_size[parent]
        group = np.where(child >= 0, renumbered[child], -1)
        rows, group = rows[group >= 0], group[group >= 0]
        level += 1
    return np.concatenate(nodes), np.concatenate(levels)


@jit
def _count_children(
    hashes: UInt32, at: Int64, group: Int64, key: UInt64
) -> tuple[Int64, UInt64, Int64, Int64, Int64, Int64]:
    """Divide each group by the next word of its rows.

    Args:
        hashes: of words.
        at: (m,) where the next word of each row is, -1 for a row that ends.
        group: (m,) of each row.
        key: (g,) hash of what the rows of each group share.

    Returns:
        The child of each row, -1 for one that ends; hash, rows and group of each child; and the
        ways in which each group goes on, with the rows of the most frequent one.
    """
    n_slots = 16
    while n_slots < 2 * len(at):
        n_slots *= 2
    table, number = np.zeros(n_slots, np.uint64), np.empty(n_slots, np.int64)
    child, size = np.full(len(at), -1), np.zeros(len(at) + 1, np.int64)
    child_key, parent = np.empty(len(at) + 1, np.uint64), np.empty(len(at) + 1, np.int64)
    n_ways, largest = np.zeros(len(key), np.int64), np.zeros(len(key), np.int64)
    n = 0
    for i in range(len(at)):
        mine = group[i]
        if at[i] < 0:  # texts are distinct: one that ends here is a way of its own
            n_ways[mine] += 1
            largest[mine] = max(largest[mine], 1)
            continue
        longer = extend_hash(key[mine], hashes[at[i]])
        slot = find_slot(table, longer)
        if table[slot] == np.uint64(0):
            table[slot], number[slot], child_key[n], parent[n] = longer, n, longer, mine
            n += 1
            n_ways[mine] += 1
        child[i] = number[slot]
        size[child[i]] += 1
        largest[mine] = max(largest[mine], size[child[i]])
    # one more entry than there are children, so that -1 is a place in it
    child_key[n], parent[n] = np.uint64(0), 0
    return child, child_key[: n + 1], size[: n + 1], parent[: n + 1], n_ways, largest


def _find_passages(words: Words, begin: Int64, stop: Int64, needed: int) -> tuple[UInt64, Int64, Int64]:
    """Return the passages that many rows share in the middle, and stretches of them.

    Passages are hashes; a stretch is start and end of one, or of two side by side, each once.
    """
    found = _list_repeated(words, begin, stop, needed)
    known = np.unique(np.concatenate([found.key, found.following, found.before]))
    known = known[known != NO_PASSAGE]
    place, first = np.searchsorted(known, found.key), np.zeros(len(known), np.int64)
    first[place[::-1]] = np.arange(len(place))[::-1]
    n_words = found.end[first] - found.start[first]
    pairs = np.unique(place * np.int64(len(begin)) + found.row) // len(begin)
    n_rows = np.bincount(pairs, minlength=len(known))
    is_candidate = (n_rows >= needed) & ((n_words >= LONG) | (n_rows >= SHORT_SHARE * len(begin)))
    is_shared = np.zeros(len(known) + 1, np.bool_)  # the last one stands for both ends of a text
    if is_candidate.any():
        neighbors = [
            np.where(keys == NO_PASSAGE, len(known), np.searchsorted(known, keys))
            for keys in (found.following, found.before)
        ]
        chains = [_count_neighbors(place, neighbor, len(known)) for neighbor in neighbors]
        for ways, _, share in chains:
            is_shared[:-1] |= is_candidate & (ways >= WAYS) & (1 - share >= PARTING)
        n_before = -1
        # a passage that mostly stands beside a shared one is of the same shared text
        while n_before != (n_before := int(is_shared.sum())):
            for _, most, share in chains:
                is_shared[:-1] |= is_candidate & (share >= CHAIN) & is_shared[most]
    at = np.flatnonzero(is_shared[place])
    beside = at[:-1][(np.diff(found.number[at]) == 1) & (found.row[at[:-1]] == found.row[at[1:]])]
    _, pairs = np.unique(place[beside] * np.int64(len(known)) + place[beside + 1], return_index=True)
    one, two = first[is_shared[:-1]], beside[pairs]
    starts = np.append(found.start[one], found.start[two])
    return known[is_shared[:-1]], starts, np.append(found.end[one], found.end[two + 1])


class _Passages(NamedTuple):
    """Passages of rows that stand in several places, in the order of the rows.

    Attributes:
        number: (p,) int64, of a passage among all.
        row: (p,) int64.
        key: (p,) uint64, hash of its words.
        start: (p,) int64, its first word.
        end: (p,) int64, behind its last word.
        following: (p,) uint64, hash of the next passage of the row, 0 behind the last one.
        before: (p,) uint64, of the one before it, 0 before the first one.
    """

    number: Int64
    row: Int64
    key: UInt64
    start: Int64
    end: Int64
    following: UInt64
    before: UInt64


def _list_repeated(words: Words, begin: Int64, stop: Int64, needed: int) -> _Passages:
    """Return the passages that stand in at least `needed` places: the others are not shared.

    Most passages of most pools stand in one place, and what is kept of a passage takes far more
    memory than its hash; so hashes come first.
    """
    keys = np.sort(_hash_passages(words, begin, stop))
    repeated = np.unique(keys[needed - 1 :][keys[needed - 1 :] == keys[: len(keys) - needed + 1]])
    del keys
    table = build_table(repeated)
    passages = _allocate_passages(_visit_passages(words, begin, stop, table, _allocate_passages(0)))
    _visit_passages(words, begin, stop, table, passages)
    return passages


def _allocate_passages(n: int) -> _Passages:
    number, row, start, end = (np.empty(n, np.int64) for _ in range(4))
    key, following, before = (np.zeros(n, np.uint64) for _ in range(3))
    return _Passages(number, row, key, start, end, following, before)


def _count_neighbors(place: Int64, neighbor: Int64, n: int) -> tuple[Int64, Int64, Float64]:
    """Return for each passage: neighbors that differ, the most frequent one, and its share."""
    pair, count = np.unique(place * np.int64(n + 1) + neighbor, return_counts=True)
    owner, other = pair // (n + 1), pair % (n + 1)
    # the end of a text is a way of its own each time: texts are distinct
    ways = np.bincount(owner, minlength=n)
    order = np.lexsort((count, owner))
    last = np.append(owner[order][1:] != owner[order][:-1], True)
    most, share = np.full(n, n), np.zeros(n)
    top = order[last]
    most[owner[top]] = other[top]
    share[owner[top]] = count[top] / np.bincount(owner, weights=count, minlength=n)[owner[top]]
    return ways, most, share


@jit
def _hash_passages(words: Words, begin: Int64, stop: Int64) -> UInt64:
    """Return the hash of each passage between two places of each row."""
    hashes, is_last, n = words.hashes, words.is_last, 0
    for row in range(len(begin)):
        for at in range(begin[row], stop[row]):
            n += is_last[at] or at == stop[row] - 1
    keys, n = np.empty(n, np.uint64), 0
    for row in range(len(begin)):
        key = SEED
        for at in range(begin[row], stop[row]):
            key = extend_hash(key, hashes[at])
            if is_last[at] or at == stop[row] - 1:
                keys[n] = key
                n, key = n + 1, SEED
    return keys


@jit
def _visit_passages(words: Words, begin: Int64, stop: Int64, table: UInt64, out: _Passages) -> int:
    """Write the passages that are in a table, if there is room for them; return how many are."""
    hashes, is_last, has_room = words.hashes, words.is_last, len(out.row) > 0
    number = n = 0
    for row in range(len(begin)):
        key, start, before, is_listed = SEED, begin[row], NO_PASSAGE, False
        for at in range(begin[row], stop[row]):
            key = extend_hash(key, hashes[at])
            if not (is_last[at] or at == stop[row] - 1):
                continue
            if is_listed and has_room:  # the passage before this one
                out.following[n - 1] = key
            is_listed = table[find_slot(table, key)] == key
            if is_listed:
                if has_room:
                    out.number[n], out.row[n], out.key[n] = number, row, key
                    out.start[n], out.end[n], out.before[n] = start, at + 1, before
                n += 1
            number, before, key, start = number + 1, key, SEED, at + 1
    return n


def _list_stretches(hashes: UInt32, begin: Int64, stop: Int64) -> tuple[Int64, Int64]:
    """Return where long stretches of words begin and end, each different one once."""
    is_long = stop - begin >= LONG
    begin, stop = begin[is_long], stop[is_long]
    _, rows = np.unique(_hash_texts(hashes, begin, stop), return_index=True)
    return begin[rows], stop[rows]


@jit
def _hash_grams(hashes: UInt32, begin: Int64, stop: Int64) -> UInt64:
    """Return the hash of each run of four words between two places of each row."""
    keys = np.empty((stop - begin - GRAM + 1).sum(), np.uint64)
    n = 0
    for row in range(len(begin)):
        for at in range(begin[row], stop[row] - GRAM + 1):
            keys[n] = hash_four(hashes[at], hashes[at + 1], hashes[at + 2], hashes[at + 3])
            n += 1
    return keys


@jit
def _hash_bridges(hashes: UInt32, begin: Int64, stop: Int64) -> UInt64:
    """Return the hash of each two words and each two that come up to `GAP` words later."""
    keys = np.empty((stop - begin).sum() * (GAP + 1), np.uint64)
    n = 0
    for row in range(len(begin)):
        for at in range(begin[row], stop[row]):
            for after in range(at + 2, min(at + 2 + GAP, stop[row] - 2) + 1):
                keys[n] = hash_four(hashes[at], hashes[at + 1], hashes[after], hashes[after + 1])
                n += 1
    return keys[:n].copy()
