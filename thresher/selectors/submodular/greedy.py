"""The greedy engine: one state and one loop for all objectives that sum what is open of each row.

Every row i has an interval of similarity that is still open, and a candidate j gains weight_i times
the part of it that lies below s_ij. A pick closes a part of the interval:

- from below, up to s_ij: the row counts with its nearest pick (facility location, FLMI, FLCG,
  quality and diversity);
- from above, by s_ij: the row counts with the sum over the picks, up to its cap (saturated
  coverage).

The gain of every candidate is kept up to date: when an interval shrinks, each candidate loses what
it could have gained in the closed part. Here that runs over a nearest-neighbor graph; a dense
kernel has a loop of its own (`dense_kernel`), of the same steps.

Similarities are float32 or float64, sums float64. Gains closer than float32 can tell apart are
recomputed in float64, from the vectors where there are some, and what is still equal goes to the
lowest row: picks depend neither on the BLAS nor on threads.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from thresher.numeric.arrays import Float32, Float64, Floats, Int64
from thresher.numeric.numba_jit import jit
from thresher.numeric.threads import count_threads
from thresher.selectors.neighbors.csr import Graph
from thresher.selectors.submodular.pick_rules import (
    ANYTHING,
    CLOSE,
    EQUAL,
    N_COMPARED,
    NOTHING,
    PICKED,
    PickRule,
    build_bounds,
    find_first_best,
    find_near_best,
    note_pick,
)

NO_CAP = 3e38  # finite: the fast sums may not see an infinity
N_CHUNKS = 16  # row chunks of a pass: fixed, so that sums do not depend on the number of threads


class CoverageState(NamedTuple):
    """State of a greedy run over n rows; the arrays are updated in place.

    Attributes:
        vectors: (n, d) float32, any length; (n, 0) where similarities are not cosines.
        inverse_norm: (n,) float64, so that cosines can be recomputed in float64.
        weight: (n,) float32, how often each row counts.
        floor: (n,) float64 >= 0, similarity with what the user already has, 0 if nothing.
        open_from, open_to: (n,) float, the interval of each row that is still open.
        nearest: (n,) float, similarity of each row to its nearest pick, or to the floor.
        by: (n,) int64, that pick, -1 while none.
        is_pick: (n,) bool.
        is_sum: whether picks close intervals from above (saturated coverage).
        filled_by: (n,) int64, the pick that closed the last of a row's interval, -1 while none;
            (0,) where picks close intervals from below.
    """

    vectors: Float32
    inverse_norm: Float64
    weight: Float32
    floor: Float64
    open_from: Floats
    open_to: Floats
    nearest: Floats
    by: Int64
    is_pick: NDArray[np.bool_]
    is_sum: bool
    filled_by: Int64


def start_coverage(vectors: Float32, inverse_norm: Float64, weight: Float32, floor: Float64) -> CoverageState:
    """Return the state before the first pick, of rows that count with their nearest pick."""
    n = len(vectors)
    open_from = floor.astype(np.float32)
    none, never = np.full(n, -1, np.int64), np.full(n, NO_CAP, np.float32)
    return CoverageState(
        vectors=vectors,
        inverse_norm=inverse_norm,
        weight=weight,
        floor=floor,
        open_from=open_from,
        open_to=never,
        nearest=open_from,
        by=none,
        is_pick=np.zeros(n, np.bool_),
        is_sum=False,
        filled_by=none[:0],
    )


def start_saturation(n: int, room: Float64) -> CoverageState:
    """Return the state before the first pick, of rows that count with the sum of all picks.

    Args:
        n: rows.
        room: (n,) float64 >= 0, how much each row can still take.
    """
    zero, nearest = np.zeros(n), np.zeros(n, np.float32)
    vectors, weight = np.empty((n, 0), np.float32), np.ones(n, np.float32)
    none, is_pick = np.full(n, -1, np.int64), np.zeros(n, np.bool_)
    return CoverageState(
        vectors=vectors,
        inverse_norm=zero,
        weight=weight,
        floor=zero,
        open_from=np.zeros(n, np.float32),
        open_to=room.copy(),
        nearest=nearest,
        by=none,
        is_pick=is_pick,
        is_sum=True,
        filled_by=none.copy(),
    )


@jit
def _dot(x: Any, y: Any) -> Any:
    total = 0.0
    for m in range(len(x)):
        total += np.float64(x[m]) * np.float64(y[m])
    return total


@jit
def compute_gain(cover: Any, rows: Any, similarity: Any) -> Any:
    """Gain in float64 of a candidate with these similarities to these rows."""
    total = 0.0
    for m in range(len(rows)):
        i = rows[m]
        low = np.float64(cover.open_from[i])
        # what of the row's open interval lies below the candidate's similarity
        total += max(min(np.float64(similarity[m]), np.float64(cover.open_to[i])) - low, 0.0) * cover.weight[i]
    return total


@jit
def compute_exact_gain(cover: Any, v: Any, rows: Any, similarity: Any) -> Any:
    """Gain of v in float64, from the vectors where there are some.

    `rows` are all that v may improve.
    """
    # no vectors: the similarities are all that is known
    if cover.vectors.shape[1] == 0:
        return compute_gain(cover, rows, similarity)
    total = 0.0
    for i in rows:
        # `now` is how well the row is covered: by what exists, or by its nearest pick
        now = cover.floor[i]
        if cover.by[i] >= 0:
            b = cover.by[i]
            now = max(now, _dot(cover.vectors[i], cover.vectors[b]) * cover.inverse_norm[i] * cover.inverse_norm[b])
        # what the candidate covers beyond that
        cosine = _dot(cover.vectors[i], cover.vectors[v]) * cover.inverse_norm[i] * cover.inverse_norm[v]
        if cosine > now:
            total += (cosine - now) * cover.weight[i]
    return total


@jit
def tie_width(cover: Any, similarity: Any) -> Any:
    """Return the relative difference below which gains are equal: wider where all is float32."""
    return CLOSE if cover.vectors.shape[1] == 0 and similarity.itemsize == 4 else EQUAL


@jit
def _keep_live(graph: Any, i: Any, end: Any, open_from: Any) -> Any:
    """Move the entries of row i that reach into its open interval to the front.

    Return where they end.
    """
    # entries before `live` reach into the interval, those from `live` to `e` do not
    live = graph.start[i]
    # without a branch: every entry is swapped, `live` moves past the good ones
    for e in range(live, end):
        v, similarity = graph.row[e], graph.similarity[e]
        graph.row[e], graph.similarity[e] = graph.row[live], graph.similarity[live]
        graph.row[live], graph.similarity[live] = v, similarity
        live += similarity > open_from
    return live


@jit
def _first_gains(
    by_row: Any, by_candidate: Any, cover: Any, is_plain: Any, chunk: Any, gain: Any, live_end: Any
) -> None:
    """Fill in the gains of a chunk of candidates, and move their live entries to the front."""
    for v in range(chunk[0], chunk[1]):
        part = slice(by_candidate.start[v], by_candidate.start[v + 1])
        if cover.is_pick[v]:
            gain[v] = PICKED
        elif is_plain:  # nothing is covered yet: no need to look at the rows
            total = 0.0
            for similarity in by_candidate.similarity[part]:
                total += similarity
            gain[v] = total
        else:
            gain[v] = compute_gain(cover, by_candidate.row[part], by_candidate.similarity[part])
    # entries from `live_end[i]` on can never again change a gain: later passes skip them
    for i in range(chunk[0], chunk[1]):
        live_end[i] = by_row.start[i + 1]
        # a closed row has no live entries
        if cover.open_to[i] <= cover.open_from[i]:
            live_end[i] = by_row.start[i]
        elif cover.open_from[i] > 0:
            live_end[i] = _keep_live(by_row, i, live_end[i], cover.open_from[i])


@jit
def close_interval(cover: Any, i: Any, similarity: Any, pick: Any) -> Any:
    """Close what a pick closes of row i.

    Returns the closed part, (low, high); low >= high if there is none.
    """
    low, high = np.float64(cover.open_from[i]), np.float64(cover.open_to[i])
    if similarity > cover.nearest[i]:
        cover.nearest[i] = similarity  # the array may be `open_from` itself
        cover.by[i] = pick
    # rows that count with a sum: the pick uses up the topmost part of what is still open
    if cover.is_sum:
        low = max(high - similarity, 0.0)
        cover.open_to[i] = low
        if low <= 0 < high:
            cover.filled_by[i] = pick
        return low, min(high, 1.0)  # no similarity is above 1
    # rows that count with their nearest pick: all below its similarity is closed
    high = min(np.float64(similarity), high)
    cover.open_from[i] = max(low, high)
    return low, high


@jit
def _lose(by_row: Any, i: Any, end: Any, low: Any, high: Any, open_from: Any, weight: Any, gain: Any) -> Any:
    """Take from each candidate of row i what it loses.

    Move the live entries to the front and return where they end.
    """
    start = by_row.start[i]
    row, similarity = by_row.row[start:end], by_row.similarity[start:end]
    live = 0
    # without a branch: every entry is swapped, `live` moves past the good ones
    for e in range(len(row)):
        v, s = row[e], similarity[e]
        # the candidate would have gained the closed part up to its own similarity
        gain[v] -= max(min(np.float64(s), high) - low, 0.0) * weight
        row[e], similarity[e] = row[live], similarity[live]
        row[live], similarity[live] = v, s
        live += s > open_from
    return start + live


@jit
def add_pick(rows: Any, similarity: Any, pick: Any, by_row: Any, cover: Any, gain: Any, live_end: Any) -> Any:
    """Add a pick; take from each candidate what it loses on the rows that the pick closes.

    Returns pairs visited.
    """
    n_visited = 0
    for m in range(len(rows)):
        i = rows[m]
        low, high = close_interval(cover, i, similarity[m], pick)
        # nothing was closed: no gain depends on this row's change
        if low >= high:
            continue
        n_visited += live_end[i] - by_row.start[i]
        live_end[i] = _lose(by_row, i, live_end[i], low, high, cover.open_from[i], cover.weight[i], gain)
        # the row is saturated: nothing of it is open for anybody
        if cover.is_sum and low <= 0:
            live_end[i] = by_row.start[i]
    cover.is_pick[pick] = True
    gain[pick] = PICKED
    return n_visited


@jit
def _graph_loop(
    by_row: Any,
    by_candidate: Any,
    cover: Any,
    rule: Any,
    gain: Any,
    bonus: Any,
    least: Any,
    live_end: Any,
    picks: Any,
    gains: Any,
) -> Any:
    bound = build_bounds(gain, bonus)
    width = tie_width(cover, by_row.similarity)
    n_visited = 0
    for t in range(len(picks)):
        # candidates that float32 cannot tell from the best, lowest rows first
        near = find_near_best(rule, gain, bonus, bound, least, 0.0)[:N_COMPARED]
        if len(near) == 0:
            return t, n_visited
        pick = near[0]
        # several: their gains are summed again in float64, and ties go to the lowest row
        if len(near) > 1:
            exact = np.empty(len(near))
            for c in range(len(near)):
                v = near[c]
                part = slice(by_candidate.start[v], by_candidate.start[v + 1])
                exact[c] = (
                    compute_exact_gain(cover, v, by_candidate.row[part], by_candidate.similarity[part]) + bonus[v]
                )
                n_visited += by_candidate.start[v + 1] - by_candidate.start[v]
            pick = near[find_first_best(near, exact, width)]
        picks[t], gains[t] = pick, gain[pick]
        note_pick(rule, pick)
        # the rows that the pick may cover, and how similar they are to it
        part = slice(by_candidate.start[pick], by_candidate.start[pick + 1])
        # reordered below
        rows, similarity = by_candidate.row[part].copy(), by_candidate.similarity[part].copy()
        n_visited += add_pick(rows, similarity, pick, by_row, cover, gain, live_end)
    return len(picks), n_visited


class Picks(NamedTuple):
    """What a greedy run gives.

    Attributes:
        rows: (k,) int64; fewer than asked for when nothing more can be gained.
        gains: (k,) float64, without the bonus.
        n_visited: pairs of rows whose similarity was looked at.
    """

    rows: Int64
    gains: Float64
    n_visited: int


def pick_from_graph(
    graph: Graph,
    cover: CoverageState,
    n_picks: int,
    rule: PickRule,
    *,
    bonus: Float64 | None = None,
    by_candidate: Graph | None = None,
    least: float = NOTHING,
) -> Picks:
    """Make up to `n_picks` greedy picks from a sparse graph.

    Args:
        graph: similarities by row; the order within its rows is changed.
        cover: state, updated.
        n_picks: how many.
        rule: the rule, updated.
        bonus: (n,) float64 >= 0, what each row is worth besides; with it, rows are picked that
            cover nothing.
        by_candidate: the same similarities by candidate; None for a symmetric graph.
        least: gains up to this one count as nothing, without a bonus.
    """
    n = len(cover.by)
    columns = graph if by_candidate is None else by_candidate
    gain, live_end = np.empty(n), np.empty(n, np.int64)
    is_plain = bool((cover.open_from == 0).all() and (cover.open_to > 1).all() and (cover.weight == 1).all())
    edges = np.linspace(0, n, N_CHUNKS + 1).astype(np.int64)
    chunks = zip(edges[:-1], edges[1:], strict=True)
    with ThreadPoolExecutor(count_threads()) as pool:
        list(pool.map(lambda chunk: _first_gains(graph, columns, cover, is_plain, chunk, gain, live_end), chunks))
    picks, gains = np.empty(n_picks, np.int64), np.empty(n_picks)
    own, nothing = (np.zeros(n), least) if bonus is None else (bonus, ANYTHING)
    n_made, n_visited = _graph_loop(graph, columns, cover, rule, gain, own, nothing, live_end, picks, gains)
    return Picks(picks[:n_made], gains[:n_made], int(n_visited) + len(columns.row))
