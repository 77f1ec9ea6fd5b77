"""The n-gram feature: which words and pairs of words each row's text has, and how often."""

from __future__ import annotations

import re
from collections import Counter
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl
import xxhash
from numpy.typing import NDArray

from thresher.cache.memory_map import empty_array
from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider, FeatureValues
from thresher.progress import Progress

if TYPE_CHECKING:
    from thresher.dataset import Dataset

RECIPE = "ngram-1"
NGRAM = np.dtype([("bucket", np.int32), ("count", np.int32)])
# Two n-grams share a bucket with a probability of one in a million; of a million, most share one
# with some other.
N_BUCKETS = 1 << 20
MAX_DISTINCT = 512  # per row; the most frequent are kept, the cut is counted
N = (1, 2)
WORD = re.compile(r"\w+")
BATCH_ROWS = 4096


class Ngram(FeatureProvider):
    """Counts of each text's lower-case words and of the pairs of words side by side, hashed.

    Needs no model. A text with more than 512 distinct n-grams keeps the most frequent ones, the
    first of equal ones.
    """

    name: ClassVar[str] = "ngram"
    passes: ClassVar[str] = "none: words are counted"
    # the array is as wide as its richest row
    whole_pool_kinds: ClassVar[frozenset[str]] = frozenset({"sft", "classification", "text"})

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the recipe."""
        return {"recipe": RECIPE}

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n, m) of a bucket and a count; the bucket is -1 beyond a row's last n-gram."""
        texts = dataset.texts()
        parts: list[tuple[NDArray[Any], NDArray[np.int64]]] = []
        n_cut = done = 0
        for start in range(0, len(texts), BATCH_ROWS):
            counted = [ngram_counts(text) for text in texts[start : start + BATCH_ROWS].to_list()]
            n_cut += sum(len(counts) > MAX_DISTINCT for counts in counted)
            parts.append(_concatenate(counted))
            done += len(counted)
            if context.on_progress is not None:
                context.on_progress(Progress(stage=self.name, done=done, total=len(texts)))
        width = max((int(n_grams.max()) for _, n_grams in parts), default=0)
        values = empty_array((done, width), NGRAM, None if context.cache is None else context.cache.root)
        first = 0
        for run, n_grams in parts:
            rows = values[first : first + len(n_grams)]
            rows["bucket"], rows["count"] = -1, 0
            rows[np.arange(width) < n_grams[:, None]] = run
            first += len(n_grams)
        return FeatureValues(
            values=values,
            missing=pl.Series("missing", [None], dtype=pl.String).new_from_index(0, done),
            notes={"n_rows_cut": n_cut} if n_cut else {},
        )


def _concatenate(counted: list[Counter[int]]) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the n-grams of some rows, one row after the other, and their numbers, (b,)."""
    rows = [sorted(counts.most_common(MAX_DISTINCT)) for counts in counted]
    n_grams = np.array([len(row) for row in rows], dtype=np.int64)
    return np.fromiter(chain.from_iterable(rows), NGRAM, count=int(n_grams.sum())), n_grams


def ngram_counts(text: str) -> Counter[int]:
    """Return how often each bucket of n-grams occurs in a text."""
    words = WORD.findall(text.lower())
    grams = (" ".join(words[i : i + n]) for n in N for i in range(len(words) - n + 1))
    return Counter(xxhash.xxh3_64_intdigest(gram.encode()) % N_BUCKETS for gram in grams)
