"""Uncertainty coverage: pick rows that stand for the rows that a classifier cannot decide."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Array, Float32, Float64, Int64
from thresher.numeric.vectors import Distinct
from thresher.selectors.pilot.student import fit_student
from thresher.selectors.submodular.distinct_cover import DistinctCover, DistinctGreedy
from thresher.subset.scores import Scores, fill_ranking
from thresher.validation import option

PROBABILITY = "class_probability"
LEAST_FIRST_ROUND = 20  # picks
FIRST_ROUND_PER_CLASS = 2


@dataclass(frozen=True, kw_only=True)
class UncertaintyCoverage(DistinctGreedy):
    """Rank rows so that they represent above all the rows whose class is in doubt.

    Optimizes, by greedy picks in rounds, f(S) = sum over all rows i of u_i max(0, max over j in S
    of cos(i, j)): facility location in which each row counts with its uncertainty u_i = 1 - (p1 -
    p2), the margin between the two likeliest classes. The first round, of twice as many picks as
    there are classes (at least 20), counts all rows alike. After each round, which doubles the
    number of picks, logistic regression on the embeddings of the picks gives the uncertainties of
    the rows that it has not seen. The sizes of the rounds do not depend on the budget, so that
    rankings nest. With rounds="one", all picks are made at once by the uncertainties of
    `class_probability`, which is cross-fitted on the whole pool.

    Source: the objective is the filtered active submodular selection of Wei, Iyer and Bilmes 2015
    (ICML), with weights in place of the filter; margins: Scheffer, Decomain and Wrobel 2001,
    doi:10.1007/3-540-44816-0_31; greedy as in `facility-location`. The oracle of the tests is a
    plain greedy in float64. Cost: as `facility-location`, and of each round a pass over the kernel
    and a regression on the picks before. Needs: `embedding` and `column:label`, or
    `class_probability` with rounds="one"; uses `existing_embedding` of the context, if there, as
    rows already picked. Ties: to the lowest row, as in `facility-location`. Equal rows count as
    often as they occur and are picked once. When no row can raise f, the lowest rows not yet picked
    follow. An empty pool is refused. Fails: with few picks margins say little, and rows whose label
    is wrong or random are never decided and attract picks; with rounds="one", which knows the
    labels of all rows, it was below plain facility location on three of four sets
    (`benchmarks/uncertainty_coverage.py`).

    `covered_by` is the pick nearest to each row, EXISTING where an existing row is as near, -1
    where nothing is more similar to it than 0; `similarity` is the cosine with it.

    Attributes:
        rounds: "doubling": each round counts rows by a classifier of the picks before; "one": all
            picks at once, by cross-fitted classifiers of all rows.
        kernel, n_neighbors, max_kernel_gb, optimizer, epsilon: as in `facility-location`.
    """

    name: ClassVar[str] = "uncertainty-coverage"
    ranks_only: ClassVar[bool] = True

    rounds: Literal["doubling", "one"] = option("doubling")

    @property
    def requirements(self) -> Requirements:
        """Embeddings, and labels or what was learned from them."""
        known = "column:label" if self.rounds == "doubling" else PROBABILITY
        return Requirements(features={"embedding", known}, side_features={"existing": {"embedding"}})

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows greedily; the others score -inf.

        Raises:
            InputError: the dense kernel was asked for and is too large.
        """

        def weigh(distinct: Distinct) -> Float64 | Int64:
            return distinct.size if self.rounds == "doubling" else _sum_margins(features[PROBABILITY], distinct)

        cover = self._start(features, weigh, rng)
        n_distinct, picked = len(cover.vectors), np.zeros(0, np.int64)
        label = features["column:label"][cover.distinct.first] if self.rounds == "doubling" else np.zeros(0, np.int64)
        ends = self._plan_rounds(features, min(n_ranked, n_distinct))
        for end in ends:
            # from the second round on rows count by what the picks before cannot decide
            if len(picked):
                cover.state.weight[:] = _weigh(cover, label, picked)
            picks = self._pick(cover, end - len(picked), rng).rows
            n_gained = len(picked) + len(picks)
            picked = fill_ranking(np.concatenate([picked, picks]), end, np.ones(n_distinct, np.bool_))
            # by these weights nothing was left to cover: the lowest rows followed, and cover, too
            if n_gained < end:
                cover.mark_picked(picked[n_gained:])
        return cover.score(self.name, features, picked, n_ranked, {"n_rounds": len(ends)})

    def _plan_rounds(self, features: Features, n_picks: int) -> list[int]:
        """Return how many picks there are at the end of each round; the last is `n_picks`."""
        if self.rounds == "one":
            return [n_picks]
        n_classes = len(np.unique(features["column:label"]))
        ends = [max(LEAST_FIRST_ROUND, FIRST_ROUND_PER_CLASS * n_classes)]
        while ends[-1] < n_picks:
            ends.append(2 * ends[-1])
        return [*ends[:-1], n_picks]


def _weigh(cover: DistinctCover, label: Int64, picked: Int64) -> Float32:
    """Return how much each distinct row counts, (u,): as before if nothing is learned."""
    model = fit_student(cover.unit[picked], label[picked])
    if model is None:  # all picks have one label
        return cover.state.weight
    doubt = compute_margin_doubt(model.predict_proba(cover.unit))
    weight: Float32 = (cover.distinct.size * doubt).astype(np.float32)
    return weight


def compute_margin_doubt(probability: Array) -> Float64:
    """Return 1 - (p1 - p2) of each row's two largest probabilities, (n,) float64 in 0..1.

    Args:
        probability: (n, k), k >= 2, rows sum to 1.
    """
    top = np.partition(probability.astype(np.float64), -2, axis=1)[:, -2:]
    doubt: Float64 = np.clip(1 - (top[:, 1] - top[:, 0]), 0, 1)
    return doubt


def _sum_margins(probability: Array, distinct: Distinct) -> Float64:
    """Return the summed doubt of each group of equal rows, (u,)."""
    doubt = compute_margin_doubt(probability) if probability.shape[1] > 1 else np.ones(len(probability))
    sums = np.zeros(len(distinct.first))
    np.add.at(sums, distinct.group, doubt)
    return sums
