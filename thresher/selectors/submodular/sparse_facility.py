"""Greedy cover by any sparse kernel, symmetric or not, in float64; FLMI and FLCG transform it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Float64, Int64

NOTHING = 1e-10


class Pairs(NamedTuple):
    """What candidates do for rows.

    Attributes:
        row, candidate: (p,) int64.
        worth: (p,) float64; what is not above 0 counts as 0.
    """

    row: Int64
    candidate: Int64
    worth: Float64


class Covered(NamedTuple):
    """What a greedy run gives.

    Attributes:
        picks: (k,) int64, those that gain nothing any more included.
        gains: (k,) float64, what each pick adds to the objective.
        by: (n,) int64, the pick that does most for each row, -1 where none does anything.
        n_with_gain: picks before the first that gains nothing.
        n_visited: pairs that were looked at.
    """

    picks: Int64
    gains: Float64
    by: Int64
    n_with_gain: int
    n_visited: int


def limit_to_target(pairs: Pairs, target: Float64, eta: float) -> Pairs:
    """Return pairs whose cover is FLMI: sum_i min(max_{j in A} s_ij, eta max_{q in Q} s_iq).

    Args:
        pairs: s, of rows and candidates.
        target: (n,) largest worth of a target row for each row.
        eta: how far above it a pick still counts.

    Source: Iyer, Khargoankar, Bilmes and Asanani 2021 (ALT), arXiv:2006.15412.
    """
    return pairs._replace(worth=np.minimum(pairs.worth, eta * target[pairs.row]))


def subtract_existing(pairs: Pairs, existing: Float64, nu: float) -> Pairs:
    """Return pairs whose cover is FLCG: sum_i max(max_{j in A} s_ij - nu max_{p in P} s_ip, 0).

    Args:
        pairs: s, of rows and candidates.
        existing: (n,) largest worth of a row that is there already for each row.
        nu: how much of it is taken off.

    Source: Iyer, Khargoankar, Bilmes and Asanani 2021 (ALT), arXiv:2006.15412.
    """
    return pairs._replace(worth=pairs.worth - nu * existing[pairs.row])


def cover_pairs(pairs: Pairs, candidates: Int64, n_picks: int, n: int) -> Covered:
    """Maximize the sum over rows of the largest worth among the picks, greedily.

    Ties go to the lowest candidate. When nothing more can be gained, those follow that would do
    most alone.

    Args:
        pairs: the kernel; pairs with a row or candidate that may not count are left out by the
            caller.
        candidates: which may be picked, ascending.
        n_picks: how many, at most as many as there are candidates.
        n: rows.
    """
    from thresher.selectors.neighbors.csr import Graph
    from thresher.selectors.submodular.greedy import CoverageState, pick_from_graph

    # these compile on first use
    from thresher.selectors.submodular.pick_rules import start_pick_rule

    def lists(of: Int64, other: Int64, worth: Float64) -> Graph:
        order = np.lexsort((other, of))
        start = np.searchsorted(of[order], np.arange(n + 1)).astype(np.int64)
        return Graph(start, other[order].astype(np.int32), worth[order])

    counts = pairs.worth > 0
    row, candidate, worth = pairs.row[counts], pairs.candidate[counts], pairs.worth[counts].astype(np.float64)
    by_row, by_candidate = lists(row, candidate, worth), lists(candidate, row, worth)
    is_pick = np.ones(n, dtype=np.bool_)
    is_pick[candidates] = False
    zero, never = np.zeros(n), np.full(n, 1e300)
    open_from = np.zeros(n)
    by = np.full(n, -1, dtype=np.int64)
    weight, vectors = np.ones(n, np.float32), np.empty((n, 0), np.float32)
    cover = CoverageState(vectors, zero, weight, zero, open_from, never, open_from, by, is_pick, False, by[:0])
    alone = np.bincount(candidate, weights=worth, minlength=n)
    rule = start_pick_rule("lazy", 0.5, np.random.default_rng(0), is_pick)  # draws nothing
    picks, gains, n_visited = pick_from_graph(by_row, cover, n_picks, rule, by_candidate=by_candidate, least=NOTHING)
    left = candidates[~cover.is_pick[candidates]]
    rest = left[np.argsort(-alone[left].round(10), kind="stable")][: n_picks - len(picks)]
    gains = np.concatenate([gains, np.zeros(len(rest))])
    return Covered(np.concatenate([picks, rest]), gains, by, len(picks), n_visited)
