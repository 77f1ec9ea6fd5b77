"""Feature-based function: cover all n-grams or topics, with diminishing returns for each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from thresher.selectors.apricot import CountCoverage


@dataclass(frozen=True, kw_only=True)
class FeatureBased(CountCoverage):
    """Rank rows so that prefixes cover all n-grams or topics, with diminishing returns for each.

    Optimizes f(S) = sum over features u of g(sum over picks j of count_ju), g concave: sqrt or
    log(1 + x). f is monotone submodular, so every prefix of k rows has at least 63 % of the largest
    f of any k rows.

    Source: Kirchhoff and Bilmes 2014 (EMNLP), doi:10.3115/v1/D14-1014; computed by apricot-select
    0.6.1 (Schreiber, Bilmes and Noble 2020, JMLR 21), by its `naive` optimizer, and its picks are
    checked to be distinct. Cost: n_ranked passes over all counts: for tens of thousands of rows at
    most. Needs: `ngram` (no model), or `embedding` for topics; apricot-select, in the extra
    `counts`; uses the existing rows of the context, if there, as rows already picked. Ties: to the
    lowest row. Equal rows are picked one by one, each for less. An empty pool is refused. Fails:
    long rows have more n-grams and come first; texts of random characters bring what nobody else
    has. For topics, all rows of one are equal, and the lowest are taken. With n-grams it lost to
    random rows by 0.08 to 0.19 of accuracy on short rows in 77 classes
    (`benchmarks/selection_helps.py`).

    `objective` is what f gains over the existing rows alone.

    Attributes:
        counts: "ngram" (words and pairs of words) or "topic" (clusters of embeddings).
        concave: "sqrt" or "log".
        n_topics: clusters at most.
    """

    name: ClassVar[str] = "feature-based"

    concave: Literal["sqrt", "log"] = "sqrt"

    @property
    def _function(self) -> tuple[str, dict[str, Any]]:
        return "FeatureBasedSelection", {"concave_func": self.concave}
