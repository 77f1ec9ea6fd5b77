"""The symmetric nearest-neighbour graph of a set of rows, with faiss."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from thresher.selectors.compiled import compiled
from thresher.selectors.greedy import Graph

Float32 = NDArray[np.float32]

EXACT_ROWS = 30_000  # up to here every pair is compared; beyond, inverted lists
MIN_RECALL = 0.95  # of the inverted lists, on a sample
N_SAMPLED = 1_000
N_AT_ONCE = 4_096  # rows searched per call: bounds the memory of the answers


class Neighbors(NamedTuple):
    """A graph and how good it is.

    Attributes:
        graph: pairs where one row is among the other's nearest, cosine > 0, and every row with itself.
        search: "flat" (exact) or "inverted lists".
        recall: share of the true nearest neighbours found, measured on a sample; 1.0 for "flat".
    """

    graph: Graph
    search: str
    recall: float


def nearest_neighbors(unit: Float32, n_neighbors: int, rng: np.random.Generator) -> Neighbors:
    """Join each row to its nearest rows by cosine, both ways.

    Args:
        unit: (n, d) float32 rows of length 1 (or 0).
        n_neighbors: per row, itself not counted.
        rng: seeds the inverted lists and draws the sample that measures them.
    """
    import faiss

    n, d = unit.shape
    k = min(n_neighbors + 1, n)  # each row finds itself
    flat = faiss.IndexFlatIP(d)
    if n <= EXACT_ROWS:
        flat.add(unit)
        return Neighbors(_symmetric(unit, _search(flat, unit, k)), "flat", 1.0)
    n_lists = int(4 * n**0.5)
    index = faiss.IndexIVFFlat(flat, d, n_lists, faiss.METRIC_INNER_PRODUCT)
    index.cp.seed = int(rng.integers(1 << 31))
    index.cp.max_points_per_centroid = 64
    index.cp.min_points_per_centroid = 1  # silences a warning; too small a list is only slow
    index.train(unit)
    index.add(unit)
    sample = unit[np.sort(rng.choice(n, N_SAMPLED, replace=False))]
    _, truth = faiss.knn(sample, unit, k, metric=faiss.METRIC_INNER_PRODUCT)
    index.nprobe = 8
    recall = _recall(_search(index, sample, k), truth)
    while recall < MIN_RECALL and index.nprobe < n_lists:
        index.nprobe = min(2 * index.nprobe, n_lists)
        recall = _recall(_search(index, sample, k), truth)
    return Neighbors(_symmetric(unit, _search(index, unit, k)), "inverted lists", recall)


def _search(index: Any, unit: Float32, k: int) -> NDArray[np.int32]:
    """Return the k nearest of each row, (n, k); -1 where the index found fewer."""
    found = np.empty((len(unit), k), np.int32)
    for first in range(0, len(unit), N_AT_ONCE):
        found[first : first + N_AT_ONCE] = index.search(unit[first : first + N_AT_ONCE], k)[1]
    return found


def _recall(found: NDArray[np.int32], truth: NDArray[np.int64]) -> float:
    """Return the share of the true neighbours that were found."""
    hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, truth, strict=True))
    return hits / truth.size


@compiled
def _cosines(unit: Any, low: Any, high: Any, chunk: Any, out: Any) -> None:
    """Cosine of each pair, summed in float64: unlike a matrix product, the same on every machine."""
    for e in range(chunk[0], chunk[1]):
        x, y = unit[low[e]], unit[high[e]]
        total = 0.0
        for m in range(len(x)):
            total += np.float64(x[m]) * np.float64(y[m])
        out[e] = total


@compiled
def _both_ways(low: Any, high: Any, cosine: Any, n: Any) -> Any:
    """Write each pair into the rows of both its ends."""
    start = np.zeros(n + 1, np.int64)
    for e in range(len(low)):
        start[low[e] + 1] += 1
        if low[e] != high[e]:
            start[high[e] + 1] += 1
    start = np.cumsum(start)
    at = start[:-1].copy()
    row, similarity = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
    for e in range(len(low)):
        a, b = low[e], high[e]
        row[at[a]], similarity[at[a]] = b, cosine[e]
        at[a] += 1
        if a != b:
            row[at[b]], similarity[at[b]] = a, cosine[e]
            at[b] += 1
    return start, row, similarity


def _symmetric(unit: Float32, found: NDArray[np.int32]) -> Graph:
    """Return the graph of the directed pairs (i, found[i]), each pair once in both directions, with the diagonal."""
    n = len(unit)
    own = np.arange(n, dtype=np.int64)
    key = np.minimum(own[:, None], found) * n + np.maximum(own[:, None], found)
    key = np.unique(np.concatenate([key[found >= 0], own * n + own]))
    low, high = (key // n).astype(np.int32), (key % n).astype(np.int32)
    del key
    cosine = np.empty(len(low), np.float32)
    edges = np.linspace(0, len(low), 65).astype(np.int64)
    with ThreadPoolExecutor(get_num_threads()) as pool:
        list(pool.map(lambda e: _cosines(unit, low, high, e, cosine), zip(edges[:-1], edges[1:], strict=True)))
    keep = cosine > 0
    return Graph(*_both_ways(low[keep], high[keep], cosine[keep], n))
