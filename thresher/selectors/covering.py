"""Greedy cover of rows on the kernel that settings and memory call for, dense or sparse."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from thresher.errors import InputError
from thresher.selectors import dense_kernel, greedy
from thresher.selectors.greedy import Cover
from thresher.selectors.vectors import Float32, inverse_norms

Notes = dict[str, str | int | float]


class KernelPlan(NamedTuple):
    """Which pairs of rows are compared.

    Attributes:
        name: of the selector, for messages.
        kernel: "dense", "sparse", or "auto" for dense where memory allows.
        n_neighbors: neighbours per row of the sparse kernel.
        max_kernel_gb: largest dense kernel, in 10^9 bytes.
    """

    name: str
    kernel: str
    n_neighbors: int
    max_kernel_gb: float


def cover_greedily(
    plan: KernelPlan,
    unit: Float32,
    cover: Cover,
    n_picks: int,
    rng: np.random.Generator,
    bonus: NDArray[np.float64] | None = None,
) -> tuple[NDArray[np.int64], NDArray[np.float64], Notes]:
    """Make up to `n_picks` greedy picks.

    Args:
        plan: the kernel.
        unit: (n, d) rows of length 1 (or 0).
        cover: state, updated.
        n_picks: how many.
        rng: of the neighbour search.
        bonus: (n,) float64 >= 0, what each row is worth besides what it covers, or None.

    Returns:
        The picks, their gains without the bonus, and notes for the manifest. Without a bonus there are fewer picks when
        nothing more can be gained.

    Raises:
        InputError: the dense kernel was asked for and is too large.
    """
    n = len(unit)
    size_gb = 4e-9 * n * n
    if plan.kernel == "dense" and size_gb > plan.max_kernel_gb:
        raise InputError(
            f"{plan.name}: a dense kernel of {n} distinct rows needs {size_gb:.1f} GB and max_kernel_gb is "
            f"{plan.max_kernel_gb:g}; set kernel to 'sparse', or max_kernel_gb higher"
        )
    if plan.kernel == "sparse" or size_gb > plan.max_kernel_gb:
        from thresher.selectors.neighbors import nearest_neighbors

        found = nearest_neighbors(unit, plan.n_neighbors, rng)
        picks, gains, n_visited = greedy.graph_stage(found.graph, cover, n_picks, bonus)
        return (
            picks,
            gains,
            {
                "kernel": "sparse",
                "n_neighbors": plan.n_neighbors,
                "search": found.search,
                "recall": round(found.recall, 4),
                "n_pairs": len(found.graph.row),
                "n_pair_updates": n_visited,
            },
        )
    kernel = dense_kernel.lower_kernel(unit)
    first, first_gains = dense_kernel.dense_stage(kernel, cover, min(n_picks, dense_kernel.N_DENSE_PICKS), bonus)
    graph = dense_kernel.surviving_pairs(kernel, cover.best)
    picks, gains, n_visited = greedy.graph_stage(graph, cover, n_picks - len(first), bonus)
    return (
        np.concatenate([np.asarray(first, np.int64), picks]),
        np.concatenate([np.asarray(first_gains, np.float64), gains]),
        {
            "kernel": "dense",
            "guarantee": "at least 1 - 1/e of the largest objective for every prefix",
            "n_pairs": n * n,
            "n_pair_updates": len(first) * n * n + n_visited,
        },
    )


def floor_of(vectors: Float32, scale: NDArray[np.float64], existing: NDArray[np.float32] | None) -> NDArray[np.float64]:
    """Return each row's cosine with the nearest existing row, (n,) float64, at least 0; 0 when there are none."""
    floor = np.zeros(len(vectors))
    if existing is None or len(existing) == 0:
        return floor
    existing = np.ascontiguousarray(existing, dtype=np.float32)
    existing_scale = inverse_norms(existing)
    unit = (existing * existing_scale.astype(np.float32)[:, None]).T
    for first in range(0, len(vectors), 1024):
        rows = slice(first, first + 1024)
        nearest = (vectors[rows] @ unit).argmax(axis=1)
        cosine = np.einsum("ij,ij->i", vectors[rows], existing[nearest], dtype=np.float64)
        floor[rows] = np.maximum(0.0, cosine * scale[rows] * existing_scale[nearest])
    return floor
