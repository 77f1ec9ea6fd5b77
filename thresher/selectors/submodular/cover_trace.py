"""Which pick became the nearest of each row, and when, read off a kernel after a greedy run."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from thresher.numeric.arrays import Float32, Float64, Int32, Int64
from thresher.numeric.numba_jit import jit
from thresher.numeric.threads import count_threads
from thresher.selectors.neighbors.csr import Graph
from thresher.subset.cover_history import CoverHistory

CELLS = 1 << 22  # similarities looked at per block
N_CHUNKS = 64  # of rows, dealt out to the threads
NO_PICK = np.iinfo(np.int32).max  # rank of a row that is none


def trace_cover(
    kernel: Float32 | Graph,
    picks: Int64,
    floor: Float64,
    group: Int64 | None = None,
    marks: dict[str, Int64] | None = None,
) -> CoverHistory:
    """Return what each pick became the nearest of: of equally near picks, the first.

    Args:
        kernel: (u, u), or a symmetric graph.
        picks: (k,) rows of it, in their order.
        floor: (u,) similarity to the nearest existing row.
        group: (n,) which of the u rows each row of the pool is, None where they are the same.
        marks: as in `CoverHistory`.
    """
    at_least = floor.astype(np.float32)
    trace = _trace_graph if isinstance(kernel, Graph) else _trace_dense
    start, rank, similarity = trace(kernel, picks, at_least)
    return CoverHistory(start=start, rank=rank, similarity=similarity, floor=floor, group=group, marks=marks or {})


def rank_picks(picks: Int64, n: int) -> Int32:
    """Return the place of each row among the picks, (n,); NO_PICK for other rows."""
    ranks = np.full(n, NO_PICK, np.int32)
    ranks[picks] = np.arange(len(picks), dtype=np.int32)
    return ranks


def _trace_dense(kernel: Any, picks: Int64, floor: Float32) -> tuple[Int64, Int32, Float32]:
    n, n_rows = len(kernel), max(1, CELLS // max(len(picks), 1))
    counts, ranks, similarities = np.zeros(n + 1, np.int64), [], []
    for first in range(0, n, n_rows):
        lines = np.column_stack([floor[first : first + n_rows], kernel[first : first + n_rows][:, picks]])
        before = np.maximum.accumulate(lines[:, :-1], axis=1)
        row, rank = np.nonzero(lines[:, 1:] > before)
        counts[first + 1 : first + 1 + len(lines)] = np.bincount(row, minlength=len(lines))
        ranks.append(rank.astype(np.int32))
        similarities.append(lines[row, rank + 1])
    return np.cumsum(counts), np.concatenate(ranks), np.concatenate(similarities)


def _trace_graph(graph: Any, picks: Int64, floor: Float32) -> tuple[Int64, Int32, Float32]:
    n = len(graph.start) - 1
    ranks = rank_picks(picks, n)
    edges = np.linspace(0, n, N_CHUNKS + 1).astype(np.int64)
    chunks = list(zip(edges[:-1], edges[1:], strict=True))
    start = np.zeros(n + 1, np.int64)
    nothing = np.empty(0, np.int32), np.empty(0, np.float32)
    with ThreadPoolExecutor(count_threads()) as pool:
        list(pool.map(lambda chunk: _find_nearer(graph, ranks, floor, chunk, start, *nothing, True), chunks))
        start = np.cumsum(start)
        rank, similarity = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
        list(pool.map(lambda chunk: _find_nearer(graph, ranks, floor, chunk, start, rank, similarity, False), chunks))
    return start, rank, similarity


@jit
def _find_nearer(
    graph: Any, ranks: Any, floor: Any, chunk: Any, start: Any, rank: Any, similarity: Any, is_counting: Any
) -> None:
    """Find the picks that became the nearest of some rows, the last one first.

    When counting, their number goes to `start[i + 1]`; else they go to their places.
    """
    for i in range(chunk[0], chunk[1]):
        before = NO_PICK
        n_found = 0
        while True:
            # the nearest of the picks before that one; of equals the first
            best, nearest = NO_PICK, floor[i]
            for e in range(graph.start[i], graph.start[i + 1]):
                r, s = ranks[graph.row[e]], graph.similarity[e]
                if r < before and (s > nearest or (s == nearest and r < best < NO_PICK)):
                    best, nearest = r, s
            if best == NO_PICK:
                break
            n_found += 1
            if not is_counting:
                at = start[i + 1] - n_found
                rank[at], similarity[at] = best, nearest
            before = best
        if is_counting:
            start[i + 1] = n_found
