"""The symmetric graph of nearest neighbors, built without sorting all pairs at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from thresher.numeric.numba_jit import jit
from thresher.numeric.threads import count_threads
from thresher.selectors.neighbors.csr import Graph

N_CHUNKS = 64  # of rows, dealt out to the threads


def build_symmetric_graph(
    unit: NDArray[np.float32], nearest: NDArray[np.int32], order: NDArray[np.int32] | None = None
) -> Graph:
    """Return the pairs (i, nearest[i]) of cosine > 0 both ways, and (i, i); rows ascending.

    Cosines are summed in float64 in a fixed order: unlike those of a matrix product, the same on
    every machine. Cost: O(n k (k + d)) time; 8 bytes per entry of the graph.

    Args:
        unit: (n, d) float32 rows of length 1 (or 0).
        nearest: (n, k) int32, for each row different rows, itself or not; -1 for none.
        order: (n,) int32, all rows; those close to one another share neighbors, which are then read
            from memory once. It changes the time and nothing else.
    """
    n = len(unit)
    start, row = _join_both_ways(nearest)
    similarity = np.empty(start[-1], np.float32)
    order = np.arange(n, dtype=np.int32) if order is None else order
    with ThreadPoolExecutor(count_threads()) as pool:
        list(pool.map(lambda part: _upper(unit, start, row, similarity, order, part), _chunks(n)))
        list(pool.map(lambda part: _lower(start, row, similarity, order, part), _chunks(n)))
    n_kept = _keep_positive(start, row, similarity)
    return Graph(start, row[:n_kept], similarity[:n_kept])


def _chunks(n: int) -> list[tuple[int, int]]:
    edges = np.linspace(0, n, N_CHUNKS + 1).astype(np.int64).tolist()
    return list(pairwise(edges))


def _join_both_ways(nearest: NDArray[np.int32]) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Return where each row starts, (n + 1,), and whom it names or is named by, ascending."""
    n = len(nearest)
    named = np.zeros(n + 1, np.int64)
    _count_names(nearest, named)
    named = np.cumsum(named)
    namer = np.empty(named[-1], np.int32)
    _fill_names(nearest, named[:-1].copy(), namer)
    start, nothing = np.zeros(n + 1, np.int64), np.empty(0, np.int32)
    with ThreadPoolExecutor(count_threads()) as pool:
        list(pool.map(lambda part: _merge(nearest, named, namer, part, start, nothing, True), _chunks(n)))
        start = np.cumsum(start)
        row = np.empty(start[-1], np.int32)
        list(pool.map(lambda part: _merge(nearest, named, namer, part, start, row, False), _chunks(n)))
    return start, row


@jit
def _count_names(nearest: Any, count: Any) -> None:
    """Count the rows that name j at j + 1."""
    for i in range(nearest.shape[0]):
        for m in range(nearest.shape[1]):
            j = nearest[i, m]
            if j >= 0 and j != i:
                count[j + 1] += 1


@jit
def _fill_names(nearest: Any, at: Any, namer: Any) -> None:
    """Write who names each row, ascending; `at[j]` is the next free place of row j."""
    for i in range(nearest.shape[0]):
        for m in range(nearest.shape[1]):
            j = nearest[i, m]
            if j >= 0 and j != i:
                namer[at[j]] = i
                at[j] += 1


@jit
def _merge(nearest: Any, named: Any, namer: Any, part: Any, start: Any, row: Any, is_counting: Any) -> None:
    """Merge what some rows name, what names them and themselves, each once.

    When counting, the numbers go to `start[i + 1]`; else the rows go to their places.
    """
    k = nearest.shape[1]
    own = np.empty(k + 1, np.int32)
    for i in range(part[0], part[1]):
        n_own = 1
        own[0] = i
        for m in range(k):
            if nearest[i, m] >= 0 and nearest[i, m] != i:
                own[n_own] = nearest[i, m]
                n_own += 1
        own[:n_own].sort()
        a, b, n_merged = 0, named[i], 0
        while a < n_own or b < named[i + 1]:
            # the lower of the two heads; both move on where they are equal
            if b == named[i + 1] or (a < n_own and own[a] <= namer[b]):
                least = own[a]
                a += 1
                if b < named[i + 1] and namer[b] == least:
                    b += 1
            else:
                least = namer[b]
                b += 1
            if not is_counting:
                row[start[i] + n_merged] = least
            n_merged += 1
        if is_counting:
            start[i + 1] = n_merged


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
def _upper(unit: Any, start: Any, row: Any, similarity: Any, order: Any, part: Any) -> None:
    """Compute the entries of some rows on and above the diagonal."""
    for i in order[part[0] : part[1]]:
        for e in range(start[i], start[i + 1]):
            if row[e] >= i:
                similarity[e] = _cosine(unit[i], unit[row[e]])


@jit
def _lower(start: Any, row: Any, similarity: Any, order: Any, part: Any) -> None:
    """Copy the entries of some rows below the diagonal from where they lie above it."""
    for i in order[part[0] : part[1]]:
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
