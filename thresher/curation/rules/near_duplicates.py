"""Near-duplicates: rows that share most of their shingles, found by MinHash and verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, NamedTuple

import numpy as np
import polars as pl

from thresher.curation.rule import Rows
from thresher.curation.similarity.duplicate_groups import (
    FIRST,
    DuplicateAssignment,
    DuplicateRule,
    build_duplicate_verdict,
    encode_labels,
    order_by_preference,
)
from thresher.curation.similarity.own_rows import OwnRows, compare_own_rows
from thresher.curation.similarity.set_cache import MIN_KEPT, ROW_BYTES, SetCache, build_set_cache, read_set
from thresher.curation.similarity.shingles import Unit, count_shared, hash_texts
from thresher.curation.similarity.tool_calls import describe_calls
from thresher.curation.verdict import Verdict
from thresher.dataset.normalize import Scope
from thresher.dataset.own_text.own_text import is_nested
from thresher.dataset.own_text.words import FNV_BASIS, FNV_PRIME, list_pieces
from thresher.errors import InputError
from thresher.numeric.arrays import Bool, Float32, Int32, Int64, UInt32, UInt64
from thresher.numeric.memory import USABLE, available_bytes
from thresher.numeric.numba_jit import jit, jit_part
from thresher.numeric.units import format_bytes
from thresher.validation import option

if TYPE_CHECKING:
    from thresher.dataset import Dataset

DIGEST_ROWS = 4_096  # signed at once: rensa returns numbers of Python
PLANNED_BYTES = 50_000_000  # from which on the plan is told
PIECE_BYTES = 40_000_000  # of what is made of the rows that are read at once
FOUND_SHARE = 0.99  # of the pairs at the threshold that the bands must find
_SEED = 1  # of the permutations: the same in every run, so that runs on parts of a pool agree


@dataclass(frozen=True, kw_only=True)
class NearDuplicates(DuplicateRule):
    """Drop rows that share most of their text with a row that stays.

    Two rows are near-duplicates when the Jaccard similarity of their sets of shingles is at least
    the threshold: |A and B| / |A or B|. Compared is what a row says of its own: text that many rows
    share, such as a system prompt or an instruction, is passed over (`thresher.dataset.own_text`),
    and rows of different instructions are duplicates only if few prompts have their answer. Rows
    with different answers are no duplicates (`same_answer`): answers of fewer than 20 words must be
    equal but for case, white space and punctuation, longer ones similar and with the same numbers.
    Nor are rows whose own text has fewer than 30 words and other numbers, or conversations with
    other tools or calls.

    Candidates come from MinHash signatures (Broder 1997, doi:10.1109/SEQUEN.1997.666900), which
    rensa computes, cut into bands (Leskovec, Rajaraman and Ullman 2014, chapter 3); each is
    verified on the sets themselves, so no row is dropped for a similarity that is only estimated.
    Rows are judged in order of preference and compared with those that stay: each dropped row is
    similar to the row that is named, not to a chain of others.

    Cost: O(n (shingles + permutations)) time; memory of about twice the texts, and 1 kB a row: sets
    are made again when two rows are compared, and the latest kept. Existing rows: none is dropped;
    a row that repeats one is. Judging the pool in parts, each with the rows kept before, gives what
    judging it at once gives (`keep` "first"). Differs: of a pair exactly at the threshold one in a
    hundred is missed by the bands, less above it. Fails: a template of fewer than eight rows is not
    recognized, and its short rows share most of their shingles.

    Attributes:
        threshold: smallest Jaccard similarity of duplicates.
        unit: shingles of "word" or "character".
        n_gram: words or characters in a shingle.
        scope: "row" compares prompt and response, "prompt" or "response" only that; of
            classification data, "row" and "prompt" mean the text.
        same_label: rows of classification data with different labels are no duplicates.
        same_answer: rows with different answers are no duplicates, where the scope is "row".
        keep: "first", "longest", "highest:NAME" or "lowest:NAME" with a column of numbers or a
            feature.
        permutations: length of a signature; more find more at low thresholds.
        max_candidates: rows of one band's bucket that a row is compared with, the most preferred
            first.
    """

    name: ClassVar[str] = "near-duplicates"

    threshold: float = option(0.7, ge=0.05, le=1)
    unit: Unit = "character"
    n_gram: int = option(5, ge=1)
    scope: Scope = "row"
    same_label: bool = True
    same_answer: bool = True
    keep: str = FIRST
    permutations: int = option(128, ge=1)
    max_candidates: int = option(1000, ge=1)

    def describe_plan(self, pool: Dataset, existing: Dataset | None) -> str | None:
        """Say how much memory the comparison takes, if it is much.

        Raises:
            InputError: more than is free.
        """
        frames = [rows.frame for rows in (existing, pool) if rows is not None]
        sizes = [frame.select(pl.col("prompt", "response").str.len_bytes().sum()).row(0) for frame in frames]
        n_rows, n_bytes = sum(map(len, frames)), sum(map(sum, sizes))
        needed = estimate_bytes(
            n_rows, n_bytes, self.permutations // choose_band_size(self.threshold, self.permutations)
        )
        free = available_bytes()
        if free is not None and needed > USABLE * free:
            raise InputError(
                f"{self.name}: {n_rows:,} rows with {format_bytes(n_bytes)} of text need about "
                f"{format_bytes(needed)} of memory and {format_bytes(free)} are free; clean the pool in parts, "
                f"with the rows kept so far as --existing, or use a machine with more memory"
            )
        if needed < PLANNED_BYTES:
            return None
        return (
            f"{self.name}: {n_rows:,} rows with {format_bytes(n_bytes)} of text, about {format_bytes(needed)} of memory"
        )

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row that is similar to a preferred row that stays."""
        order = order_by_preference(pool, existing, self.keep)
        sides = [rows.dataset for rows in (existing, pool) if rows is not None]
        own = compare_own_rows(sides, self.scope, same_answer=self.same_answer)
        band_size = choose_band_size(self.threshold, self.permutations)
        shape = (self.n_gram, self.unit == "word")
        keys, n_shingles = sign_rows(own, shape, permutations=self.permutations, band_size=band_size)
        buckets = assign_buckets(keys, is_empty=n_shingles == 0)
        del keys
        labels = encode_labels(pool, existing) if self.same_label else None
        if pool.dataset.kind == "sft" and self.scope == "row":  # of rows that share a bucket
            calls = describe_calls(sides, np.asarray((buckets >= 0).any(axis=0)))
            labels = calls.rank("dense").to_numpy().astype(np.int64)
        if labels is not None:  # one number for label, or tools and calls, and numbers of a row
            own = own._replace(group=own.group * (labels.max() + 1) + labels)
        representative, similarity, counts = _assign_in_order(
            order.rows,
            order.n_existing,
            build_set_cache(own, shape, n_shingles),
            buckets,
            own,
            _build_empty_index(buckets),
            (float(self.threshold), self.max_candidates),
        )
        notes: dict[str, int | float | str] = {
            "bands": len(buckets),
            "rows_of_a_band": band_size,
            "pairs_verified": counts[0],
            "rows_with_too_many_candidates": counts[1],
            "rows_with_other_answers": counts[2],
        }
        if counts[2]:
            notes["other_answers"] = (
                f"{counts[2]:,} rows are similar to a kept row but have a different answer, so they are kept; "
                f"--set near-duplicates.same_answer=false drops them"
            )
        assignment = DuplicateAssignment(representative, similarity)
        return build_duplicate_verdict(
            assignment, pool, existing, reason="near-duplicate", measure="Jaccard", notes=notes
        )


def estimate_bytes(n_rows: int, n_bytes: int, n_bands: int) -> int:
    """Return about how much memory a comparison takes beyond the rows, estimated from above.

    There are two peaks: the words of all texts while shared text is looked for, and later the own
    texts beside hashes and lists of all bands.

    Args:
        n_rows: rows.
        n_bytes: of their texts.
        n_bands: of a signature.
    """
    words = 2 * n_bytes + 100 * n_rows
    compared = int(1.3 * n_bytes) + n_rows * (12 * n_bands + ROW_BYTES + 250) + 4 * MIN_KEPT
    return max(words, compared) + PIECE_BYTES


def choose_band_size(threshold: float, permutations: int) -> int:
    """Return the largest number of rows in a band with which the bands find almost every pair.

    A pair of similarity t shares a band of r rows with probability t^r, and one of b = permutations
    // r bands with 1 - (1 - t^r)^b; at the threshold that must be at least `FOUND_SHARE`.
    """
    fitting = [
        size
        for size in range(1, permutations + 1)
        if 1 - (1 - threshold**size) ** (permutations // size) >= FOUND_SHARE
    ]
    return max(fitting, default=1)


def sign_rows(own: OwnRows, shape: tuple[int, bool], *, permutations: int, band_size: int) -> tuple[UInt64, Int64]:
    """Return one hash for each band of each row's signature, (bands, n), and the size of its set.

    Sets are made for some rows at a time, and not kept.

    Args:
        own: n rows.
        shape: length of a shingle, and whether it is of words.
        permutations: length of a signature.
        band_size: rows of the signature in a band.
    """
    from rensa import RMinHash

    n, n_bands = len(own.group), permutations // band_size
    starts, ends = own.starts[:n], own.ends[:n]
    keys, n_shingles = np.empty((n_bands, n), np.uint64), np.empty(n, np.int64)
    for first, stop in list_pieces(pl.Series(ends - starts), max_rows=DIGEST_ROWS):
        hashes, sizes = hash_texts(own.packed, starts[first:stop], ends[first:stop], *shape)
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            hashes.astype(np.uint64),
            np.concatenate([[0], np.cumsum(sizes)]).astype(np.uint64),
            num_perm=permutations,
            seed=_SEED,
        )
        # rows of the signature that fill no band are left over
        digest = np.array(matrix.to_rows(), dtype=np.uint64)[:, : n_bands * band_size]
        keys[:, first:stop] = _hash_bands(digest.reshape(stop - first, n_bands, band_size)).T
        n_shingles[first:stop] = sizes
    return keys, n_shingles


def assign_buckets(keys: UInt64, *, is_empty: Bool) -> Int32:
    """Return which bucket of each band each row is in, (bands, n) int32; -1 for a row alone in it.

    Args:
        keys: (bands, n) hashes of bands.
        is_empty: (n,) rows without shingles, which are in no bucket.
    """
    buckets = np.empty(keys.shape, np.int32)
    for band in range(len(keys)):
        _, inverse, counts = np.unique(keys[band], return_inverse=True, return_counts=True)
        # keys that several rows have are numbered 0, 1, ...; those of one row have no bucket
        number = np.where(counts > 1, np.cumsum(counts > 1) - 1, -1)
        buckets[band] = np.where(is_empty, -1, number[inverse])
    return buckets


def _hash_bands(digest: UInt64) -> UInt64:
    """Return one hash per band, (n, bands), of (n, bands, band_size) signatures."""
    key = np.full(digest.shape[:2], FNV_BASIS, np.uint64)
    for row in range(digest.shape[2]):
        key = (key ^ digest[:, :, row]) * FNV_PRIME
        key ^= key >> np.uint64(31)
    return key


class _Index(NamedTuple):
    """Rows that stayed, by bucket: linked lists, oldest first, -1 at the end.

    Attributes:
        head: (bands, buckets) first row of each list.
        tail: (bands, buckets) last row.
        following: (bands, n) the row after each row.
        seen_by: (n,) the last row that was compared with each row.
    """

    head: Int32
    tail: Int32
    following: Int32
    seen_by: Int64


def _build_empty_index(buckets: Int32) -> _Index:
    n_bands, n = buckets.shape
    ends = np.full((n_bands, int(buckets.max(initial=-1)) + 1), -1, np.int32)
    return _Index(ends, ends.copy(), np.full((n_bands, n), -1, np.int32), np.full(n, -1, np.int64))


@jit_part
def _compute_jaccard(a: UInt32, b: UInt32) -> float:
    """Return the similarity of two sorted sets."""
    n_shared = count_shared(a, b)
    return float(n_shared / (len(a) + len(b) - n_shared))


@jit_part
def _can_reach(a: int, b: int, least: float) -> bool:
    """Tell whether sets of these sizes can be so similar."""
    return min(a, b) / max(a, b) >= least  # a product could round the threshold away


@jit_part
def _has_same_wrapper(a: int, b: int, own: OwnRows) -> bool:
    """Tell whether two rows are wrapped alike, or so that it does not matter."""
    if not (own.is_common[a] or own.is_common[b]):
        return True
    return is_nested(own.wrapper[a], own.wrapper[b], own.wrapper_hashes, own.wrapper_offsets)


@jit_part
def _find_nearest(
    row: int, sets: SetCache, buckets: Int32, own: OwnRows, index: _Index, limits: tuple[float, int]
) -> tuple[int, float, int, bool, bool]:
    """Return the most similar row that stayed, how similar, pairs compared, and two facts.

    The facts: whether a list was cut, and whether a similar row has another answer.
    """
    threshold, max_candidates = limits
    best, best_similarity, n_verified, is_capped, has_other = -1, 0.0, 0, False, False
    n, is_read = len(own.group), False
    mine = my_answer = np.empty(0, np.uint32)
    for band in range(len(buckets)):
        bucket = buckets[band, row]
        other = index.head[band, bucket] if bucket >= 0 else -1
        n_compared = 0
        while other >= 0 and n_compared < max_candidates:
            candidate, other = other, index.following[band, other]
            n_compared += 1
            # a row that shares several bands with this one is verified once
            if index.seen_by[candidate] == row or own.group[candidate] != own.group[row]:
                continue
            index.seen_by[candidate] = row
            if not is_read:  # copies, since the cache may need their place
                mine, my_answer, is_read = read_set(row, sets).copy(), read_set(n + row, sets).copy(), True
            is_answer = own.answer[row] == own.answer[candidate]
            if is_answer and len(my_answer):
                is_answer = _is_answer_similar(my_answer, n + candidate, sets, threshold)
            # one similar row with another answer is enough to know of
            if (not is_answer and has_other) or not _has_same_wrapper(row, candidate, own):
                continue
            n_verified += 1
            # only a pair that beats the best so far matters, so its size bound is the limit
            least = max(threshold, best_similarity) if is_answer else threshold
            if not _can_reach(len(mine), sets.sizes[candidate], least):
                continue
            similarity = _compute_jaccard(mine, read_set(candidate, sets))
            if similarity >= threshold and not is_answer:
                has_other = True
            elif similarity >= threshold and similarity > best_similarity:
                best, best_similarity = candidate, similarity
        is_capped = is_capped or other >= 0  # the list goes on after the last candidate
    return best, best_similarity, n_verified, is_capped, has_other


@jit_part
def _is_answer_similar(mine: UInt32, item: int, sets: SetCache, least: float) -> bool:
    """Tell whether the set of a long answer is similar to that of another, if that is long."""
    theirs = read_set(item, sets)
    if len(theirs) == 0:
        return True
    return _can_reach(len(mine), len(theirs), least) and _compute_jaccard(mine, theirs) >= least


@jit_part
def _insert(row: int, buckets: Int32, index: _Index) -> None:
    """Append a row that stays to the list of each of its buckets."""
    for band in range(len(buckets)):
        bucket = buckets[band, row]
        if bucket < 0:
            continue
        if index.head[band, bucket] < 0:
            index.head[band, bucket] = row
        else:
            index.following[band, index.tail[band, bucket]] = row
        index.tail[band, bucket] = row


@jit
def _assign_in_order(
    order: Int64,
    n_existing: int,
    sets: SetCache,
    buckets: Int32,
    own: OwnRows,
    index: _Index,
    limits: tuple[float, int],
) -> tuple[Int64, Float32, tuple[int, int, int]]:
    """Assign rows in order: a row similar to some that stayed is a copy of the most similar one.

    The counts: pairs verified, rows with too many candidates, rows that stay for their answer.
    """
    representative = np.arange(len(order))
    similarity = np.full(len(order), np.nan, np.float32)
    n_verified = n_capped = n_other = 0
    for row in order:
        # existing rows come first, and each of them stays
        if row < n_existing:
            _insert(row, buckets, index)
            continue
        best, best_similarity, n_compared, is_capped, has_other = _find_nearest(row, sets, buckets, own, index, limits)
        n_verified += n_compared
        if best >= 0:
            representative[row], similarity[row] = best, best_similarity
        else:
            n_capped += is_capped
            n_other += has_other
            _insert(row, buckets, index)
    return representative, similarity, (n_verified, n_capped, n_other)
