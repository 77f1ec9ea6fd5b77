"""Near-duplicates: rows that share most of their shingles, found by MinHash and verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np

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
from thresher.curation.similarity.shingles import Shingles, Unit, build_shingles, count_shared
from thresher.curation.verdict import Verdict
from thresher.dataset.normalize import Scope
from thresher.dataset.own_text.own_text import is_nested
from thresher.dataset.own_text.words import FNV_BASIS, FNV_PRIME
from thresher.numeric.arrays import Float32, Int32, Int64, UInt32, UInt64
from thresher.numeric.numba_jit import jit
from thresher.validation import option

DIGEST_ROWS = 16_384
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
    Nor are rows whose own text has fewer than 30 words and other numbers.

    Candidates come from MinHash signatures (Broder 1997, doi:10.1109/SEQUEN.1997.666900), which
    rensa computes, cut into bands (Leskovec, Rajaraman and Ullman 2014, chapter 3); each is
    verified on the sets themselves, so no row is dropped for a similarity that is only estimated.
    Rows are judged in order of preference and compared with those that stay: each dropped row is
    similar to the row that is named, not to a chain of others.

    Cost: O(n (shingles + permutations)) time and memory of about 4 bytes per shingle and 4 per band
    and row. Existing rows: none is dropped; a row that repeats one is. Judging the pool in parts,
    each with the rows kept before, gives what judging it at once gives (`keep` "first"). Differs:
    of a pair exactly at the threshold one in a hundred is missed by the bands, less above it.
    Fails: a template of fewer than eight rows is not recognized, and its short rows share most of
    their shingles.

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

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row that is similar to a preferred row that stays."""
        order = order_by_preference(pool, existing, self.keep)
        sides = [rows.dataset for rows in (existing, pool) if rows is not None]
        texts, own = compare_own_rows(
            sides, self.scope, n_gram=self.n_gram, unit=self.unit, same_answer=self.same_answer
        )
        sets = build_shingles(texts, n=self.n_gram, unit=self.unit)
        band_size = choose_band_size(self.threshold, self.permutations)
        buckets = assign_buckets(sets, permutations=self.permutations, band_size=band_size)
        labels = encode_labels(pool, existing) if self.same_label else None
        if labels is not None:  # one number for label and numbers of a row
            own = own._replace(group=own.group * (labels.max() + 1) + labels)
        representative, similarity, counts = _assign_in_order(
            order.rows,
            order.n_existing,
            sets.hashes,
            sets.offsets,
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
                f"{counts[2]:,} rows are similar to a row that stays but have another answer, and stay, too; "
                f"--set near-duplicates.same_answer=false drops them"
            )
        assignment = DuplicateAssignment(representative, similarity)
        return build_duplicate_verdict(
            assignment, pool, existing, reason="near-duplicate", measure="Jaccard", notes=notes
        )


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


def assign_buckets(sets: Shingles, *, permutations: int, band_size: int) -> Int32:
    """Return which bucket of each band each row is in, (bands, n) int32; -1 for a row alone in it.

    Args:
        sets: of n rows; one without shingles is in no bucket.
        permutations: length of a signature.
        band_size: rows of the signature in a band.
    """
    from rensa import RMinHash

    n, n_bands = len(sets.offsets) - 1, permutations // band_size
    keys = np.empty((n_bands, n), np.uint64)
    for start in range(0, n, DIGEST_ROWS):
        stop = min(start + DIGEST_ROWS, n)
        low, high = sets.offsets[start], sets.offsets[stop]
        matrix = RMinHash.digest_matrix_from_flat_token_hashes(
            sets.hashes[low:high].astype(np.uint64),
            (sets.offsets[start : stop + 1] - low).astype(np.uint64),
            num_perm=permutations,
            seed=_SEED,
        )
        # rows of the signature that fill no band are left over
        digest = np.array(matrix.to_rows(), dtype=np.uint64)[:, : n_bands * band_size]
        keys[:, start:stop] = _hash_bands(digest.reshape(stop - start, n_bands, band_size)).T
    buckets = np.empty((n_bands, n), np.int32)
    is_empty = sets.sizes() == 0
    for band in range(n_bands):
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


@jit
def _compute_jaccard(a: UInt32, b: UInt32, least: float) -> float:
    """Return the similarity of two sorted sets, 0 where their sizes alone keep it below `least`."""
    small, large = min(len(a), len(b)), max(len(a), len(b))
    if small / large < least:  # divided as below: a product can round the threshold away
        return 0.0
    n_shared = count_shared(a, b)
    return float(n_shared / (len(a) + len(b) - n_shared))


@jit
def _has_same_answer(a: int, b: int, own: OwnRows, least: float) -> bool:
    """Tell whether two rows answer alike: equal short answers, or similar long ones."""
    if own.answer[a] != own.answer[b]:
        return False
    x = own.answer_hashes[own.answer_offsets[a] : own.answer_offsets[a + 1]]
    y = own.answer_hashes[own.answer_offsets[b] : own.answer_offsets[b + 1]]
    return len(x) == 0 or len(y) == 0 or _compute_jaccard(x, y, least) >= least


@jit
def _has_same_wrapper(a: int, b: int, own: OwnRows) -> bool:
    """Tell whether two rows are wrapped alike, or so that it does not matter."""
    if not (own.is_common[a] or own.is_common[b]):
        return True
    return is_nested(own.wrapper[a], own.wrapper[b], own.wrapper_hashes, own.wrapper_offsets)


@jit
def _find_nearest(
    row: int, hashes: UInt32, offsets: Int64, buckets: Int32, own: OwnRows, index: _Index, limits: tuple[float, int]
) -> tuple[int, float, int, bool, bool]:
    """Return the most similar row that stayed, how similar, pairs compared, and two facts.

    The facts: whether a list was cut, and whether a similar row has another answer.
    """
    threshold, max_candidates = limits
    best, best_similarity, n_verified, is_capped, has_other = -1, 0.0, 0, False, False
    mine = hashes[offsets[row] : offsets[row + 1]]
    for band in range(len(buckets)):
        bucket = buckets[band, row]
        other = index.head[band, bucket] if bucket >= 0 else -1
        n_compared = 0
        while other >= 0 and n_compared < max_candidates:
            n_compared += 1
            # a row that shares several bands with this one is verified once
            if index.seen_by[other] != row and own.group[other] == own.group[row]:
                index.seen_by[other] = row
                is_answer = _has_same_answer(row, other, own, threshold)
                # one similar row with another answer is enough to know of
                if (is_answer or not has_other) and _has_same_wrapper(row, other, own):
                    n_verified += 1
                    theirs = hashes[offsets[other] : offsets[other + 1]]
                    # only a pair that beats the best so far matters, so its size bound is the limit
                    least = max(threshold, best_similarity) if is_answer else threshold
                    similarity = _compute_jaccard(mine, theirs, least)
                    if similarity >= threshold and not is_answer:
                        has_other = True
                    elif similarity >= threshold and similarity > best_similarity:
                        best, best_similarity = other, similarity
            other = index.following[band, other]
        is_capped = is_capped or other >= 0  # the list goes on after the last candidate
    return best, best_similarity, n_verified, is_capped, has_other


@jit
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
    hashes: UInt32,
    offsets: Int64,
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
        best, best_similarity, n_compared, is_capped, has_other = _find_nearest(
            row, hashes, offsets, buckets, own, index, limits
        )
        n_verified += n_compared
        if best >= 0:
            representative[row], similarity[row] = best, best_similarity
        else:
            n_capped += is_capped
            n_other += has_other
            _insert(row, buckets, index)
    return representative, similarity, (n_verified, n_capped, n_other)
