"""Maximum coverage: pick rows that together have as many different words or topics as possible."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from thresher.selectors.apricot import CountCoverage
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class MaxCoverage(CountCoverage):
    """Rank rows so that every prefix has as many different n-grams, or topics, as greedy can.

    Optimizes f(S) = sum over features u of min(sum over picks j of count_ju, times): a feature
    counts until it was seen `times` times. f is monotone submodular, so every prefix of k rows has
    at least 63 % of the largest f of any k rows.

    Source: Feige 1998, doi:10.1145/285055.285059; computed by apricot-select 0.6.1 (Schreiber,
    Bilmes and Noble 2020, JMLR 21), by its `naive` optimizer, and its picks are checked to be
    distinct. Cost: n_ranked passes over all counts: for tens of thousands of rows at most. Needs:
    `ngram` (no model), or `embedding` for topics; apricot-select, in the extra `counts`; uses the
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

    @property
    def _function(self) -> tuple[str, dict[str, Any]]:
        return "MaxCoverageSelection", {"threshold": float(self.times)}
