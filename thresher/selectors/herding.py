"""Herding: the most typical rows. A control, not a recommendation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.threads import limit_blas
from thresher.numeric.vectors import unit_rows
from thresher.selectors.contract import Selector
from thresher.selectors.uniform import hash_rows
from thresher.subset.scores import Scores, ranked

CLOSE = 1e-5  # scores so near to the best, relative to the state's length, are compared in float64
MAX_BLOCK = 4096  # rows that one pick is chosen from: 4 MB of 256 components, about a cache


@dataclass(frozen=True, kw_only=True)
class Herding(Selector):
    """Rank rows so that the mean embedding of every prefix is near the mean of the pool.

    THE CONTROL FOR "TYPICAL ROWS": it looks at the mean only. A method that claims to gain by
    diversity or coverage should beat it; if it does not, typical rows were all that was needed.

    Optimizes, greedily, | mean over i of x_i - mean over S of x_j |^2 over unit embeddings x: with
    state w = mean, each pick is the row with the largest w . x, then w becomes w + mean - x. Up to
    4,096 rows each pick is the best of all; above, the rows form random blocks of at most as many,
    which give the best row that they have by turns, to the one state of all.

    Source: Welling 2009, doi:10.1145/1553374.1553517; kernel herding with the linear kernel, Chen,
    Welling and Smola 2010, arXiv:1203.3472. Cost: O(min(n, 4096) d) time per pick, no memory beyond
    the unit embeddings. Needs: `embedding`. Ties: to the lowest row. Equal rows can all be picked,
    but not soon after one another. A zero row adds nothing to the mean. An empty pool is refused.
    Fails: with several groups the mean may lie where no row is; groups of opposite direction
    cancel; `prototypes` herds each class for itself. No difference to random rows was seen on three
    tasks (`benchmarks/selection_helps.py`): a mean is what random rows have too.

    `objective` is the distance of the prefix's mean to the pool's mean after each pick (lower is
    better).

    Differs: without replacement; the paper may pick a row again.
    """

    name: ClassVar[str] = "herding"
    ranks_only: ClassVar[bool] = True
    requirements: ClassVar[Requirements] = Requirements(features={"embedding"})

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Rank `n_ranked` rows greedily; the others score -inf."""
        picks, distance = herd_rows(unit_rows(features["embedding"]), n_ranked, hash_rows(features.row_id, rng))
        return Scores(row_id=features.row_id, value=ranked(features.n_rows, picks), by=self.name, objective=distance)


@limit_blas()
def herd_rows(
    unit: Float32, n_picks: int, shuffle_key: Float64, *, max_block: int = MAX_BLOCK
) -> tuple[Int64, Float64]:
    """Pick rows one by one so that the mean of every prefix is near the mean of all rows.

    Args:
        unit: (n, d) unit vectors.
        n_picks: at most n.
        shuffle_key: (n,) random numbers: where there are more rows than `max_block`, they divide
            the rows into blocks, which are looked at by turns.
        max_block: rows that one pick is chosen from, at most.

    Returns:
        (n_picks,) rows in the order of the picks, and (n_picks,) the distance of the mean of each
        prefix to the mean of all rows.
    """
    n = len(unit)
    n_blocks = max(1, -(-n // max_block))
    order = np.argsort(shuffle_key, kind="stable") if n_blocks > 1 else np.arange(n)
    blocks = [np.sort(rows) for rows in np.array_split(order, n_blocks)]
    vectors = [unit[rows] for rows in blocks] if n_blocks > 1 else [unit]
    is_free = [np.ones(len(rows), np.bool_) for rows in blocks]
    mean = unit.mean(axis=0, dtype=np.float64) if n else np.zeros(unit.shape[1])
    state = mean.copy()
    picks = np.empty(n_picks, np.int64)
    distance = np.empty(n_picks)
    # sizes of blocks differ by one, the larger ones first, so that whose turn it is has a row left
    for t in range(n_picks):
        block = t % n_blocks
        best = _best(vectors[block], state, is_free[block])
        is_free[block][best] = False
        picks[t] = blocks[block][best]
        state += mean - unit[picks[t]]
        # state = mean + (t + 1) * mean - sum of the picks
        distance[t] = np.linalg.norm(state - mean) / (t + 1)
    return picks, distance


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
