"""Maximum coverage: pick rows that together have as many different words or topics as possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from thresher.numeric.arrays import Float64
from thresher.selectors.count_coverage import CountCoverage
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class MaxCoverage(CountCoverage):
    """Rank rows so that every prefix has as many different n-grams, or topics, as greedy can.

    Optimizes f(S) = sum over features u of min(sum over picks j of count_ju, times): a feature
    counts until it was seen `times` times. f is monotone submodular, so every prefix of k rows has
    at least 63 % of the largest f of any k rows.

    Source: Feige 1998, doi:10.1145/285055.285059; greedy picks are exact, by lazy evaluation; the
    oracle of the tests is a plain greedy. Cost: one look at the counts of each row, and at those of
    a few rows per pick. Needs: `ngram` (no model), or `embedding` for topics; uses the
    existing rows of the context, if there, as rows already picked. Ties: to the lowest row; so it
    is when all features are covered. An empty pool is refused. Fails: long rows have more n-grams
    and come first; texts of random characters bring what nobody else has. With n-grams it lost to
    random rows by 0.05 to 0.16 of accuracy on short rows in 77 classes
    (`benchmarks/selection_helps.py`).

    `objective` is what f gains over the existing rows alone.

    Attributes:
        counts: "ngram" (words and pairs of words) or "topic" (clusters of embeddings).
        times: how often a feature counts.
        n_topics: clusters at most.
    """

    name: ClassVar[str] = "max-coverage"

    times: float = option(1.0, ge=1, le=1e9)

    def _value_sums(self, total: Float64) -> Float64:
        """Return the totals, each `times` at most."""
        return np.minimum(total, self.times)
