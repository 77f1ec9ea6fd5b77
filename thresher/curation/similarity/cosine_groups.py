"""For each row, the most similar row that stays: all pairs, or within clusters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Float32, Int64
from thresher.numeric.kmeans import fit_spherical_centroids

BLOCK = 1024
COLUMNS = 8192
ITERATIONS = 20


class CosineAssignment(NamedTuple):
    """Which row represents each row.

    Attributes:
        representative: (n,) int64, itself for a row that stays.
        similarity: (n,) float32 with that row, NaN for a row that stays.
        n_clusters: clusters that were made, 1 where all pairs were compared.
    """

    representative: Int64
    similarity: Float32
    n_clusters: int


def assign_representatives(
    unit: Float32, *, n_fixed: int, threshold: float, exact_rows: int, cluster_rows: int, rng: np.random.Generator
) -> CosineAssignment:
    """Assign rows in order: a row similar to some that stayed is a copy of the most similar one.

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
        return _compare_all_pairs(unit, n_fixed, threshold)
    nearest = _find_nearest_clusters(unit, max(2, n // cluster_rows), rng)
    representative, similarity = np.arange(n), np.full(n, np.nan, np.float32)
    # a cluster keeps the order of preference, so its fixed rows come first in it, too
    for rows in _group_members(nearest[:, 0]):
        within = _compare_all_pairs(unit[rows], int((rows < n_fixed).sum()), threshold)
        representative[rows], similarity[rows] = rows[within.representative], within.similarity
    _compare_next_clusters(unit, nearest, n_fixed, threshold, representative, similarity)
    return CosineAssignment(representative, similarity, int(nearest[:, 0].max()) + 1)


def _compare_all_pairs(unit: Float32, n_fixed: int, threshold: float) -> CosineAssignment:
    n = len(unit)
    representative, similarity = np.arange(n), np.full(n, np.nan, np.float32)
    # the first n_kept entries are the rows that stay so far: their vectors and their numbers
    kept, kept_row = np.empty_like(unit), np.empty(n, np.int64)
    kept[:n_fixed], kept_row[:n_fixed], n_kept = unit[:n_fixed], np.arange(n_fixed), n_fixed
    for start in range(n_fixed, n, BLOCK):
        block = unit[start : start + BLOCK]
        # the best so far is the best among the rows kept before this block ...
        best, best_row = _find_best(block, kept[:n_kept], kept_row[:n_kept])
        inner = block @ block.T
        stays = best < threshold
        # ... or among the rows of the block before this one that stay
        for i in np.flatnonzero((np.tril(inner, -1) >= threshold).any(axis=1)).tolist():
            earlier = np.flatnonzero(stays[:i])
            if len(earlier) and (near := inner[i, earlier]).max() > best[i]:
                best[i], best_row[i] = near.max(), start + earlier[near.argmax()]
            stays[i] = best[i] < threshold
        copies, new = np.flatnonzero(~stays), np.flatnonzero(stays)
        representative[start + copies], similarity[start + copies] = best_row[copies], best[copies]
        kept[n_kept : n_kept + len(new)], kept_row[n_kept : n_kept + len(new)] = block[new], start + new
        n_kept += len(new)
    return CosineAssignment(representative, similarity, 1)


def _find_best(block: Float32, kept: Float32, kept_row: Int64) -> tuple[Float32, Int64]:
    """Return each row's largest cosine with a kept row, and which row; -2 where there is none."""
    best, best_row = np.full(len(block), -2.0, np.float32), np.full(len(block), -1, np.int64)
    for low in range(0, len(kept), COLUMNS):
        cosine = block @ kept[low : low + COLUMNS].T
        at = cosine.argmax(axis=1)
        here = cosine[np.arange(len(block)), at]
        is_better = here > best
        best[is_better], best_row[is_better] = here[is_better], kept_row[low + at[is_better]]
    return best, best_row


def _find_nearest_clusters(unit: Float32, n_clusters: int, rng: np.random.Generator) -> Int64:
    """Return the two nearest clusters of each row, (n, 2)."""
    centroid = fit_spherical_centroids(unit, n_clusters, rng, n_iterations=ITERATIONS)
    nearest = np.empty((len(unit), 2), np.int64)
    for start in range(0, len(unit), COLUMNS):
        part = slice(start, start + COLUMNS)
        cosine = unit[part] @ centroid.T
        nearest[part, 0] = cosine.argmax(axis=1)
        # without the nearest one, the largest cosine is that of the next
        np.put_along_axis(cosine, nearest[part, :1], -2.0, axis=1)
        nearest[part, 1] = cosine.argmax(axis=1)
    return nearest


def _group_members(cluster: Int64) -> list[Int64]:
    """Return the rows of each cluster, ascending."""
    order = np.argsort(cluster, kind="stable")
    return np.split(order, np.flatnonzero(np.diff(cluster[order])) + 1)


def _compare_next_clusters(
    unit: Float32, nearest: Int64, n_fixed: int, threshold: float, representative: Int64, similarity: Float32
) -> None:
    """Compare rows that stay with those of the next cluster; of a pair the preferred one stays.

    Args:
        unit: (n, d) unit rows in order of preference.
        nearest: (n, 2) the two nearest clusters of each row.
        n_fixed: the first so many rows stay in any case.
        threshold: smallest cosine of a copy.
        representative: (n,) within the nearest cluster; changed in place.
        similarity: (n,) with it; changed in place.
    """
    stays = np.flatnonzero(representative == np.arange(len(representative)))
    members = {int(nearest[rows[0], 0]): rows for rows in _group_members(nearest[:, 0])}
    pairs = []
    for group in _group_members(nearest[stays, 1]):
        # guests: rows that stay and have one next cluster; hosts: the rows that stay in that one
        guests = stays[group]
        hosts = members.get(int(nearest[guests[0], 1]), np.zeros(0, np.int64))
        hosts = hosts[representative[hosts] == hosts]
        if len(hosts):
            i, j = np.nonzero(unit[guests] @ unit[hosts].T >= threshold)
            pairs.append(np.stack([np.minimum(guests[i], hosts[j]), np.maximum(guests[i], hosts[j])], axis=1))
    # ascending: every pair that could drop `first` came before, so whether it stays is settled here
    for first, second in np.unique(np.concatenate(pairs), axis=0).tolist() if pairs else []:
        if second >= n_fixed and representative[first] == first and representative[second] == second:
            representative[second] = first
    # a row whose representative was dropped is handed on to the representative of that one
    handed_on = representative[representative]
    changed = np.flatnonzero(handed_on != np.arange(len(representative)))
    is_handed_on = handed_on[changed] != representative[changed]
    representative[changed] = handed_on[changed]
    similarity[changed] = np.einsum("ij,ij->i", unit[changed], unit[representative[changed]])
    # some are similar to the row that was dropped, but not to the one that took its place
    far = changed[is_handed_on & (similarity[changed] < threshold)]
    representative[far], similarity[far] = -1, np.nan
    for row in far.tolist():
        others = np.concatenate([members[each] for each in nearest[row] if each in members])
        _reassign(row, unit, others, representative, similarity)
        if not similarity[row] >= threshold:
            representative[row], similarity[row] = row, np.nan


def _reassign(row: int, unit: Float32, others: Int64, representative: Int64, similarity: Float32) -> None:
    """Let the most similar of the other rows that stay represent a row, if any stays."""
    others = others[representative[others] == others]
    if len(others):
        cosine = unit[others] @ unit[row]
        representative[row], similarity[row] = others[cosine.argmax()], cosine.max()
