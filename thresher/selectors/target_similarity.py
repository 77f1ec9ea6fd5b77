"""Target similarity: the rows nearest to those of a target, each target row in its turn."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from thresher.errors import InputError, SettingsError
from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Array, Float32, Int64
from thresher.numeric.vectors import unit_rows
from thresher.selectors.contract import FeatureKernelSelector
from thresher.selectors.neighbors.bm25 import Bm25
from thresher.selectors.submodular.posterior_variance import pick_by_variance
from thresher.subset.scores import Scores, ranked
from thresher.validation import option

BLOCK_CELLS = 1 << 24  # cosines computed at a time


@dataclass(frozen=True, kw_only=True)
class TargetSimilarity(FeatureKernelSelector):
    """Rank rows by their similarity to a target's rows, in turns (RDS+) or by what they add (SIFT).

    Optimizes, with form="turns", nothing in closed form: turn by turn, the next row of the target
    picks the free row of the pool that is most similar to it. With `by`, the tasks of the target
    take turns instead, and a row's similarity to a task is its largest to any of the task's rows.
    With form="sift" each pick lowers most the posterior variance of the target's rows under a
    linear surrogate model that has seen the picks (a Gaussian process with the cosine as kernel), a
    greedy minimization, so that near-copies of a pick come late.

    Source: turns: Ivison et al. 2025, arXiv:2503.01807 (best of the compared methods on average,
    from 200 thousand and 5.8 million rows); sift: Hübotter, Bongni, Hakimi and Krause 2024,
    arXiv:2410.08020; bm25: Robertson and Zaragoza 2009, doi:10.1561/1500000019. Cost: the feature,
    then in turns O(q n d) time for q target rows, a sort for each of them (or each task), and 4 q
    n_ranked bytes; sift O(n (d + min(q, d))) for each pick and 8 n min(q, d) bytes. Needs:
    `embedding`, `hidden_state` (from --model or the default one), or `ngram` (no model); and the
    target's rows (--target). Ties: to the lowest row; similarities are compared to six digits.
    Equal rows are picked one after another in turns. An empty pool is refused. A row with no token
    to read is excluded with its reason. Fails: what the target lacks is not picked, so a narrow
    target gives a narrow subset, and rows of the target in the pool come first (keep test data out
    of both). A few odd target rows have as many turns as the others. In turns, repeats of one text
    come together.

    `objective`, of sift alone, is the share of the variance that the picks have taken away.

    Attributes:
        kernel: "embedding" compares the encoder's vectors, "hidden_state" the language model's
            weighted mean hidden states (as RDS+ does), "bm25" the words and pairs of words.
        form: "turns", or "sift" (not with bm25, which has no vectors).
        by: column of the target whose values are its tasks, for example "source"; default: every
            row for itself.
        noise: of sift: variance of an observation; the smaller, the more each pick settles.

    Differs: padding has no weight in the mean, as it has in the official code at batch sizes above
    1.
    """

    name: ClassVar[str] = "target-similarity"
    ranks_only: ClassVar[bool] = True

    kernel: Literal["embedding", "hidden_state", "bm25", "hidden"] = option("embedding")
    form: Literal["turns", "sift"] = option("turns")
    by: str | None = None
    noise: float = option(0.01, gt=0)

    def __post_init__(self) -> None:
        """Check the settings, alone and together.

        Raises:
            SettingsError: a setting has an illegal value, or two do not go together.
        """
        super().__post_init__()
        if self.form == "sift" and (self.kernel == "bm25" or self.by is not None):
            found = "kernel=bm25" if self.kernel == "bm25" else f"by={self.by}"
            raise SettingsError(
                f"{self.name}: form=sift compares vectors of the target's rows together, got {found}; leave it out"
            )

    @property
    def _feature(self) -> str:
        """The feature that is compared."""
        return "ngram" if self.kernel == "bm25" else self.kernel

    @property
    def requirements(self) -> Requirements:
        """The compared vectors of pool and target, and the target's column of tasks."""
        columns = {f"column:{self.by}"} if self.by else set()
        return Requirements(
            features={self._feature}, side_features={"target": {self._feature} | columns}, required_roles={"target"}
        )

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows, or as many as have a value; the others score -inf.

        Raises:
            InputError: there is no target.
        """
        n = features.n_rows
        target = features.context.get(f"target_{self._feature}")  # (q, d)
        if target is None or not len(target):
            raise InputError(f"{self.name}: needs rows of a target, found none; give --target FILE")
        values = features[self._feature]  # (n, d), NaN for rows without a value
        usable = np.arange(n) if self.kernel == "bm25" else np.flatnonzero(np.isfinite(values).all(axis=1))
        n_picks = min(n_ranked, len(usable))
        notes: dict[str, str | int | float] = {"n_target_rows": len(target)}
        objective = None
        if self.form == "sift":
            picked, left = pick_by_variance(unit_rows(values[usable]), unit_rows(target), n_picks, self.noise)
            objective = 1 - left
        else:
            lists = rank_neighbors(self._compare(values[usable], target), len(target), len(usable), n_picks,
                                   features.context.get(f"target_column:{self.by}"))  # fmt: skip
            picked = take_turns(lists, n_picks)
            notes["n_turns"] = len(lists)
        return Scores(
            row_id=features.row_id,
            value=ranked(n, usable[picked]),
            by=self.name,
            excluded=features.missing.get(self._feature),
            objective=objective,
            notes=notes,
        )

    def _compare(self, values: Array, target: Array) -> Callable[[Int64], Float32]:
        """Return what gives the similarities of some target rows to all rows, (t, n) float32."""
        if self.kernel == "bm25":
            return Bm25(values, target).score
        unit, target = unit_rows(values), unit_rows(target)
        return lambda rows: target[rows] @ unit.T


def rank_neighbors(
    compare: Callable[[Int64], Float32], n_targets: int, n_rows: int, n_nearest: int, tasks: NDArray[np.int64] | None
) -> NDArray[np.int32]:
    """Return the rows nearest to each target row, or to each task, nearest first: (t, n_nearest).

    Args:
        compare: gives the similarities of some target rows to all rows.
        n_targets: number of target rows, q.
        n_rows: number of rows, n.
        n_nearest: how many; no more of a list can be picked when so many rows are.
        tasks: (q,) codes of the target rows' tasks, or None for each row for itself.
    """
    groups = [np.array([row]) for row in range(n_targets)]
    if tasks is not None:
        groups = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    n_at_once = max(1, BLOCK_CELLS // max(n_rows, 1))
    lists = np.empty((len(groups), n_nearest), dtype=np.int32)
    for turn, group in enumerate(groups):
        largest = np.full(n_rows, -np.inf, dtype=np.float32)
        for first in range(0, len(group), n_at_once):
            np.maximum(largest, compare(group[first : first + n_at_once]).max(axis=0), out=largest)
        lists[turn] = np.argsort(-np.round(largest, 6), kind="stable")[:n_nearest]
    return lists


def take_turns(lists: NDArray[np.int32], n_picks: int) -> NDArray[np.int64]:
    """Return (n_picks,) rows: the lists in turn give their first row that no other has given."""
    is_free = np.ones(int(lists.max(initial=-1)) + 1, dtype=np.bool_)
    place = [0] * len(lists)
    picks: list[int] = []
    while len(picks) < n_picks:
        for turn, nearest in enumerate(lists):
            if len(picks) == n_picks:
                break
            while not is_free[nearest[place[turn]]]:
                place[turn] += 1
            picks.append(int(nearest[place[turn]]))
            is_free[picks[-1]] = False
    return np.array(picks, dtype=np.int64)
