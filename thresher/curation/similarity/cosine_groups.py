"""For each row, the most similar row that stays: all pairs, or within clusters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Float32, Int64
from thresher.numeric.kmeans import fit_spherical_centroids

BLOCK = 1024
COLUMNS = 8192
ITERATIONS = 20


class Found(NamedTuple):
    """Which row stands for each row.

    Attributes:
        stands: (n,) int64, itself for a row that stays.
        similarity: (n,) float32 with that row, NaN for a row that stays.
        n_clusters: clusters that were made, 1 where all pairs were compared.
    """

    stands: Int64
    similarity: Float32
    n_clusters: int


def nearest_kept(
    unit: Float32,
    *,
    n_fixed: int,
    threshold: float,
    exact_rows: int,
    cluster_rows: int,
    rng: np.random.Generator,
) -> Found:
    """Judge rows in order: one that is similar to a row that stayed is a copy of the most similar such row.

    Args:
        unit: (n, d) unit rows in order of preference.
        n_fixed: the first so many rows stay in any case.
        threshold: smallest cosine of a copy.
        exact_rows: up to so many rows all pairs are compared.
        cluster_rows: size of a cluster beyond that, on average.
        rng: seeds the clusters.
    """
    n = len(unit)
    if n <= exact_rows:
        return _all_pairs(unit, n_fixed, threshold)
    nearest = _nearest_clusters(unit, max(2, n // cluster_rows), rng)
    stands, similarity = np.arange(n), np.full(n, np.nan, np.float32)
    n_clusters = int(nearest[:, 0].max()) + 1
    for rows in _members(nearest[:, 0]):
        found = _all_pairs(unit[rows], int((rows < n_fixed).sum()), threshold)
        stands[rows], similarity[rows] = rows[found.stands], found.similarity
    _join_neighbours(unit, nearest, n_fixed, threshold, stands, similarity)
    return Found(stands, similarity, n_clusters)


def _all_pairs(unit: Float32, n_fixed: int, threshold: float) -> Found:
    n = len(unit)
    stands, similarity = np.arange(n), np.full(n, np.nan, np.float32)
    kept = np.empty_like(unit)
    kept_row = np.empty(n, np.int64)
    kept[:n_fixed], kept_row[:n_fixed], n_kept = unit[:n_fixed], np.arange(n_fixed), n_fixed
    for start in range(n_fixed, n, BLOCK):
        block = unit[start : start + BLOCK]
        best, best_row = _best(block, kept[:n_kept], kept_row[:n_kept])
        inner = block @ block.T
        stays = np.zeros(len(block), np.bool_)
        for i in range(len(block)):
            earlier = np.flatnonzero(stays[:i])
            if len(earlier) and (near := inner[i, earlier]).max() > best[i]:
                best[i], best_row[i] = near.max(), start + earlier[near.argmax()]
            stays[i] = best[i] < threshold
        copies = np.flatnonzero(~stays)
        stands[start + copies], similarity[start + copies] = best_row[copies], best[copies]
        mine = np.flatnonzero(stays)
        kept[n_kept : n_kept + len(mine)], kept_row[n_kept : n_kept + len(mine)] = block[mine], start + mine
        n_kept += len(mine)
    return Found(stands, similarity, 1)


def _best(block: Float32, kept: Float32, kept_row: Int64) -> tuple[Float32, Int64]:
    """Return the largest cosine of each row of a block with the kept rows, and that row; -2 where there is none."""
    best, best_row = np.full(len(block), -2.0, np.float32), np.full(len(block), -1, np.int64)
    for low in range(0, len(kept), COLUMNS):
        cosine = block @ kept[low : low + COLUMNS].T
        at = cosine.argmax(axis=1)
        here = cosine[np.arange(len(block)), at]
        is_better = here > best
        best[is_better], best_row[is_better] = here[is_better], kept_row[low + at[is_better]]
    return best, best_row


def _nearest_clusters(unit: Float32, n_clusters: int, rng: np.random.Generator) -> Int64:
    """Return the two nearest clusters of each row, (n, 2)."""
    centroid = fit_spherical_centroids(unit, n_clusters, rng, n_iterations=ITERATIONS)
    nearest = np.empty((len(unit), 2), np.int64)
    for start in range(0, len(unit), COLUMNS):
        cosine = unit[start : start + COLUMNS] @ centroid.T
        nearest[start : start + COLUMNS, 0] = cosine.argmax(axis=1)
        np.put_along_axis(cosine, nearest[start : start + COLUMNS, :1], -2.0, axis=1)
        nearest[start : start + COLUMNS, 1] = cosine.argmax(axis=1)
    return nearest


def _members(cluster: Int64) -> list[Int64]:
    """Return the rows of each cluster, ascending."""
    order = np.argsort(cluster, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1)


def _join_neighbours(
    unit: Float32, nearest: Int64, n_fixed: int, threshold: float, stands: Int64, similarity: Float32
) -> None:
    """Compare rows that stay with those of the next nearest cluster, and let the preferred one of each pair stay."""
    stays = np.flatnonzero(stands == np.arange(len(stands)))
    pairs = []
    home = {int(nearest[rows[0], 0]): rows for rows in _members(nearest[:, 0])}
    for visitors in _members(nearest[stays, 1]):
        guests = stays[visitors]
        hosts = home.get(int(nearest[guests[0], 1]), np.zeros(0, np.int64))
        hosts = hosts[stands[hosts] == hosts]
        if len(hosts):
            i, j = np.nonzero(unit[guests] @ unit[hosts].T >= threshold)
            pairs.append(np.stack([np.minimum(guests[i], hosts[j]), np.maximum(guests[i], hosts[j])], axis=1))
    for first, second in np.unique(np.concatenate(pairs), axis=0).tolist() if pairs else []:
        if second >= n_fixed and stands[first] == first and stands[second] == second:
            stands[second] = first
    moved = stands[stands]  # what a row stood for goes to the row that stands for it now
    changed = np.flatnonzero(moved != np.arange(len(stands)))
    is_handed_on = moved[changed] != stands[changed]
    stands[changed] = moved[changed]
    similarity[changed] = np.einsum("ij,ij->i", unit[changed], unit[stands[changed]])
    far = changed[is_handed_on & (similarity[changed] < threshold)]
    stands[far], similarity[far] = -1, np.nan
    for row in far.tolist():  # similar to the row that is gone, not to the one that took its place
        _judge_anew(
            row, unit, np.concatenate([home[each] for each in nearest[row] if each in home]), stands, similarity
        )
        if not similarity[row] >= threshold:
            stands[row], similarity[row] = row, np.nan


def _judge_anew(row: int, unit: Float32, others: Int64, stands: Int64, similarity: Float32) -> None:
    """Let the most similar of the other rows that stay stand for a row, if any stays."""
    others = others[stands[others] == others]
    if len(others):
        cosine = unit[others] @ unit[row]
        stands[row], similarity[row] = others[cosine.argmax()], cosine.max()
