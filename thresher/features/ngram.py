"""The n-gram feature: which words and pairs of words each row's text has, and how often."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl
import xxhash

from thresher.features.context import FeatureContext
from thresher.features.progress import Progress
from thresher.features.providers import Measured

if TYPE_CHECKING:
    from thresher.dataset import Dataset

RECIPE = "ngram-1"
NGRAM = np.dtype([("bucket", np.int32), ("count", np.int32)])
# Two n-grams share a bucket with a probability of one in a million; of a million, most share one with some other.
N_BUCKETS = 1 << 20
MAX_DISTINCT = 512  # per row; the most frequent are kept, the cut is counted
N = (1, 2)
WORD = re.compile(r"\w+")
BATCH_ROWS = 4096


class Ngram:
    """Counts of the lower-case words of each text and of the pairs of words that stand side by side, hashed.

    Needs no model. A text with more than 512 distinct n-grams keeps the most frequent ones, the first of equal ones.
    """

    name: ClassVar[str] = "ngram"
    passes: ClassVar[str] = "none: words are counted"
    # the array is as wide as its richest row
    compares_rows_of: ClassVar[frozenset[str]] = frozenset({"sft", "classification", "text"})

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the recipe."""
        return {"recipe": RECIPE}

    def compute(self, dataset: Dataset, context: FeatureContext) -> Measured:
        """Return (n, m) of a bucket and a count; the bucket is -1 where a row has fewer than m n-grams."""
        texts = dataset.texts()
        rows: list[list[tuple[int, int]]] = []
        n_cut = 0
        for start in range(0, len(texts), BATCH_ROWS):
            for text in texts[start : start + BATCH_ROWS].to_list():
                counts = ngram_counts(text)
                n_cut += len(counts) > MAX_DISTINCT
                rows.append(sorted(counts.most_common(MAX_DISTINCT)))
            if context.on_progress is not None:
                context.on_progress(Progress(stage=self.name, done=len(rows), total=len(texts)))
        values = np.empty((len(rows), max((len(row) for row in rows), default=0)), NGRAM)
        values["bucket"], values["count"] = -1, 0
        for place, row in zip(values, rows, strict=True):
            place[: len(row)] = row
        return Measured(
            values=values,
            missing=pl.Series("missing", [None] * len(rows), dtype=pl.String),
            notes={"n_rows_cut": n_cut} if n_cut else {},
        )


def ngram_counts(text: str) -> Counter[int]:
    """Return how often each bucket of n-grams occurs in a text."""
    words = WORD.findall(text.lower())
    grams = (" ".join(words[i : i + n]) for n in N for i in range(len(words) - n + 1))
    return Counter(xxhash.xxh3_64_intdigest(gram.encode()) % N_BUCKETS for gram in grams)
