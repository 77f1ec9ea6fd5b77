"""The first greedy picks, from a dense kernel, and the few pairs that matter after them.

At first nearly every pair of rows matters: gains are recomputed from the kernel in one threaded pass per pick. Only
the lower triangle is computed and read.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from numba import get_num_threads
from numpy.typing import NDArray

from thresher.selectors.compiled import compiled, compiled_fast
from thresher.selectors.greedy import CLOSE, N_CHUNKS, N_COMPARED, NOTHING, Cover, Graph, exact_gain, first_of_best

Float32 = NDArray[np.float32]

N_DENSE_PICKS = 10  # picks made from the dense kernel; 8 to 16 are equally fast at 5,000 rows


def lower_kernel(unit: Float32) -> Float32:
    """Return the (n, n) cosines of unit rows; only the lower triangle is written, which halves the work."""
    from scipy.linalg.blas import ssyrk

    out = np.empty((len(unit), len(unit)), np.float32)
    filled = ssyrk(1.0, unit.T, trans=1, c=out.T, overwrite_c=1, lower=0)  # Fortran's upper is C's lower
    return np.asarray(filled, dtype=np.float32).T


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


def dense_stage(
    kernel: Float32, cover: Cover, n_picks: int, bonus: NDArray[np.float64] | None = None
) -> tuple[list[int], list[float]]:
    """Make up to `n_picks` greedy picks from a dense kernel.

    Args:
        kernel: (n, n) float32; only the lower triangle is read.
        cover: state, updated.
        n_picks: how many.
        bonus: (n,) float64 >= 0, what each row is worth besides; with it, rows are picked that cover nothing.

    Returns:
        The picks and their gains without the bonus; fewer than `n_picks` when nothing more can be gained.
    """
    n = len(kernel)
    own, least = (np.zeros(n), NOTHING) if bonus is None else (bonus, -np.inf)
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
            value = gain + own
            most = float(value.max())
            if most <= least:
                break
            close = np.flatnonzero(value >= most - CLOSE * (1 + most))[:N_COMPARED]
            if len(close) > 1:
                exact = [exact_gain(cover, v, _reach(kernel, cover.best, v, 1e-5)) + own[v] for v in close]
                pick = int(close[first_of_best(close, np.array(exact))])
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
