"""Whose turn it is: the order in which groups of rows give their next row."""

from __future__ import annotations

import heapq
from typing import Literal

import numpy as np

from thresher.numeric.arrays import Float64, Int64

Balance = Literal["sqrt", "proportional", "balanced"]


def plan_turns(balance: Balance, sizes: Int64, n_turns: int) -> Int64:
    """Return the group of each turn, (n_turns,), for groups of the given sizes.

    Args:
        balance: "balanced" gives all groups equal turns, "proportional" turns as the groups' sizes,
            "sqrt" as the square roots of these.
        sizes: (g,) rows of each group.
        n_turns: at most all rows.
    """
    if balance == "balanced":
        return plan_equal_turns(sizes, n_turns)
    if balance == "proportional":
        return plan_proportional_turns(sizes, n_turns)
    return plan_weighted_turns(sizes, np.sqrt(sizes), n_turns)


def plan_weighted_turns(sizes: Int64, weights: Float64, n_turns: int) -> Int64:
    """Return the group of each turn, (n_turns,): the r-th row of a group at (r - 1/2) / weight.

    The divisor method of Webster and Sainte-Lague (Balinski and Young 1982): no group loses a place
    when the total grows. A group that is used up leaves its turns to the others.
    """
    group = np.repeat(np.arange(len(sizes)), sizes)
    turn = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return group[np.lexsort((group, (turn + 0.5) / weights[group]))][:n_turns].astype(np.int64)


def plan_equal_turns(sizes: Int64, n_turns: int) -> Int64:
    """Return the group of each turn, (n_turns,): round robin over groups that have rows left."""
    group = np.repeat(np.arange(len(sizes)), sizes)
    turn = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return group[np.lexsort((group, turn))][:n_turns].astype(np.int64)


def plan_proportional_turns(sizes: Int64, n_turns: int) -> Int64:
    """Return each turn's group, (n_turns,): after k turns, g had floor or ceil of k n_g / n.

    The j-th row of a group may come when the share exceeds j - 1 and must come before it exceeds j;
    serving the earliest deadline meets all of them (Baruah, Cohen, Plaxton and Varvel 1996,
    doi:10.1007/BF01940883).
    """
    n = int(sizes.sum())
    size = [int(s) for s in sizes]
    n_taken = [0] * len(size)
    waiting = [(1, g) for g in range(len(size)) if size[g]]  # (turn from which it may come, group)
    ready: list[tuple[int, int]] = []  # (turn by which it must come, group)
    turns = np.empty(n_turns, np.int64)
    for turn in range(1, n_turns + 1):
        while waiting and waiting[0][0] <= turn:
            _, g = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(n_taken[g] + 1) * n // size[g]), g))
        _, g = heapq.heappop(ready)
        turns[turn - 1] = g
        n_taken[g] += 1
        if n_taken[g] < size[g]:
            heapq.heappush(waiting, (n_taken[g] * n // size[g] + 1, g))
    return turns


def take_turns(order: Int64, group: Int64, turns: Int64) -> Int64:
    """Return the row of each turn.

    Args:
        order: (n,) all rows, those of one group in the order in which it gives them.
        group: (n,) group of each row.
        turns: (k,) group of each turn.
    """
    queue = order[np.argsort(group[order], kind="stable")]  # group by group
    sizes = np.bincount(group, minlength=int(turns.max()) + 1)
    begin = np.cumsum(sizes) - sizes
    by_group = np.argsort(turns, kind="stable")
    n_turns = np.bincount(turns, minlength=len(sizes))
    nth = np.empty(len(turns), np.int64)  # how many turns its group had before
    nth[by_group] = np.arange(len(turns)) - np.repeat(np.cumsum(n_turns) - n_turns, n_turns)
    rows: Int64 = queue[begin[turns] + nth]
    return rows
