"""Herding: the most typical rows. A control, not a recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float32
from thresher.numeric.vectors import unit_rows
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores, ranked

CLOSE = 1e-5  # scores so near to the best, relative to the state's length, are compared in float64


@dataclass(frozen=True, kw_only=True)
class Herding(Selector):
    """Rank rows so that the mean embedding of every prefix is near the mean of the pool.

    THE CONTROL FOR "TYPICAL ROWS": it looks at the mean only. A method that claims to gain by
    diversity or coverage should beat it; if it does not, typical rows were all that was needed.

    Optimizes, greedily, | mean over i of x_i - mean over S of x_j |^2 over unit embeddings x: with
    state w = mean, each pick is the row with the largest w . x, then w becomes w + mean - x.

    Source: Welling 2009, doi:10.1145/1553374.1553517; kernel herding with the linear kernel, Chen,
    Welling and Smola 2010, arXiv:1203.3472. Cost: O(n d) time per pick, no memory beyond the unit
    embeddings. Needs: `embedding`. Ties: to the lowest row. Equal rows can all be picked, but not
    soon after one another. A zero row adds nothing to the mean. An empty pool is refused. Fails:
    with several groups the mean may lie where no row is; groups of opposite direction cancel. No
    difference to random rows was seen on three tasks (`benchmarks/selection_helps.py`): a mean is
    what random rows have too.

    `objective` is the distance of the prefix's mean to the pool's mean after each pick (lower is
    better).

    Differs: without replacement; the paper may pick a row again.
    """

    name: ClassVar[str] = "herding"
    ranks_only: ClassVar[bool] = True
    requirements: ClassVar[Requirements] = Requirements(features={"embedding"})

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows greedily; the others score -inf."""
        n = features.n_rows
        unit = unit_rows(features["embedding"])  # (n, d)
        mean = unit.mean(axis=0, dtype=np.float64)
        state = mean.copy()
        is_free = np.ones(n, np.bool_)
        picks = np.empty(n_ranked, np.int64)
        distance = np.empty(n_ranked)
        for t in range(n_ranked):
            picks[t] = _best(unit, state, is_free)
            is_free[picks[t]] = False
            state += mean - unit[picks[t]]
            # state = mean + (t + 1) * mean - sum of the picks
            distance[t] = np.linalg.norm(state - mean) / (t + 1)
        return Scores(row_id=features.row_id, value=ranked(n, picks), by=self.name, objective=distance)


def _best(unit: Float32, state: NDArray[np.float64], is_free: NDArray[np.bool_]) -> int:
    """Return the free row with the largest product with the state; ties to the lowest."""
    score = unit @ state.astype(np.float32)
    score[~is_free] = -np.inf
    close = np.flatnonzero(score >= score.max() - CLOSE * np.linalg.norm(state))
    close = close[is_free[close]]
    if len(close) == 1:
        return int(close[0])
    exact = np.einsum("ij,j->i", unit[close], state, dtype=np.float64)
    return int(close[np.flatnonzero(exact >= exact.max() - 1e-12)[0]])
