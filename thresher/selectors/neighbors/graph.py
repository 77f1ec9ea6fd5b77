"""The symmetric graph of nearest neighbors, built without sorting all pairs at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thresher.numeric.numba_jit import jit
from thresher.numeric.threads import count_threads
from thresher.selectors.neighbors.csr import Graph

N_CHUNKS = 64  # of rows, dealt out to the threads


def build_symmetric_graph(unit: NDArray[np.float32], nearest: NDArray[np.int32]) -> Graph:
    """Return the pairs (i, nearest[i]) of cosine > 0 both ways, and (i, i); rows ascending.

    Cosines are summed in float64 in a fixed order: unlike those of a matrix product, the same on
    every machine. Cost: O(n k (k + d)) time; 8 bytes per entry of the graph.

    Args:
        unit: (n, d) float32 rows of length 1 (or 0).
        nearest: (n, k) int32, for each row different rows, itself or not; -1 for none.
    """
    n = len(unit)
    count = np.zeros(n + 1, np.int64)
    _count(nearest, count)
    start = np.cumsum(count)
    row = np.empty(start[-1], np.int32)
    _fill(nearest, start[:-1].copy(), row)
    similarity = np.empty(start[-1], np.float32)
    chunks = np.linspace(0, n, N_CHUNKS + 1).astype(np.int64)
    with ThreadPoolExecutor(count_threads()) as pool:
        parts = list(zip(chunks[:-1], chunks[1:], strict=True))
        list(pool.map(lambda part: _upper(unit, start, row, similarity, part), parts))
        list(pool.map(lambda part: _lower(start, row, similarity, part), parts))
    n_kept = _keep_positive(start, row, similarity)
    return Graph(start, row[:n_kept], similarity[:n_kept])


@jit
def _holds(nearest: Any, i: Any, j: Any) -> Any:
    """Tell whether j is among the neighbors of i."""
    for m in range(nearest.shape[1]):  # noqa: SIM110  (numba has no any of a generator)
        if nearest[i, m] == j:
            return True
    return False


@jit
def _count(nearest: Any, count: Any) -> None:
    """Count the entries of each row i of the graph at i + 1."""
    for i in range(len(nearest)):
        count[i + 1] += 1  # itself
        for m in range(nearest.shape[1]):
            j = nearest[i, m]
            if j >= 0 and j != i:
                count[i + 1] += 1
                # j does not name i: the pair gets its second direction here
                if not _holds(nearest, j, i):
                    count[j + 1] += 1


@jit
def _fill(nearest: Any, at: Any, row: Any) -> None:
    """Write the rows of the graph, and sort each."""
    # `at[i]` is the next free place of row i
    begin = at.copy()
    for i in range(len(nearest)):
        row[at[i]] = i
        at[i] += 1
        for m in range(nearest.shape[1]):
            j = nearest[i, m]
            if j >= 0 and j != i:
                row[at[i]] = j
                at[i] += 1
                # the direction from j, unless j names i itself
                if not _holds(nearest, j, i):
                    row[at[j]] = i
                    at[j] += 1
    for i in range(len(nearest)):
        row[begin[i] : at[i]].sort()


@jit
def _cosine(x: Any, y: Any) -> Any:
    """Sum of products in float64, in eight sums side by side."""
    a0 = a1 = a2 = a3 = a4 = a5 = a6 = a7 = 0.0
    whole = len(x) - len(x) % 8
    for m in range(0, whole, 8):
        a0 += np.float64(x[m]) * np.float64(y[m])
        a1 += np.float64(x[m + 1]) * np.float64(y[m + 1])
        a2 += np.float64(x[m + 2]) * np.float64(y[m + 2])
        a3 += np.float64(x[m + 3]) * np.float64(y[m + 3])
        a4 += np.float64(x[m + 4]) * np.float64(y[m + 4])
        a5 += np.float64(x[m + 5]) * np.float64(y[m + 5])
        a6 += np.float64(x[m + 6]) * np.float64(y[m + 6])
        a7 += np.float64(x[m + 7]) * np.float64(y[m + 7])
    for m in range(whole, len(x)):
        a0 += np.float64(x[m]) * np.float64(y[m])
    return ((a0 + a1) + (a2 + a3)) + ((a4 + a5) + (a6 + a7))


@jit
def _upper(unit: Any, start: Any, row: Any, similarity: Any, part: Any) -> None:
    """Compute the entries of some rows on and above the diagonal."""
    for i in range(part[0], part[1]):
        for e in range(start[i], start[i + 1]):
            if row[e] >= i:
                similarity[e] = _cosine(unit[i], unit[row[e]])


@jit
def _lower(start: Any, row: Any, similarity: Any, part: Any) -> None:
    """Copy the entries of some rows below the diagonal from where they lie above it."""
    for i in range(part[0], part[1]):
        for e in range(start[i], start[i + 1]):
            j = row[e]
            # rows ascend: from here on entries are above the diagonal
            if j >= i:
                break
            # where row j holds i
            at = start[j] + np.searchsorted(row[start[j] : start[j + 1]], i)
            similarity[e] = similarity[at]


@jit
def _keep_positive(start: Any, row: Any, similarity: Any) -> Any:
    """Drop entries that are not above 0, in place; returns the number of those left."""
    kept = 0
    begin = start[0]
    for i in range(len(start) - 1):
        # `begin`..`end` is row i as it was; start[i + 1] is overwritten below
        end = start[i + 1]
        for e in range(begin, end):
            if similarity[e] > 0:
                row[kept] = row[e]
                similarity[kept] = similarity[e]
                kept += 1
        begin = end
        start[i + 1] = kept
    return kept
