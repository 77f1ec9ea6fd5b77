"""Prototypes: of each class the rows that together have its mean, doubtful labels last."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from thresher.features.container import Features
from thresher.features.labels.label_issues import is_label_contradicted
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Bool, Float32, Float64, Int64
from thresher.numeric.vectors import unit_rows
from thresher.selectors.groups import GroupedSelector
from thresher.selectors.herding import herd_rows
from thresher.selectors.round_robin import Balance, plan_turns
from thresher.selectors.uniform import hash_rows
from thresher.subset.scores import Scores, ranked
from thresher.validation import option

PROBABILITY = "class_probability"


@dataclass(frozen=True, kw_only=True)
class Prototypes(GroupedSelector):
    """Rank rows so that the classes take turns, each with the rows that have its mean.

    Optimizes, greedily in each class, the distance of the mean embedding of the picks to the mean
    of the class, at every prefix (kernel herding, as in `herding`). Between classes the divisor
    method of Webster and Sainte-Lague: the r-th row of a class comes at (r - 1/2) / weight, so
    every prefix has the shares as near as whole rows allow. With "sqrt" the weight is the square
    root of the class's size, between the pool's shares and equal ones. Rows whose label is
    contradicted by classifiers that have not seen them (as the rule `label-issues` would name them)
    come last in their class.

    Source: Chen, Welling and Smola 2010, arXiv:1203.3472 (herding); Northcutt et al. 2021,
    arXiv:1911.00068 (doubtful labels); Balinski and Young 1982, "Fair Representation" (turns).
    Cost: O(k d min(4096, rows of the class)) time for k picks, and the feature's for doubtful
    labels, see `class_probability`. Needs: `embedding`; `column:<by>` unless `by` is "cluster", and
    `class_probability` where `by` is "label" and doubtful labels come last. Ties: between classes
    to the lowest code, within to the lowest row. Equal rows can all be picked, but not soon after
    one another. An empty pool is refused. Fails: a class of several kinds of rows whose mean lies
    between them; labels that are wrong by a rule are not doubted.

    Attributes:
        by: a column ("label" is the class of classification data, "source" the source), or
            "cluster" for k-means.
        balance: "sqrt", "proportional" or "balanced" turns of the classes.
        doubtful: "last": rows with a doubtful label come last in their class (by="label" only);
            "ignore": labels are not doubted.
        n_clusters: clusters of k-means, for by="cluster" only; default: the square root of half the
            rows.
    """

    name: ClassVar[str] = "prototypes"
    ranks_only: ClassVar[bool] = True

    balance: Balance = "sqrt"
    doubtful: Literal["last", "ignore"] = option("last")

    @property
    def requirements(self) -> Requirements:
        """Embeddings, and what divides the rows; class probabilities where labels are doubted."""
        features = {"embedding"} | ({PROBABILITY} if self._doubts_labels else set())
        return Requirements(features=features if self.by == "cluster" else {*features, f"column:{self.by}"})

    @property
    def _doubts_labels(self) -> bool:
        return self.by == "label" and self.doubtful == "last"

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows; the others score -inf."""
        unit = unit_rows(features["embedding"])  # (n, d)
        group = self._group(features, rng)  # (n,)
        is_doubtful = np.zeros(len(unit), np.bool_)
        if self._doubts_labels:
            is_doubtful = is_label_contradicted(features[PROBABILITY], features["column:label"])
        sizes = np.bincount(group)
        turns = plan_turns(self.balance, sizes, n_ranked)
        shuffle_key = hash_rows(features.row_id, rng)
        ranking = np.empty(n_ranked, np.int64)
        for code, n_picks in enumerate(np.bincount(turns, minlength=len(sizes)).tolist()):
            rows = np.flatnonzero(group == code)
            picks = _herd_trusted_first(unit[rows], n_picks, is_doubtful[rows], shuffle_key[rows])
            ranking[turns == code] = rows[picks]
        notes: dict[str, str | int | float] = {"n_groups": len(sizes), "n_doubtful": int(is_doubtful.sum())}
        return Scores(row_id=features.row_id, value=ranked(len(unit), ranking), by=self.name, notes=notes)


def _herd_trusted_first(unit: Float32, n_picks: int, is_doubtful: Bool, shuffle_key: Float64) -> Int64:
    """Return the picks of one class, (n_picks,): rows with a doubtful label after all others."""
    picks: list[Int64] = []
    for rows in (np.flatnonzero(~is_doubtful), np.flatnonzero(is_doubtful)):
        n_left = n_picks - sum(map(len, picks))
        picks.append(rows[herd_rows(unit[rows], min(n_left, len(rows)), shuffle_key[rows])[0]])
    return np.concatenate(picks)
