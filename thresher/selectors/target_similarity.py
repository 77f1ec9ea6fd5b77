"""Target similarity: the rows nearest to those of a target, each target row in its turn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from thresher.errors import InputError
from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float32
from thresher.numeric.vectors import unit_rows
from thresher.selectors.contract import FeatureKernelSelector
from thresher.subset.scores import Scores, ranked

BLOCK_CELLS = 1 << 24  # cosines computed at a time


@dataclass(frozen=True, kw_only=True)
class TargetSimilarity(FeatureKernelSelector):
    """Rank rows by round robin over a target's rows, each taking its nearest free row (RDS+).

    Optimizes nothing in closed form: turn by turn, the next row of the target picks the free row of
    the pool with the largest cosine to it. With `by`, the tasks of the target take turns instead,
    and a row's similarity to a task is its largest to any of the task's rows.

    Source: Ivison et al. 2025, arXiv:2503.01807 (best of the compared methods on average, from 200
    thousand and 5.8 million rows). Cost: one pass of the model over pool and target, then O(q n d)
    time for q target rows, a sort for each of them (or each task), and 4 q n_ranked bytes. Needs:
    `hidden_state`, from --model or the default one, or `embedding`; and the target's rows
    (--target). Ties: to the lowest row; cosines are compared to six digits. Equal rows are picked
    one after another. An empty pool is refused. A row with no token to read is excluded with its
    reason. Fails: what the target lacks is not picked, so a narrow target gives a narrow subset,
    and rows of the target in the pool come first (keep test data out of both). A few odd target
    rows have as many turns as the others. Repeats of one text come together.

    Attributes:
        kernel: "hidden_state" compares the language model's weighted mean hidden states,
            "embedding" the encoder's vectors.
        by: column of the target whose values are its tasks, for example "source"; default: every
            row for itself.

    Differs: padding has no weight in the mean, as it has in the official code at batch sizes above
    1.
    """

    name: ClassVar[str] = "target-similarity"
    ranks_only: ClassVar[bool] = True

    kernel: Literal["hidden_state", "embedding", "hidden"] = "hidden_state"
    by: str | None = None

    @property
    def requirements(self) -> Requirements:
        """The compared vectors of pool and target, and the target's column of tasks."""
        columns = {f"column:{self.by}"} if self.by else set()
        return Requirements(
            features={self.kernel}, side_features={"target": {self.kernel} | columns}, required_roles={"target"}
        )

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows, or as many as have a value; the others score -inf.

        Raises:
            InputError: there is no target.
        """
        n = features.n_rows
        target = features.context.get(f"target_{self.kernel}")  # (q, d)
        if target is None or not len(target):
            raise InputError(f"{self.name}: needs rows of a target, found none; give --target FILE")
        vectors = features[self.kernel]  # (n, d), NaN for rows without a value
        usable = np.flatnonzero(np.isfinite(vectors).all(axis=1))
        n_picks = min(n_ranked, len(usable))
        tasks = features.context.get(f"target_column:{self.by}")
        lists = rank_neighbors(unit_rows(target), unit_rows(vectors[usable]), n_picks, tasks)
        picks = usable[take_turns(lists, n_picks)]
        return Scores(
            row_id=features.row_id,
            value=ranked(n, picks),
            by=self.name,
            excluded=features.missing.get(self.kernel),
            notes={"n_target_rows": len(target), "n_turns": len(lists)},
        )


def rank_neighbors(
    target: Float32, unit: Float32, n_nearest: int, tasks: NDArray[np.int64] | None
) -> NDArray[np.int32]:
    """Return the rows nearest to each target row, or to each task, nearest first: (t, n_nearest).

    Args:
        target: (q, d) unit rows.
        unit: (n, d) unit rows.
        n_nearest: how many; no more of a list can be picked when so many rows are.
        tasks: (q,) codes of the target rows' tasks, or None for each row for itself.
    """
    groups = [np.array([row]) for row in range(len(target))]
    if tasks is not None:
        groups = [np.flatnonzero(tasks == task) for task in np.unique(tasks)]
    n_rows = max(1, BLOCK_CELLS // max(len(unit), 1))
    lists = np.empty((len(groups), n_nearest), dtype=np.int32)
    for turn, group in enumerate(groups):
        largest = np.full(len(unit), -np.inf, dtype=np.float32)
        for first in range(0, len(group), n_rows):
            np.maximum(largest, (target[group[first : first + n_rows]] @ unit.T).max(axis=0), out=largest)
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
