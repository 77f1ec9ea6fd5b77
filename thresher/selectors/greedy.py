"""The greedy engine of facility location: weighted cover of rows by similarity, exact, without duplicates.

Works on a sparse symmetric graph. The gain of every row is kept exact: when a pick raises the cover of a row, each
neighbour of that row loses what it could have gained there. A nearest-neighbour graph enters here directly; a dense
kernel after a few picks, when most pairs can no longer change anything (`dense_kernel`).

A row may bring a bonus of its own besides what it covers, such as its quality; it is counted in units of the gain.

Similarities are float32, sums float64. Gains closer than float32 can tell apart are recomputed from the vectors in
float64, and what is still equal goes to the lowest row, so that picks depend neither on the BLAS nor on threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from thresher.selectors.compiled import compiled

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

N_CHUNKS = 16  # row chunks of a pass: fixed, so that sums do not depend on the number of threads
CLOSE = 1e-6  # gains within CLOSE * (1 + gain) are compared in float64: about ten times the float32 error
EQUAL = 1e-11  # gains within EQUAL * (1 + gain) in float64 are ties
NOTHING = 1e-6  # a gain below the resolution of one float32 similarity counts as 0
N_COMPARED = 64  # at most so many close candidates (the lowest rows) are compared
BLOCK = 64  # rows per block of the search for the largest gain


class Graph(NamedTuple):
    """Symmetric sparse similarities: row i has entries `start[i]:start[i + 1]`, itself included."""

    start: Int64  # (n + 1,)
    row: Int32  # (nnz,)
    similarity: Float32  # (nnz,), > 0


class Cover(NamedTuple):
    """State of a greedy run over n rows; the arrays are updated in place.

    Attributes:
        vectors: (n, d) float32, any length.
        inverse_norm: (n,) float64, so that cosines can be recomputed in float64.
        weight: (n,) float32, how often each row counts.
        floor: (n,) float64 >= 0, cosine with what the user already has, 0 if nothing.
        best: (n,) float32, similarity of each row to its nearest pick or to the floor.
        by: (n,) int64, that pick, -1 while none.
        is_pick: (n,) bool.
    """

    vectors: Float32
    inverse_norm: Float64
    weight: Float32
    floor: Float64
    best: Float32
    by: Int64
    is_pick: NDArray[np.bool_]


def new_cover(vectors: Float32, inverse_norm: Float64, weight: Float32, floor: Float64) -> Cover:
    """Return the state before the first pick."""
    n = len(vectors)
    none = np.full(n, -1, np.int64)
    return Cover(vectors, inverse_norm, weight, floor, floor.astype(np.float32), none, np.zeros(n, np.bool_))


@compiled
def _dot(x: Any, y: Any) -> Any:
    total = 0.0
    for m in range(len(x)):
        total += np.float64(x[m]) * np.float64(y[m])
    return total


@compiled
def exact_gain(cover: Any, v: Any, rows: Any) -> Any:
    """Gain of v in float64; `rows` are all that v may improve."""
    total = 0.0
    for i in rows:
        now = cover.floor[i]
        if cover.by[i] >= 0:
            b = cover.by[i]
            now = max(now, _dot(cover.vectors[i], cover.vectors[b]) * cover.inverse_norm[i] * cover.inverse_norm[b])
        cosine = _dot(cover.vectors[i], cover.vectors[v]) * cover.inverse_norm[i] * cover.inverse_norm[v]
        if cosine > now:
            total += (cosine - now) * cover.weight[i]
    return total


@compiled
def first_of_best(rows: Any, gain: Any) -> Any:
    """Position in `rows` (ascending) of the largest gain; equal gains go to the first."""
    most = gain.max()
    for m in range(len(rows)):
        if gain[m] >= most - EQUAL * (1.0 + most):
            return m
    return 0


@compiled
def _keep_live(graph: Any, i: Any, end: Any, best: Any) -> Any:
    """Move the entries of row i that still exceed its cover to the front; return where they end."""
    live = graph.start[i]
    for e in range(live, end):  # without a branch: every entry is swapped, `live` moves past the good ones
        v, similarity = graph.row[e], graph.similarity[e]
        graph.row[e], graph.similarity[e] = graph.row[live], graph.similarity[live]
        graph.row[live], graph.similarity[live] = v, similarity
        live += similarity > best
    return live


@compiled
def _first_gains(graph: Any, cover: Any, chunk: Any, gain: Any, live_end: Any) -> None:
    """Fill in the gains of the rows of a chunk, and move their live entries to the front."""
    for v in range(chunk[0], chunk[1]):
        total = 0.0
        for e in range(graph.start[v], graph.start[v + 1]):
            i = graph.row[e]
            total += max(np.float64(graph.similarity[e]) - np.float64(cover.best[i]), 0.0) * cover.weight[i]
        gain[v] = -np.inf if cover.is_pick[v] else total
        live_end[v] = _keep_live(graph, v, graph.start[v + 1], cover.best[v])


@compiled
def _largest_of_block(gain: Any, bonus: Any, b: Any) -> Any:
    most = -np.inf
    for v in range(b * BLOCK, min(len(gain), (b + 1) * BLOCK)):
        most = max(most, gain[v] + bonus[v])
    return most


@compiled
def _largest(gain: Any, bonus: Any, bound: Any) -> Any:
    """Largest value. `bound` holds an upper bound per block: gains only fall, so a stale maximum is one."""
    while True:
        b = 0
        for m in range(1, len(bound)):
            if bound[m] > bound[b]:
                b = m
        most = _largest_of_block(gain, bonus, b)
        if most == bound[b]:
            return most
        bound[b] = most


@compiled
def _choose(graph: Any, cover: Any, gain: Any, bonus: Any, bound: Any, most: Any) -> Any:
    """Row of the largest value; those within float32 error of it are compared in float64."""
    close = np.empty(N_COMPARED, np.int64)
    m = 0
    low = most - CLOSE * (1.0 + most)
    for b in range(len(bound)):
        if bound[b] < low:
            continue
        for v in range(b * BLOCK, min(len(gain), (b + 1) * BLOCK)):
            if gain[v] + bonus[v] >= low and m < N_COMPARED:
                close[m] = v
                m += 1
    if m == 1:
        return close[0]
    exact = np.empty(m)
    for c in range(m):
        v = close[c]
        exact[c] = exact_gain(cover, v, graph.row[graph.start[v] : graph.start[v + 1]]) + bonus[v]
    return close[first_of_best(close[:m], exact)]


@compiled
def _add(graph: Any, cover: Any, pick: Any, gain: Any, live_end: Any) -> Any:
    """Add the pick; take from each candidate what it loses on the rows whose cover rises. Returns pairs visited."""
    n_visited = 0
    begin, end = graph.start[pick], graph.start[pick + 1]
    rows, similarity = graph.row[begin:end].copy(), graph.similarity[begin:end].copy()  # its own row is reordered below
    for i, now in zip(rows, similarity):  # noqa: B905  (numba has no strict zip)
        was = cover.best[i]
        if now <= was:
            continue
        cover.best[i] = now
        cover.by[i] = pick
        n_visited += live_end[i] - graph.start[i]
        for e in range(graph.start[i], live_end[i]):
            lost = np.float64(min(graph.similarity[e], now)) - np.float64(was)
            gain[graph.row[e]] -= lost * cover.weight[i]
        live_end[i] = _keep_live(graph, i, live_end[i], now)
    cover.is_pick[pick] = True
    gain[pick] = -np.inf
    return n_visited


@compiled
def _graph_loop(
    graph: Any, cover: Any, gain: Any, bonus: Any, least: Any, live_end: Any, picks: Any, gains: Any
) -> Any:
    n_blocks = (len(gain) + BLOCK - 1) // BLOCK
    bound = np.empty(n_blocks)
    for b in range(n_blocks):
        bound[b] = _largest_of_block(gain, bonus, b)
    n_visited = 0
    for t in range(len(picks)):
        most = _largest(gain, bonus, bound)
        if most <= least:
            return t, n_visited
        pick = _choose(graph, cover, gain, bonus, bound, most)
        picks[t], gains[t] = pick, gain[pick]
        n_visited += _add(graph, cover, pick, gain, live_end)
    return len(picks), n_visited


def graph_stage(graph: Graph, cover: Cover, n_picks: int, bonus: Float64 | None = None) -> tuple[Int64, Float64, int]:
    """Make up to `n_picks` greedy picks from a sparse graph.

    Args:
        graph: symmetric similarities; the order within its rows is changed.
        cover: state, updated.
        n_picks: how many.
        bonus: (n,) float64 >= 0, what each row is worth besides; with it, rows are picked that cover nothing.

    Returns:
        The picks, their gains without the bonus, and the number of pairs visited; fewer picks when nothing more can be
        gained.
    """
    n = len(cover.best)
    gain, live_end = np.empty(n), np.empty(n, np.int64)
    edges = np.linspace(0, n, N_CHUNKS + 1).astype(np.int64)
    with ThreadPoolExecutor(get_num_threads()) as pool:
        chunks = zip(edges[:-1], edges[1:], strict=True)
        list(pool.map(lambda chunk: _first_gains(graph, cover, chunk, gain, live_end), chunks))
    picks, gains = np.empty(n_picks, np.int64), np.empty(n_picks)
    own, least = (np.zeros(n), NOTHING) if bonus is None else (bonus, -np.inf)
    n_made, n_visited = _graph_loop(graph, cover, gain, own, least, live_end, picks, gains)
    return picks[:n_made], gains[:n_made], int(n_visited)
