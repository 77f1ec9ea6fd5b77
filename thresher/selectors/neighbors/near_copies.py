"""How densely rows lie together, and near-copies put behind the rows that they are near to."""

from __future__ import annotations

from typing import Any

import numpy as np

from thresher.numeric.arrays import Bool, Float64, Int64
from thresher.numeric.numba_jit import jit
from thresher.selectors.neighbors.csr import Graph


def compute_density(graph: Graph, size: Int64, width: float) -> Float64:
    """Return how many rows lie at each, (u,) at least 1: sum of size (1 - d^2 / width^2)+.

    Args:
        graph: cosines of u distinct rows, each with itself.
        size: (u,) how many rows are equal to each, itself counted.
        width: distance at which a neighbor no longer counts.
    """
    kernel = np.maximum(0, 1 - (2 - 2 * graph.similarity.astype(np.float64)) / width**2)
    row = np.repeat(np.arange(len(size)), np.diff(graph.start))
    # the cosine with itself is 1 but for rounding, and 0 of a zero row, which is alone
    is_other = graph.row != row
    density = size.astype(np.float64)
    density += np.bincount(row[is_other], (kernel * size[graph.row])[is_other], minlength=len(size))
    return density


def find_near_copies(order: Int64, graph: Graph, least: float) -> Bool:
    """Return which rows are near an earlier row that is no such copy itself, (u,).

    Args:
        order: (u,) all rows, the first to come first.
        graph: cosines of these rows.
        least: cosine from which on two rows are near.
    """
    is_copy = np.zeros(len(order), np.bool_)
    is_placed = np.zeros(len(order), np.bool_)
    _mark_copies(order, graph.start, graph.row, graph.similarity, least, is_placed, is_copy)
    return is_copy


@jit
def _mark_copies(order: Any, start: Any, row: Any, similarity: Any, least: Any, is_placed: Any, is_copy: Any) -> None:
    for i in order:
        for e in range(start[i], start[i + 1]):
            # a placed neighbor takes this row's place
            if row[e] != i and similarity[e] >= least and is_placed[row[e]]:
                is_copy[i] = True
                break
        is_placed[i] = not is_copy[i]
