"""The greedy engine of facility location: weighted cover of rows by similarity, exact, without duplicates.

Two stages share one state. While most pairs of rows still matter, gains are recomputed from the dense kernel in one
threaded pass per pick (`dense_stage`). After a few picks most pairs can no longer change anything; those that can
become a sparse symmetric graph (`surviving_pairs`), on which gains are kept exact by subtracting, for each row whose
cover improves, what its neighbours lose (`graph_stage`). A nearest-neighbour graph enters at the second stage.

Similarities are float32, sums float64. Gains closer than float32 can tell apart are recomputed from the vectors in
float64, and what is still equal goes to the lowest row, so that picks depend neither on the BLAS nor on threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from thresher.selectors.compiled import compiled, compiled_fast

Float32 = NDArray[np.float32]
Float64 = NDArray[np.float64]
Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]

N_CHUNKS = 16  # row chunks of a pass: fixed, so that sums do not depend on the number of threads
N_DENSE_PICKS = 10  # picks made from the dense kernel; 8 to 16 are equally fast at 5,000 rows
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
def _exact_gain(cover: Any, v: Any, rows: Any) -> Any:
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
def _first_of_best(rows: Any, gain: Any) -> Any:
    """Position in `rows` (ascending) of the largest gain; equal gains go to the first."""
    most = gain.max()
    for m in range(len(rows)):
        if gain[m] >= most - EQUAL * (1.0 + most):
            return m
    return 0


# ---------------------------------------------------------------- dense stage


@compiled_fast
def _gains_of_row(line: Any, i: Any, best: Any, weight: Any, first: Any, gain: Any) -> None:
    """Add the gains of the pairs (i, first..i)."""
    zero = np.float32(0.0)
    for j in range(first, i):
        gain[i] += weight[j] * max(line[j] - best[j], zero)
        gain[j] += weight[i] * max(line[j] - best[i], zero)
    gain[i] += weight[i] * max(line[i] - best[i], zero)


@compiled_fast
def _gains_of_chunk(kernel: Any, best: Any, weight: Any, first: Any, last: Any, gain: Any) -> None:
    """Add the gains that the pairs of rows first..last of the lower triangle bring, both ways."""
    zero = np.float32(0.0)
    above = np.zeros(last, np.float32)  # gain of the candidates on the other side of the diagonal
    base = weight * best  # weight * max(similarity - best, 0) as one multiply-add
    i = first
    while i + 4 <= last:  # four rows at once: `above` is then read and written a quarter as often
        k0, k1, k2, k3 = kernel[i], kernel[i + 1], kernel[i + 2], kernel[i + 3]
        b0, b1, b2, b3 = base[i], base[i + 1], base[i + 2], base[i + 3]
        w0, w1, w2, w3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        g0 = g1 = g2 = g3 = zero
        for j in range(i):
            b, w = base[j], weight[j]
            g0 += max(w * k0[j] - b, zero)
            g1 += max(w * k1[j] - b, zero)
            g2 += max(w * k2[j] - b, zero)
            g3 += max(w * k3[j] - b, zero)
            above[j] += (
                max(w0 * k0[j] - b0, zero)
                + max(w1 * k1[j] - b1, zero)
                + max(w2 * k2[j] - b2, zero)
                + max(w3 * k3[j] - b3, zero)
            )
        gain[i] += g0
        gain[i + 1] += g1
        gain[i + 2] += g2
        gain[i + 3] += g3
        for r in range(i, i + 4):
            _gains_of_row(kernel[r], r, best, weight, i, gain)
        i += 4
    for r in range(i, last):
        _gains_of_row(kernel[r], r, best, weight, 0, gain)
    for j in range(last):
        gain[j] += above[j]


@compiled
def _reach(kernel: Any, best: Any, v: Any, slack: Any) -> Any:
    """Rows that v may improve, from the lower triangle."""
    n = len(best)
    rows = np.empty(n, np.int64)
    m = 0
    for i in range(n):
        similarity = kernel[v, i] if i <= v else kernel[i, v]
        if similarity > best[i] - slack:
            rows[m] = i
            m += 1
    return rows[:m]


@compiled
def _add_dense(kernel: Any, cover: Any, pick: Any) -> None:
    cover.is_pick[pick] = True
    for i in range(len(cover.best)):
        similarity = kernel[pick, i] if i <= pick else kernel[i, pick]
        if similarity > cover.best[i]:
            cover.best[i] = similarity
            cover.by[i] = pick


def dense_stage(kernel: Float32, cover: Cover, n_picks: int) -> tuple[list[int], list[float]]:
    """Make up to `n_picks` greedy picks from a dense kernel.

    Args:
        kernel: (n, n) float32; only the lower triangle is read.
        cover: state, updated.
        n_picks: how many.

    Returns:
        The picks and their gains; fewer than `n_picks` when nothing more can be gained.
    """
    n = len(kernel)
    picks: list[int] = []
    gains: list[float] = []
    edges = _chunk_edges(n)
    with ThreadPoolExecutor(get_num_threads()) as pool:
        while len(picks) < n_picks:
            parts = np.zeros((len(edges) - 1, n))
            chunks = zip(edges[:-1], edges[1:], parts, strict=True)
            list(pool.map(lambda c: _gains_of_chunk(kernel, cover.best, cover.weight, *c), chunks))
            gain = parts.sum(axis=0)
            gain[cover.is_pick] = -np.inf
            most = float(gain.max())
            if most <= NOTHING:
                break
            close = np.flatnonzero(gain >= most - CLOSE * (1 + most))[:N_COMPARED]
            if len(close) > 1:
                exact = [_exact_gain(cover, v, _reach(kernel, cover.best, v, 1e-5)) for v in close]
                pick = int(close[_first_of_best(close, np.array(exact))])
            else:
                pick = int(close[0])
            _add_dense(kernel, cover, pick)
            picks.append(pick)
            gains.append(float(gain[pick]))
    return picks, gains


def _chunk_edges(n: int) -> list[int]:
    """Rows where the chunks of a lower triangle begin, so that each holds about the same number of pairs."""
    inner = {4 * round(n * (m / N_CHUNKS) ** 0.5 / 4) for m in range(N_CHUNKS)}  # whole groups of four rows
    return [*sorted(edge for edge in inner if edge < n), n]


# ---------------------------------------------------------------- from dense to graph


@compiled
def _survivors_of_chunk(kernel: Any, need: Any, chunk: Any, column: Any, n_in_row: Any, n_entries: Any) -> None:
    first, last = chunk
    m = 0
    for i in range(first, last):
        begin = m
        line, need_i = kernel[i], need[i]
        for j in range(i + 1):
            if line[j] > min(need_i, need[j]):
                column[m] = j
                m += 1
        n_in_row[i] = m - begin
        for e in range(begin, m):
            n_entries[column[e]] += 1
            if column[e] != i:
                n_entries[i] += 1


@compiled
def _write_chunk(kernel: Any, chunk: Any, column: Any, n_in_row: Any, at: Any, row: Any, similarity: Any) -> None:
    e = 0
    for i in range(chunk[0], chunk[1]):
        for _ in range(n_in_row[i]):
            j = column[e]
            e += 1
            row[at[j]] = i
            similarity[at[j]] = kernel[i, j]
            at[j] += 1
            if i != j:
                row[at[i]] = j
                similarity[at[i]] = kernel[i, j]
                at[i] += 1


def surviving_pairs(kernel: Float32, best: Float32) -> Graph:
    """Return the pairs (i, j) whose similarity exceeds the cover of i or of j: no other can change a gain again."""
    n = len(kernel)
    need = np.maximum(best - np.float32(NOTHING), np.float32(0.0))
    edges = _chunk_edges(n)
    chunks = list(zip(edges[:-1], edges[1:], strict=True))
    columns = [np.empty((last - first) * last + 1, np.int32) for first, last in chunks]
    n_in_row = np.zeros(n, np.int64)
    n_entries = np.zeros((len(chunks), n), np.int64)
    with ThreadPoolExecutor(get_num_threads()) as pool:
        jobs = zip(chunks, columns, n_entries, strict=True)
        list(pool.map(lambda j: _survivors_of_chunk(kernel, need, j[0], j[1], n_in_row, j[2]), jobs))
        start = np.zeros(n + 1, np.int64)
        np.cumsum(n_entries.sum(axis=0), out=start[1:])
        at = start[:-1] + np.cumsum(n_entries, axis=0) - n_entries  # where each chunk writes in each row
        row, similarity = np.empty(start[-1], np.int32), np.empty(start[-1], np.float32)
        writes = zip(chunks, columns, at, strict=True)
        list(pool.map(lambda j: _write_chunk(kernel, j[0], j[1], n_in_row, j[2], row, similarity), writes))
    return Graph(start, row, similarity)


# ---------------------------------------------------------------- graph stage


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
def _graph_gains(graph: Any, cover: Any, live_end: Any) -> Any:
    """Gain of every row, and the live entries of every row moved to the front."""
    n = len(cover.best)
    gain = np.zeros(n)
    for i in range(n):
        end = live_end[i] = _keep_live(graph, i, graph.start[i + 1], cover.best[i])
        for e in range(graph.start[i], end):
            gain[graph.row[e]] += (np.float64(graph.similarity[e]) - np.float64(cover.best[i])) * cover.weight[i]
    gain[cover.is_pick] = -np.inf
    return gain


@compiled
def _largest(gain: Any, bound: Any) -> Any:
    """Largest gain. `bound` holds an upper bound per block: gains only fall, so a stale maximum is one."""
    while True:
        b = 0
        for m in range(1, len(bound)):
            if bound[m] > bound[b]:
                b = m
        most = gain[b * BLOCK : (b + 1) * BLOCK].max()
        if most == bound[b]:
            return most
        bound[b] = most


@compiled
def _choose(graph: Any, cover: Any, gain: Any, bound: Any, most: Any) -> Any:
    """Row of the largest gain; those within float32 error of it are compared in float64."""
    close = np.empty(N_COMPARED, np.int64)
    m = 0
    low = most - CLOSE * (1.0 + most)
    for b in range(len(bound)):
        if bound[b] < low:
            continue
        for v in range(b * BLOCK, min(len(gain), (b + 1) * BLOCK)):
            if gain[v] >= low and m < N_COMPARED:
                close[m] = v
                m += 1
    if m == 1:
        return close[0]
    exact = np.empty(m)
    for c in range(m):
        v = close[c]
        exact[c] = _exact_gain(cover, v, graph.row[graph.start[v] : graph.start[v + 1]])
    return close[_first_of_best(close[:m], exact)]


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
def _graph_loop(graph: Any, cover: Any, n_picks: Any, picks: Any, gains: Any) -> Any:
    live_end = graph.start[1:].copy()
    gain = _graph_gains(graph, cover, live_end)
    n_blocks = (len(gain) + BLOCK - 1) // BLOCK
    bound = np.empty(n_blocks)
    for b in range(n_blocks):
        bound[b] = gain[b * BLOCK : (b + 1) * BLOCK].max()
    n_visited = 0
    for t in range(n_picks):
        most = _largest(gain, bound)
        if most <= NOTHING:
            return t, n_visited
        pick = _choose(graph, cover, gain, bound, most)
        picks[t], gains[t] = pick, gain[pick]
        n_visited += _add(graph, cover, pick, gain, live_end)
    return n_picks, n_visited


def graph_stage(graph: Graph, cover: Cover, n_picks: int) -> tuple[Int64, Float64, int]:
    """Make up to `n_picks` greedy picks from a sparse graph.

    Args:
        graph: symmetric similarities; the order within its rows is changed.
        cover: state, updated.
        n_picks: how many.

    Returns:
        The picks, their gains, and the number of pairs visited; fewer picks when nothing more can be gained.
    """
    picks, gains = np.empty(n_picks, np.int64), np.empty(n_picks)
    n_made, n_visited = _graph_loop(graph, cover, n_picks, picks, gains)
    return picks[:n_made], gains[:n_made], int(n_visited)
