"""The core set: which of the old and new rows stay, and how many rows each represents."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Float32, Int64

BLOCK_ROWS = 1024


class CoreSet(NamedTuple):
    """Rows that stay of n.

    Attributes:
        kept: (k,) positions, ascending.
        representative: (n,) position of the kept row nearest to each row; its own for a kept one.
        cosine: (n,) float32 with that row.
    """

    kept: Int64
    representative: Int64
    cosine: Float32


def build_core_set(embedding: Float32, weight: Int64, n_kept: int, rng: np.random.Generator) -> CoreSet:
    """Keep the rows that maximize f(S) = sum_i weight_i max_{j in S} max(0, cosine_ij), greedily.

    Facility location over rows that each stand for `weight` rows, themselves included. A set of
    rows that were chosen so, and weighted with what they stand for, is a core-set of everything
    before; the union with new rows is reduced again (merge and reduce, Har-Peled and Mazumdar 2004,
    doi:10.1145/1007352.1007400). f is monotone and submodular, so the picks have at least 1 - 1/e
    of the largest f over these weighted rows; what the weights lose against the rows they stand for
    is measured, not bounded.

    Cost: as for `facility-location` of n rows. Ties: to the lowest row.

    Args:
        embedding: (n, d), any length.
        weight: (n,) at least 1.
        n_kept: how many, at most n.
        rng: of the neighbor search.
    """
    from thresher.numeric.vectors import inverse_norms
    from thresher.selectors.facility_location import FacilityLocation
    from thresher.selectors.submodular.greedy import start_coverage
    from thresher.selectors.submodular.kernels import build_kernel, pick_greedily
    from thresher.selectors.submodular.memory import KernelSettings, plan_memory
    from thresher.selectors.submodular.pick_rules import start_pick_rule  # compiled on first use

    x = np.ascontiguousarray(embedding, dtype=np.float32)
    n = len(x)
    if n_kept >= n:
        return assign_representatives(x, np.arange(n, dtype=np.int64))
    scale = inverse_norms(x)
    cover = start_coverage(x, scale, weight.astype(np.float32), np.zeros(n))
    method = FacilityLocation()
    plan = plan_memory(KernelSettings("total", method.kernel, method.n_neighbors, method.max_kernel_gb), *x.shape)
    kernel, _ = build_kernel(plan, x * scale.astype(np.float32)[:, None], rng)
    pick_rule = start_pick_rule(method.optimizer, method.epsilon, rng, cover.is_pick)
    picks = pick_greedily(kernel, cover, n_kept, pick_rule).rows
    is_kept = np.zeros(n, np.bool_)
    is_kept[picks[:n_kept]] = True
    # When nothing more can be gained, as among equal rows, the heaviest of the others fill up, the
    # lowest first.
    others = np.flatnonzero(~is_kept)
    order = others[np.argsort(-weight[others], kind="stable")]
    is_kept[order[: n_kept - int(is_kept.sum())]] = True
    return assign_representatives(x, np.flatnonzero(is_kept))


def assign_representatives(embedding: Float32, kept: Int64) -> CoreSet:
    """Return the representative of each row: the nearest kept row by cosine, ties to the lowest."""
    from thresher.numeric.vectors import unit_rows

    unit = unit_rows(embedding)
    n = len(unit)
    representative, cosine = np.empty(n, np.int64), np.empty(n, np.float32)
    pool = unit[kept].T
    for low in range(0, n, BLOCK_ROWS):
        block = unit[low : low + BLOCK_ROWS]
        nearest = (block @ pool).argmax(axis=1)
        representative[low : low + BLOCK_ROWS] = kept[nearest]
        cosine[low : low + BLOCK_ROWS] = np.einsum("ij,ij->i", block, unit[kept[nearest]])
    representative[kept] = kept
    cosine[kept] = 1.0
    return CoreSet(np.asarray(kept, np.int64), representative, cosine)


def compute_objective(embedding: Float32, kept: Int64, weight: Int64 | None = None) -> float:
    """Return f(S) / sum of weights, 0..1: how well the kept rows cover all rows."""
    core = assign_representatives(embedding, kept)
    value = np.maximum(core.cosine.astype(np.float64), 0.0)
    counts = np.ones(len(value)) if weight is None else weight.astype(np.float64)
    return float((value * counts).sum() / counts.sum())


def transfer_weight(weight: Int64, core: CoreSet) -> Int64:
    """Return (n,) weights after each row gave its own to its representative; their sum stays."""
    after = np.zeros_like(weight)
    np.add.at(after, core.representative, weight)
    return after
