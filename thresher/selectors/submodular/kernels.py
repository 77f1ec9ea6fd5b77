"""Greedy picks on the kernel that settings and memory call for, dense or sparse."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.numeric.array_store import NO_STORE, ArrayStore
from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.matmul import NUMPY, MatmulBackend
from thresher.numeric.vectors import inverse_norms, unit_rows
from thresher.selectors.neighbors.csr import Graph
from thresher.selectors.submodular import dense_kernel, greedy, small_kernel
from thresher.selectors.submodular.greedy import CoverageState, Picks
from thresher.selectors.submodular.memory import MemoryPlan
from thresher.selectors.submodular.pick_rules import PickRule
from thresher.subset.scores import EXISTING, Scores, ranked

Notes = dict[str, str | int | float]

CELLS = 1 << 22  # cosines computed per block


def pick_greedily(
    kernel: Float32 | Graph, cover: CoverageState, n_picks: int, rule: PickRule, bonus: Float64 | None = None
) -> Picks:
    """Make up to `n_picks` greedy picks.

    Without a bonus there are fewer when nothing more can be gained.

    Args:
        kernel: (n, n) float32, or a symmetric graph, whose entries are reordered.
        cover: state, updated.
        n_picks: how many.
        rule: the rule, updated.
        bonus: (n,) float64 >= 0, what each row is worth besides what it covers, or None.
    """
    if isinstance(kernel, Graph):
        return greedy.pick_from_graph(kernel, cover, n_picks, rule, bonus=bonus)
    if len(kernel) <= small_kernel.MOST_ROWS:
        return small_kernel.pick_from_small_kernel(kernel, cover, n_picks, rule, bonus)
    return dense_kernel.pick_from_kernel(kernel, cover, n_picks, rule, bonus)


def build_kernel(
    plan: MemoryPlan,
    unit: Float32,
    rng: np.random.Generator,
    products: MatmulBackend = NUMPY,
    store: ArrayStore = NO_STORE,
) -> tuple[Float32 | Graph, Notes]:
    """Compute the kernel that was planned, and what the manifest should say of it.

    Args:
        plan: which pairs of rows are compared.
        unit: (n, d) rows of length 1 (or 0).
        rng: of the neighbor search.
        products: where the cosines are computed, if that is worth it.
        store: where a graph of the same rows is found again; all pairs are never kept.
    """
    n, d = unit.shape
    if plan.kernel == "dense":
        there = products.choose_backend(n * n * d / 2, unit.nbytes)
        return dense_kernel.compute_kernel(unit, there), {**plan.notes, "n_pairs": n**2, "products": there.name}
    from thresher.selectors.neighbors.search import build_neighbor_graph

    neighbors = build_neighbor_graph(unit, plan.n_neighbors, rng, products, store)
    return neighbors.graph, {
        **plan.notes,
        "n_neighbors": plan.n_neighbors,
        "search": neighbors.search,
        "recall": round(neighbors.recall, 4),
        "products": neighbors.products,
        "n_pairs": len(neighbors.graph.row),
    }


def similarity_to_existing(vectors: Float32, scale: Float64, existing: NDArray[np.float32] | None) -> Float64:
    """Return each row's cosine with the nearest existing row, (n,) float64, at least 0.

    0 when there are none.
    """
    floor = np.zeros(len(vectors))
    if existing is None or len(existing) == 0:
        return floor
    existing = np.ascontiguousarray(existing, dtype=np.float32)
    existing_scale = inverse_norms(existing)
    unit = (existing * existing_scale.astype(np.float32)[:, None]).T
    n_rows = max(1, CELLS // len(existing))
    for first in range(0, len(vectors), n_rows):
        rows = slice(first, first + n_rows)
        nearest = (vectors[rows] @ unit).argmax(axis=1)
        cosine = np.einsum("ij,ij->i", vectors[rows], existing[nearest], dtype=np.float64)
        floor[rows] = np.maximum(0.0, cosine * scale[rows] * existing_scale[nearest])
    return floor


def assign_representatives(
    by: Int64, nearest: NDArray[np.floating[Any]], floor: Float64, picks: Int64
) -> tuple[Int64, Float32]:
    """Return what represents each row, and how similar that is; a pick represents itself.

    Args:
        by: (n,) the pick nearest to each row, -1 where there is none.
        nearest: (n,) similarity to it, or to the nearest existing row.
        floor: (n,) similarity to the nearest existing row.
        picks: (k,) rows.

    Returns:
        (n,) a row, EXISTING for an existing one, or -1 for neither; (n,) float32.
    """
    by = np.where(by >= 0, by, np.where(floor > 0, EXISTING, -1))
    similarity = nearest.astype(np.float32)
    by[picks], similarity[picks] = picks, 1.0
    return by, similarity


def score_ranking(
    method: str,
    row_id: pl.Series,
    ranking: Int64,
    covered: tuple[Int64, NDArray[np.floating[Any]], Float64],
    **more: Any,
) -> Scores:
    """Return the scores of a ranking, with what represents each row.

    Args:
        method: its name.
        row_id: (n,) of the rows.
        ranking: (k,) rows, best first.
        covered: `by`, `nearest` and `floor` of `assign_representatives`.
        more: fields of `Scores`.
    """
    by, similarity = assign_representatives(*covered, ranking)
    value = ranked(len(row_id), ranking)
    return Scores(row_id=row_id, value=value, by=method, covered_by=by, similarity=similarity, **more)


def sum_existing_similarities(unit: Float32, existing: NDArray[np.float32] | None) -> Float64:
    """Return each row's similarity with the existing rows, summed, (n,) float64.

    Cosines below 0 count as 0.
    """
    if existing is None:
        return np.zeros(len(unit))
    return sum_cosines(unit, unit_rows(existing))


def sum_cosines(unit: Float32, others: Float32) -> Float64:
    """Return each row's sum of max(0, cos) over `others`, (n,) float64, block by block."""
    sums = np.zeros(len(unit))
    n_rows = max(1, CELLS // max(len(others), 1))
    for first in range(0, len(unit), n_rows):
        rows = slice(first, first + n_rows)
        cosine = unit[rows] @ others.T
        sums[rows] = np.maximum(cosine, 0, out=cosine).sum(axis=1, dtype=np.float64)
    return sums


def sum_similarities(kernel: Float32 | Graph) -> Float64:
    """Return the sum of each row's similarities, (n,) float64; those below 0 count as 0."""
    if isinstance(kernel, Graph):
        sums, has_any = np.zeros(len(kernel.start) - 1), np.diff(kernel.start) > 0
        sums[has_any] = np.add.reduceat(kernel.similarity, kernel.start[:-1][has_any], dtype=np.float64)
        return sums
    sums = np.empty(len(kernel))
    n_rows = max(1, CELLS // len(kernel))
    for first in range(0, len(kernel), n_rows):
        sums[first : first + n_rows] = np.maximum(kernel[first : first + n_rows], 0).sum(axis=1, dtype=np.float64)
    return sums
