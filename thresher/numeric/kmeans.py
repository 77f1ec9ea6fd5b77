"""Spherical k-means, with faiss."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.vectors import distinct_rows, unit_rows

N_ITERATIONS = 25
BLOCK_ROWS = 8_192  # rows assigned to their centroids at once


class Clusters(NamedTuple):
    """Clusters of rows.

    Attributes:
        group: (n,) int64, the cluster of each row, 0..n_clusters - 1; none is empty.
        cosine: (n,) float64, cosine of each row with its centroid.
    """

    group: Int64
    cosine: Float64


def spherical_kmeans(embedding: Float32, n_clusters: int, rng: np.random.Generator) -> Clusters:
    """Group rows by cosine with k-means, initialized by k-means++.

    Args:
        embedding: (n, d), of any length.
        n_clusters: at most; there are never more clusters than distinct rows.
        rng: seeds the centroids.
    """
    unit = unit_rows(embedding)
    n_clusters = min(n_clusters, len(distinct_rows(unit).first))
    centroid = fit_spherical_centroids(unit, n_clusters, rng, n_iterations=N_ITERATIONS, starts_spread=True)
    group = np.empty(len(unit), np.int64)
    for start in range(0, len(unit), BLOCK_ROWS):
        group[start : start + BLOCK_ROWS] = (unit[start : start + BLOCK_ROWS] @ centroid.T).argmax(axis=1)
    cosine = np.einsum("ij,ij->i", unit, centroid[group], dtype=np.float64)
    # number the clusters anew: a centroid that is nearest to no row leaves no gap
    return Clusters(np.unique(group, return_inverse=True)[1].reshape(-1).astype(np.int64), cosine)


def fit_spherical_centroids(
    unit: Float32,
    n_centroids: int,
    rng: np.random.Generator,
    *,
    n_iterations: int,
    n_points: int = 256,
    starts_spread: bool = False,
) -> Float32:
    """Return (n_centroids, d) of length 1 (Dhillon and Modha 2001, doi:10.1023/A:1007612920971).

    Args:
        unit: (n, d) rows of length 1 (or 0).
        n_centroids: at most n.
        rng: seeds the first centroids.
        n_iterations: of k-means.
        n_points: rows sampled per centroid to learn from, at most.
        starts_spread: initialize by k-means++; otherwise the first centroids are sampled rows.
    """
    import faiss

    kmeans = faiss.Kmeans(
        unit.shape[1],
        n_centroids,
        niter=n_iterations,
        spherical=True,
        seed=int(rng.integers(1, 1 << 31)),
        min_points_per_centroid=1,
        max_points_per_centroid=n_points,
    )
    if starts_spread:
        kmeans.cp.init_method = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
    kmeans.train(unit)
    centroid = np.asarray(kmeans.centroids, np.float32)
    norm = np.linalg.norm(centroid, axis=1, keepdims=True)
    scaled: Float32 = np.divide(centroid, norm, out=np.zeros_like(centroid), where=norm > 0)
    return scaled
