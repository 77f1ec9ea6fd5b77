"""Contamination: rows of the pool that hold what the model will be evaluated on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import numpy as np
import polars as pl

from thresher.curation.rule import EVAL, Rows, Rule
from thresher.curation.similarity.cosine_groups import COLUMNS
from thresher.curation.similarity.shingles import Shingles, build_shingles
from thresher.curation.verdict import Verdict
from thresher.dataset.normalize import Scope, normalize_texts, normalize_words, scope_texts
from thresher.dataset.own_text.matching import match_rows
from thresher.dataset.own_text.own_text import OwnTexts, find_own_texts
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Bool, Float32, Floats, Int64, UInt32
from thresher.numeric.numba_jit import jit
from thresher.numeric.vectors import unit_rows
from thresher.validation import option

EMBEDDING = "embedding"
# A piece that more evaluation rows share than this is of a template, such as a system prompt, and
# no sign of a leak.
TEMPLATE_ROWS, TEMPLATE_SHARE, COMMON = 10, 0.1, 1000


class _Match(NamedTuple):
    """The evaluation row that each row of the pool is closest to.

    Attributes:
        row: (n,) int64, -1 for none.
        value: (n,) float32.
    """

    row: Int64
    value: Float32


@dataclass(frozen=True, kw_only=True)
class Contamination(Rule):
    """Drop rows that are, or hold, a row of the evaluation set: they make every score too good.

    Three tests, in this order: the texts are equal in what they say of their own (`match_rows`, the
    check of held-out rows; `thresher.dataset.own_text`); the share of common word n-grams
    among those of the shorter text is at least `overlap`; the cosine of the embeddings is at least
    `cosine` (off unless it is set).

    Source: n-gram overlap as Brown et al. 2020 (arXiv:2005.14165, appendix C; 13-grams) and
    Chowdhery et al. 2022 (arXiv:2204.02311, section 8; share of 8-grams). Differs: the share is of
    the shorter of the two texts, so that an evaluation row inside a long document is found, and an
    excerpt of one too; n-grams of text that many rows share, such as a system prompt, are passed
    over, and those that more than a tenth of the evaluation rows share (and more than 10, or all of
    3 or more), or more than 1,000. Cost: O(n-grams of the pool, times the evaluation rows that
    share one); `cosine`: O(n q d). Needs: rows to evaluate on; `embedding` if `cosine` is set.
    Existing rows play no part. Fails: translations and paraphrases pass the n-grams; set `cosine`
    for them. Texts of fewer than `n_gram` words are found only when they are equal.

    Attributes:
        scope: which text is compared: "prompt" (classification: the text), "response" or "row".
            Rows that are text alone have only one.
        n_gram: words in a piece.
        overlap: smallest share of common pieces.
        cosine: smallest cosine of a semantic leak; default: embeddings are not compared.
    """

    name: ClassVar[str] = "contamination"
    precedes: ClassVar[Mapping[str, str]] = {"pii": "masked text no longer matches an evaluation row"}

    scope: Scope = "prompt"
    n_gram: int = option(8, ge=1)
    overlap: float = option(0.5, ge=1e-6, le=1)
    cosine: float | None = option(None, ge=-1, le=1)

    @property
    def requirements(self) -> Requirements:
        """Rows to evaluate on, and the embedding of all rows if it is compared."""
        features = frozenset() if self.cosine is None else frozenset({EMBEDDING})
        return Requirements(
            features=features,
            side_features={EVAL: features},
            required_roles={EVAL},
            feature_settings={"own_text": True},
        )

    def check(self, pool: Rows, *, existing: Rows | None, eval: Rows | None, rng: np.random.Generator) -> Verdict:
        """Drop every row that the evaluation set holds.

        Raises:
            AssertionError: the caller gave no rows to evaluate on, though the rule requires them.
        """
        if eval is None:
            raise AssertionError(f"{self.name} requires rows to evaluate on")
        sides = (pool.dataset, eval.dataset)
        is_text = all(side.kind == "classification" for side in sides) and self.scope == "row"
        scope: Scope = "prompt" if is_text else self.scope
        own = find_own_texts([scope_texts(side, scope) for side in sides])
        equal = match_rows(*sides, scope=scope, own=own)
        our_sets, their_sets, shared = (
            build_shingles(texts, n=self.n_gram, unit="word")
            for texts in (*(normalize_words(side, self.scope) for side in sides), _read_shared(own))
        )
        short = [(normalize_texts(each.texts).str.count_matches(r"\S+") < self.n_gram).to_numpy() for each in own]
        overlap = _match_overlapping(our_sets, their_sets, np.unique(shared.hashes), short)
        tests = {
            "leak": (_Match(equal, np.where(equal >= 0, 1.0, 0.0).astype(np.float32)), 1.0, "is equal to"),
            "n-gram-leak": (overlap, self.overlap, f"shares {{}} of the {self.n_gram}-word pieces with"),
        }
        if self.cosine is not None:
            match = _match_similar(pool.features[EMBEDDING], eval.features[EMBEDDING])
            tests["semantic-leak"] = (match, self.cosine, "has cosine {} with")
        return _build_verdict(tests, eval.row_id, len(pool))


def _build_verdict(tests: Mapping[str, tuple[_Match, float, str]], ids: pl.Series, n: int) -> Verdict:
    """Return the verdict in which the first test that a row fails gives the reason."""
    reason, sentence = np.full(n, None, dtype=object), np.full(n, None, dtype=object)
    row, value = np.full(n, -1, np.int64), np.full(n, np.nan, np.float32)
    for name, (match, least, words) in tests.items():
        hits = np.flatnonzero((match.row >= 0) & (match.value >= least) & (row < 0))
        row[hits], value[hits], reason[hits] = match.row[hits], match.value[hits], name
        for i in hits.tolist():
            sentence[i] = f"{words.format(f'{match.value[i]:.2f}')} evaluation row {ids[int(match.row[i])]}"
    columns = {"reason": reason.tolist(), "explanation": sentence.tolist(), "of": ids.gather(np.maximum(row, 0))}
    parts = pl.DataFrame(
        columns | {"value": value}, schema_overrides={"reason": pl.String, "explanation": pl.String}
    ).select(
        "reason",
        "explanation",
        duplicate_of=pl.when(pl.col("reason").is_not_null()).then("of"),
        duplicate_in=pl.when(pl.col("reason").is_not_null()).then(pl.lit(EVAL)),
        similarity=pl.col("value").fill_nan(None),
    )
    notes = {"evaluation_rows": len(ids), "evaluation_rows_found": len(np.unique(row[row >= 0]))}
    return Verdict.from_frame(parts, notes=notes)


def _read_shared(own: Sequence[OwnTexts]) -> pl.Series:
    """Return the words of each different text that many rows share."""
    rest = pl.concat([side.rest for side in own]).unique(maintain_order=True)
    return normalize_texts(rest.filter(rest != ""), punctuation=True)


def _match_similar(ours: Floats, theirs: Floats) -> _Match:
    x, y = unit_rows(ours, round_once=True), unit_rows(theirs, round_once=True)
    row, value = np.empty(len(x), np.int64), np.empty(len(x), np.float32)
    for start in range(0, len(x), COLUMNS):
        cosine = x[start : start + COLUMNS] @ y.T
        at = cosine.argmax(axis=1)
        row[start : start + COLUMNS], value[start : start + COLUMNS] = at, cosine[np.arange(len(at)), at]
    return _Match(row, value)


def _match_overlapping(ours: Shingles, theirs: Shingles, shared: UInt32, short: Sequence[Bool]) -> _Match:
    """Return the evaluation row that shares most of the smaller set, without template pieces.

    Args:
        ours: pieces of the pool's rows.
        theirs: pieces of the evaluation rows.
        shared: pieces of text that many rows share.
        short: of both sides, whose own texts have fewer words than a piece: for these, all pieces
            must be in common.
    """
    n_theirs = len(theirs.offsets) - 1
    # owner[i]: the evaluation row of piece i, where pieces are in the order of their hashes
    by_hash = np.argsort(theirs.hashes, kind="stable")
    owner = np.repeat(np.arange(n_theirs, dtype=np.int64), theirs.sizes())[by_hash]
    # owners of the piece keys[k] are owner[first[k] : first[k] + counts[k]]
    keys, first, counts = np.unique(theirs.hashes[by_hash], return_index=True, return_counts=True)
    # pieces that too many evaluation rows share count on neither side
    is_rare = (counts <= _limit_owners(n_theirs)) & ~np.isin(keys, shared)
    their_sizes = np.bincount(owner[np.repeat(is_rare, counts)], minlength=n_theirs).astype(np.int64)
    in_template = np.flatnonzero(np.isin(ours.hashes, np.union1d(keys[~is_rare], shared)))
    our_sizes = ours.sizes() - np.bincount(_find_rows(ours, in_template), minlength=len(ours.sizes()))
    keys, first, counts = keys[is_rare], first[is_rare].astype(np.int64), counts[is_rare].astype(np.int64)
    # at[i]: the number among the keys of our piece i; common: places of our pieces that are keys
    at = np.minimum(np.searchsorted(keys, ours.hashes), max(len(keys) - 1, 0)).astype(np.int64)
    common = np.flatnonzero(keys[at] == ours.hashes) if len(keys) else np.zeros(0, np.int64)
    row_of = _find_rows(ours, common)
    return _Match(*_find_best_overlap(row_of, at[common], first, counts, owner, our_sizes, their_sizes, *short))


def _find_rows(sets: Shingles, at: Int64) -> Int64:
    """Return the row that each piece belongs to."""
    return (np.searchsorted(sets.offsets, at, side="right") - 1).astype(np.int64)


def _limit_owners(n: int) -> int:
    """Return how many of n evaluation rows may share a piece that is a sign of a leak."""
    most = min(COMMON, max(TEMPLATE_ROWS, int(TEMPLATE_SHARE * n)))
    return min(most, n - 1) if n > 2 else most


@jit
def _find_best_overlap(
    row_of: Int64,
    key: Int64,
    first: Int64,
    counts: Int64,
    owner: Int64,
    our_sizes: Int64,
    their_sizes: Int64,
    our_short: Bool,
    their_short: Bool,
) -> tuple[Int64, Float32]:
    """Return the evaluation row that overlaps most with each pool row, -1 for none, and how much.

    Args:
        row_of: (m,) the pool's row of each common piece, ascending.
        key: (m,) its number among the evaluation set's pieces.
        first: (k,) where the owners of a piece begin in `owner`.
        counts: (k,) how many they are.
        owner: evaluation rows, sorted by piece.
        our_sizes: (n,) pieces of the pool's rows that are not of a template.
        their_sizes: (q,) such pieces of the evaluation rows.
        our_short: (n,) rows of the pool that overlap with all of their pieces or not at all.
        their_short: (q,) such evaluation rows.
    """
    best = np.full(len(our_sizes), -1, np.int64)
    value = np.zeros(len(our_sizes), np.float32)
    n_shared = np.zeros(len(their_sizes), np.int64)  # all 0 before each row of the pool
    touched = np.empty(len(their_sizes), np.int64)
    at = 0
    while at < len(row_of):
        # count the pieces that this row shares with each evaluation row; remember which have any
        row, n_touched = row_of[at], 0
        while at < len(row_of) and row_of[at] == row:
            for other in owner[first[key[at]] : first[key[at]] + counts[key[at]]]:
                if n_shared[other] == 0:
                    touched[n_touched] = other
                    n_touched += 1
                n_shared[other] += 1
            at += 1
        # the largest share of the smaller set is the best; of equal ones the first evaluation row
        for other in touched[:n_touched]:
            smaller = min(our_sizes[row], their_sizes[other])
            is_short = our_short[row] if our_sizes[row] < their_sizes[other] else their_short[other]
            overlap = 0.0 if is_short and n_shared[other] < smaller else n_shared[other] / smaller
            if overlap > value[row] or (overlap == value[row] and other < best[row]):
                best[row], value[row] = other, overlap
            n_shared[other] = 0
    return best, value
