"""Which row greedy takes next: the largest gain, that of a sample, or the first over a threshold.

The engine keeps every gain exact up to float32 rounding. These rules only choose, and none of them
looks at how many picks will be made, so that the ranking for k is the beginning of the ranking for
any larger number.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thresher.numeric.arrays import Float64, Int64
from thresher.numeric.numba_jit import jit
from thresher.selectors.submodular.optimizers import OPTIMIZERS

LAZY, STOCHASTIC, THRESHOLD = range(len(OPTIMIZERS))

CLOSE = 1e-6  # gains within CLOSE * (1 + gain) may be equal: about ten times the float32 error
EQUAL = 1e-11  # gains within EQUAL * (1 + gain) in float64 are ties
NOTHING = 1e-6  # a gain below the resolution of one float32 similarity counts as 0
PICKED = -1e300  # value of a row that is picked already
ANYTHING = -1e299  # any row that is not is worth more
N_COMPARED = 64  # at most so many close candidates (the lowest rows) are compared in float64
N_NEAR = 256  # at most so many candidates are returned
BLOCK = 64  # rows per block of the search for the largest gain


class PickRule(NamedTuple):
    """State of a rule; the arrays are updated in place.

    Attributes:
        kind: LAZY, STOCHASTIC or THRESHOLD.
        epsilon: what the rule gives away of the guarantee 1 - 1/e.
        rng: draws the samples.
        state: (4,) float64: picks made, threshold (0 before the first pick), least threshold, next
            row to look at.
        remaining: (n,) int64, rows not picked yet in its first `n_remaining[0]` places.
        n_remaining: (1,) int64.
    """

    kind: int
    epsilon: float
    rng: np.random.Generator
    state: Float64
    remaining: Int64
    n_remaining: Int64


def start_pick_rule(optimizer: str, epsilon: float, rng: np.random.Generator, is_pick: NDArray[np.bool_]) -> PickRule:
    """Return the state before the first pick; rows of `is_pick` are never chosen."""
    left = np.flatnonzero(~is_pick).astype(np.int64)
    kind = OPTIMIZERS.index(optimizer)
    return PickRule(kind, float(epsilon), rng, np.zeros(4), left, np.array([len(left)], np.int64))


@jit
def find_block_maximum(gain: Any, bonus: Any, b: Any) -> Any:
    """Return the largest value among the rows of block b."""
    most = -np.inf
    for v in range(b * BLOCK, min(len(gain), (b + 1) * BLOCK)):
        most = max(most, gain[v] + bonus[v])
    return most


@jit
def build_bounds(gain: Any, bonus: Any) -> Any:
    """Return a tree of maxima: node m is the larger of 2 m and 2 m + 1, leaves are blocks."""
    n_blocks = (len(gain) + BLOCK - 1) // BLOCK
    # a complete binary tree needs a power of two of leaves
    half = 1
    while half < n_blocks:
        half *= 2
    bound = np.full(2 * half, -np.inf)
    for b in range(n_blocks):
        bound[half + b] = find_block_maximum(gain, bonus, b)
    # inner nodes from the bottom up, so that children are known
    for m in range(half - 1, 0, -1):
        bound[m] = max(bound[2 * m], bound[2 * m + 1])
    return bound


@jit
def set_bound(bound: Any, b: Any, value: Any) -> None:
    """Give block b another bound."""
    # the leaf of the block, then every node above it
    m = len(bound) // 2 + b
    bound[m] = value
    m //= 2
    while m > 0:
        bound[m] = max(bound[2 * m], bound[2 * m + 1])
        m //= 2


@jit
def largest(gain: Any, bonus: Any, bound: Any) -> Any:
    """Return the largest value.

    `bound` bounds each block from above: gains only fall, so a stale maximum does.
    """
    half = len(bound) // 2
    while True:
        # walk down from the root to the block with the largest bound
        m = 1
        while m < half:
            m = 2 * m if bound[2 * m] >= bound[2 * m + 1] else 2 * m + 1
        # the bound may be stale: compare it with what the block holds now
        most = find_block_maximum(gain, bonus, m - half)
        if most == bound[m]:
            return most
        # it was: lower it and walk again
        set_bound(bound, m - half, most)


@jit
def _near_largest(gain: Any, bonus: Any, bound: Any, low: Any) -> Any:
    """Return the rows of value at least `low`, ascending: at most N_NEAR, the lowest ones."""
    near = np.empty(N_NEAR, np.int64)
    n_near = 0
    half = len(bound) // 2
    # walk through the tree from left to right, past every part that cannot reach `low`
    m = 1
    while m > 0:
        if bound[m] >= low and m < half:
            m = 2 * m
            continue
        if bound[m] >= low:
            b = m - half
            for v in range(b * BLOCK, min(len(gain), (b + 1) * BLOCK)):
                if gain[v] + bonus[v] >= low and n_near < N_NEAR:
                    near[n_near] = v
                    n_near += 1
        # up from right children, then over to the right; past the last one that leads to 0
        while m & 1:
            m //= 2
        m += m > 0
    return near[:n_near]


@jit
def draw_near_largest(rule: Any, gain: Any, bonus: Any, slack: Any) -> Any:
    """Draw n ln(1 / epsilon) / t of the remaining rows for pick t.

    Return those next to the largest value.
    """
    left, n_left = rule.remaining, rule.n_remaining[0]
    t = rule.state[0] + 1
    size = min(n_left, max(1, int(np.ceil(len(gain) * np.log(1 / rule.epsilon) / t))))
    # the first `size` places become a random sample without replacement
    if size < n_left:
        for m in range(size):  # the beginning of a shuffle
            other = m + int(rule.rng.random() * (n_left - m))
            left[m], left[other] = left[other], left[m]
    # the largest value in the sample
    most = -np.inf
    for m in range(size):
        most = max(most, gain[left[m]] + bonus[left[m]])
    # rows of the sample that may be equal to it within float32
    near = np.empty(N_NEAR, np.int64)
    n_near = 0
    for m in range(size):
        if gain[left[m]] + bonus[left[m]] >= most - CLOSE * (1 + abs(most)) - slack and n_near < N_NEAR:
            near[n_near] = left[m]
            n_near += 1
    return np.sort(near[:n_near])


@jit
def find_first_over_threshold(rule: Any, gain: Any, bonus: Any, most: Any) -> Any:
    """Return the next row in order that reaches the threshold, which falls by epsilon a round."""
    state = rule.state
    # first pick: start at the largest gain; end when thresholds are a share epsilon / n of it
    if state[1] == 0:
        state[1], state[2] = most, rule.epsilon / len(gain) * most
    while state[1] >= state[2]:
        # go on behind the last pick; a round ends at the last row
        for v in range(int(state[3]), len(gain)):
            if gain[v] + bonus[v] >= state[1]:
                state[3] = v + 1
                return np.full(1, v)
        # nothing reaches a threshold above the largest gain
        state[1] = min(state[1] * (1 - rule.epsilon), most)
        # next round from the first row
        state[3] = 0
    return np.empty(0, np.int64)


@jit
def find_near_best(rule: Any, gain: Any, bonus: Any, bound: Any, least: Any, slack: Any) -> Any:
    """Return the candidates for the next pick, ascending: values that may equal the best.

    Args:
        rule: the rule.
        gain: (n,) float64, PICKED for picks.
        bonus: (n,) float64.
        bound: tree of upper bounds of each block, updated.
        least: values up to this one are nothing.
        slack: error of the gains beyond the float32 error of similarities.

    Returns:
        (m,) int64, m <= N_NEAR; empty when no row gains anything any more.
    """
    most = largest(gain, bonus, bound)
    if most <= least:
        return np.empty(0, np.int64)
    if rule.kind == STOCHASTIC:
        return draw_near_largest(rule, gain, bonus, slack)
    if rule.kind == THRESHOLD:
        return find_first_over_threshold(rule, gain, bonus, most)
    return _near_largest(gain, bonus, bound, most - CLOSE * (1 + abs(most)) - slack)


@jit
def note_pick(rule: Any, pick: Any) -> None:
    """Tell the rule what was picked."""
    rule.state[0] += 1
    if rule.kind != STOCHASTIC:
        return
    # the last remaining row takes the place of the pick
    for m in range(rule.n_remaining[0]):
        if rule.remaining[m] == pick:
            rule.n_remaining[0] -= 1
            rule.remaining[m] = rule.remaining[rule.n_remaining[0]]
            return


@jit
def find_first_best(rows: Any, gain: Any, equal: Any) -> Any:
    """Position in `rows` (ascending) of the largest gain; equal gains go to the first."""
    most = gain.max()
    for m in range(len(rows)):
        if gain[m] >= most - equal * (1.0 + abs(most)):
            return m
    return 0
