"""Distributions of rows over lengths, sources, topics and labels, and drift between two of them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.numeric.arrays import Float32, Int64

MEASURES = ("lengths", "sources", "topics", "labels")
BINS_PER_DOUBLING = 2
MAX_VALUES = 200  # labels or sources; rarer ones count together
OTHER = "(other)"
NORMAL_99 = 2.3263  # standard normal quantile at 0.99
PSI_FLOOR = 1e-4  # share that stands for an empty bin, which would make the index infinite
Counts = dict[str, int]


def count_lengths(tokens: Int64) -> Counts:
    """Return the rows per length; bins grow by sqrt(2), and are named by their lower bound."""
    step = np.floor(np.log2(np.maximum(tokens, 1)) * BINS_PER_DOUBLING).astype(np.int64)
    bins, counts = np.unique(step, return_counts=True)
    return {
        f"{2 ** (at / BINS_PER_DOUBLING):.0f}": int(n) for at, n in zip(bins.tolist(), counts.tolist(), strict=True)
    }


def count_top_values(values: pl.Series) -> Counts:
    """Return the rows per value, the most frequent first; all beyond 200 values count together."""
    table = values.value_counts().sort(["count", values.name], descending=[True, False])
    counts: Counts = {str(name): n for name, n in table.head(MAX_VALUES).iter_rows()}
    rest = int(table["count"].slice(MAX_VALUES).sum())
    return counts | ({OTHER: rest} if rest else {})


def count_topics(embedding: Float32, centroids: Float32) -> Counts:
    """Return how many rows lie nearest to each centroid."""
    blocks = (embedding[low : low + 8192] for low in range(0, len(embedding), 8192))
    group = np.concatenate([np.zeros(0, np.int64), *((block @ centroids.T).argmax(axis=1) for block in blocks)])
    counts = np.bincount(group, minlength=len(centroids))
    return {f"topic-{number + 1}": int(n) for number, n in enumerate(counts.tolist())}


def fit_topic_centroids(embedding: Float32, n_topics: int, rng: np.random.Generator) -> Float32:
    """Return (k, d) centroids of spherical k-means over the rows, for later snapshots too."""
    from thresher.numeric.kmeans import spherical_kmeans
    from thresher.numeric.vectors import unit_rows

    clusters = spherical_kmeans(embedding, n_topics, rng)
    sums = np.zeros((int(clusters.group.max()) + 1, embedding.shape[1]), np.float64)
    np.add.at(sums, clusters.group, embedding.astype(np.float64))
    return unit_rows(sums)


def jensen_shannon(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Return the Jensen-Shannon divergence of two distributions in bits, 0 (equal) to 1 (disjoint).

    Source: Lin 1991, doi:10.1109/18.61115.
    """
    p, q = _shares(before, after)
    middle = (p + q) / 2
    return max(0.0, float((_relative_entropy(p, middle) + _relative_entropy(q, middle)) / 2))


def population_stability(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Return the population stability index, sum (q - p) ln(q / p); an empty bin counts as 0.0001.

    Source: Siddiqi 2006, Credit Risk Scorecards, ch. 8, where 0.1 to 0.25 is some change and more a
    large one.
    """
    p, q = (np.maximum(share, PSI_FLOOR) for share in _shares(before, after))
    return float(((q - p) * np.log(q / p)).sum())


def expect_chance(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Return the Jensen-Shannon divergence to expect without drift, by its chi-squared limit."""
    n, m = sum(before.values()), sum(after.values())
    if not n or not m:
        return 0.0
    return min(1.0, _freedom(before, after) / (8 * math.log(2)) * (1 / n + 1 / m))


def chance_limit(before: Mapping[str, int], after: Mapping[str, int]) -> float:
    """Return the Jensen-Shannon divergence that one in a hundred comparisons without drift exceeds.

    The quantile of the chi-squared limit, by Wilson and Hilferty 1931, doi:10.1073/pnas.17.12.684.
    """
    n, m = sum(before.values()), sum(after.values())
    freedom = _freedom(before, after)
    if not n or not m or not freedom:
        return 0.0
    variance = 2 / (9 * freedom)
    quantile = freedom * (1 - variance + NORMAL_99 * math.sqrt(variance)) ** 3
    return min(1.0, quantile / (8 * math.log(2)) * (1 / n + 1 / m))


def _freedom(before: Mapping[str, int], after: Mapping[str, int]) -> int:
    """Return the degrees of freedom: bins that hold a row of either, but for one."""
    return sum(1 for name in set(before) | set(after) if before.get(name) or after.get(name)) - 1


def _shares(before: Mapping[str, int], after: Mapping[str, int]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    names = sorted(set(before) | set(after))
    p, q = (np.array([counts.get(name, 0) for name in names], np.float64) for counts in (before, after))
    return p / p.sum(), q / q.sum()


def _relative_entropy(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    at = p > 0
    return float((p[at] * np.log2(p[at] / q[at])).sum())


@dataclass(frozen=True)
class Drift:
    """How far a distribution is from the previous one.

    Attributes:
        measure: "lengths", "sources", "topics" or "labels".
        of: "incoming" or "snapshot".
        jensen_shannon: 0..1.
        psi: 0..
        chance: Jensen-Shannon divergence to expect without any drift, for so many rows.
        chance_limit: exceeded by one in a hundred comparisons of so many rows without any drift.
    """

    measure: str
    of: str
    jensen_shannon: float
    psi: float
    chance: float
    chance_limit: float

    @property
    def is_beyond_chance(self) -> bool:
        """Whether so much is rare without any drift; of a handful of rows, nothing may be."""
        return self.jensen_shannon > self.chance_limit

    def value(self, measure: str) -> float:
        """Return the value that a gate is held to."""
        return self.psi if measure == "psi" else self.jensen_shannon

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(self).items()}


Distributions = Mapping[str, Mapping[str, Counts]]


def measure_drifts(before: Distributions | None, after: Distributions, *, same_topics: bool = True) -> list[Drift]:
    """Return the drift of each measure that two sets of distributions have."""
    drifts: list[Drift] = []
    for of in ("incoming", "snapshot"):
        old, new = (before or {}).get(of, {}), after.get(of, {})
        for measure in MEASURES:
            p, q = old.get(measure, {}), new.get(measure, {})
            if sum(p.values()) and sum(q.values()) and (same_topics or measure != "topics"):
                divergences = (
                    jensen_shannon(p, q),
                    population_stability(p, q),
                    expect_chance(p, q),
                    chance_limit(p, q),
                )
                drifts.append(Drift(measure, of, *divergences))
    return drifts
