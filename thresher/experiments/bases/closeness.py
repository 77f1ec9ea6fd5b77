"""How near another data set lies to one's own rows, before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any

import numpy as np

from thresher.dataset import Dataset
from thresher.dataset.own_text.matching import match_rows
from thresher.features.compute import compute
from thresher.features.context import FeatureContext
from thresher.numeric.arrays import Array
from thresher.numeric.optimal_transport import compute_transport_distance

NEAR = 0.9  # cosine from which two texts are taken to say the same
LEAST_ROWS = 5  # of a candidate, and in each half of one's own: of fewer, a distance is mere chance


@dataclass(frozen=True, kw_only=True)
class Closeness:
    """One candidate beside one's own rows.

    Attributes:
        name: of the candidate.
        n_rows: usable rows of it.
        similarity: cosine of the mean embeddings.
        distance: optimal transport distance of the embeddings, 0..2, comparable with
            `own_distance`; None with fewer than `LEAST_ROWS` rows on either side.
        leaks: share of its rows that ask what a test row asks.
        repeats: share of its rows that ask what an own row asks.
        conflicts: of its rows that ask what an own row asks, or nearly so (labels), the share that
            answer otherwise; None where there are none.
        n_conflicts: how many these are.
    """

    name: str
    n_rows: int
    similarity: float
    distance: float | None
    leaks: float
    repeats: float
    conflicts: float | None
    n_conflicts: int

    def describe(self) -> str:
        """Return distance and similarity as a sentence's end."""
        distance = (
            f"too few rows for a distance (at least {LEAST_ROWS}, and {2 * LEAST_ROWS} of your own)"
            if self.distance is None
            else f"distance {self.distance:.3f}"
        )
        return f"{distance}, similarity {self.similarity:.3f}"

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)


@dataclass(frozen=True)
class OwnRows:
    """One's own rows, and the sample that candidates are compared with.

    Attributes:
        rows: that are trained on.
        test: that are measured on.
        sample: (m,) positions in `rows`, in random order.
        vectors: (m, d) unit embeddings of the sample.
        context: of the encoder.
        n_compared: rows of each data set that are compared.
    """

    rows: Dataset
    test: Dataset
    sample: Array
    vectors: Array
    context: FeatureContext
    n_compared: int

    @staticmethod
    def embed(rows: Dataset, test: Dataset, context: FeatureContext, n_compared: int) -> OwnRows:
        """Embed some of one's own rows."""
        sample = _sample(len(rows), n_compared)
        vectors = compute(rows.take(sample), ["embedding"], context)["embedding"]
        return OwnRows(rows, test, sample, vectors, context, n_compared)

    @cached_property
    def own_distance(self) -> float | None:
        """How far two halves of one's own rows lie apart: the least that can be expected.

        None with fewer than `LEAST_ROWS` rows in each.
        """
        half = len(self.vectors) // 2
        if half < LEAST_ROWS:
            return None
        return compute_transport_distance(self.vectors[:half], self.vectors[half:])

    def compare(self, name: str, other: Dataset) -> Closeness:
        """Compare a candidate with one's own rows."""
        sample = _sample(len(other), self.n_compared)
        vectors = compute(other.take(sample), ["embedding"], self.context)["embedding"]
        match = match_rows(other, self.rows)
        conflicts = self._find_conflicts(other, match, sample, vectors)
        return Closeness(
            name=name,
            n_rows=len(other),
            similarity=_compute_cosine(self.vectors.mean(axis=0), vectors.mean(axis=0)),
            distance=self._measure_distance(vectors),
            leaks=float((match_rows(other, self.test) >= 0).mean()),
            repeats=float((match >= 0).mean()),
            conflicts=None if not len(conflicts) else float(conflicts.mean()),
            n_conflicts=int(conflicts.sum()),
        )

    def _measure_distance(self, vectors: Array) -> float | None:
        """Return the distance as of samples that are as large as the halves of `own_distance`.

        Small samples lie farther apart, whatever they hold: what one's own rows lie farther apart
        in samples of as many rows as the candidate has is taken off. None where there are too few.
        """
        half = len(self.vectors) // 2
        n = min(half, len(vectors))
        if self.own_distance is None or n < LEAST_ROWS:
            return None
        distance = compute_transport_distance(self.vectors[:n], vectors[:n])
        if n == half:
            return distance
        of_size = compute_transport_distance(self.vectors[:n], self.vectors[half : half + n])
        return max(0.0, distance - (of_size - self.own_distance))

    def _find_conflicts(self, other: Dataset, match: Array, sample: Array, vectors: Array) -> Array:
        """Tell of each row with a counterpart of one's own whether it answers otherwise."""
        own, others = self.rows.frame["response"].to_numpy(), other.frame["response"].to_numpy()
        counterpart = match.copy()
        if other.kind == "classification":
            cosine = vectors @ self.vectors.T
            nearest = cosine.argmax(axis=1)
            is_near = (cosine.max(axis=1) >= NEAR) & (counterpart[sample] < 0)
            counterpart[sample[is_near]] = self.sample[nearest[is_near]]
            # labels that one's own rows do not have are another task, not a contradiction
            counterpart[~np.isin(others, np.unique(own))] = -1
        at = np.flatnonzero(counterpart >= 0)
        return np.asarray(own[counterpart[at]] != others[at])


def _sample(n: int, most: int) -> Array:
    return np.random.default_rng(0).permutation(n)[:most]


def _compute_cosine(ours: Array, theirs: Array) -> float:
    norm = float(np.linalg.norm(ours) * np.linalg.norm(theirs))
    return float(ours @ theirs) / norm if norm > 0 else 0.0


def describe_distance(near: Sequence[Closeness], own_distance: float | None) -> str:
    """Return how far one's own rows lie apart, and why a distance may be missing."""
    least = f"a distance needs at least {LEAST_ROWS} rows, and {2 * LEAST_ROWS} of your own"
    if own_distance is None:
        return least
    halves = f"two halves of your own rows are {own_distance:.3f} apart"
    return f"{halves}; {least}" if any(each.distance is None for each in near) else halves
