"""Spherical k-means with faiss."""

from __future__ import annotations

import numpy as np

from thresher.numeric.arrays import Float32


def spherical_centers(
    unit: Float32,
    n_centers: int,
    rng: np.random.Generator,
    *,
    n_iterations: int,
    n_points: int = 256,
    starts_spread: bool = False,
) -> Float32:
    """Return the centres of clusters by cosine (Dhillon and Modha 2001, doi:10.1023/A:1007612920971), of length 1.

    Args:
        unit: (n, d) rows of length 1 (or 0).
        n_centers: at most n.
        rng: seeds the first centres.
        n_iterations: of k-means.
        n_points: per centre that are learned from, at most; drawn.
        starts_spread: by k-means++; else the first centres are drawn rows.
    """
    import faiss

    kmeans = faiss.Kmeans(
        unit.shape[1],
        n_centers,
        niter=n_iterations,
        spherical=True,
        seed=int(rng.integers(1, 1 << 31)),
        min_points_per_centroid=1,
        max_points_per_centroid=n_points,
    )
    if starts_spread:
        kmeans.cp.init_method = faiss.ClusteringInitMethod_KMEANS_PLUS_PLUS
    kmeans.train(unit)
    center = np.asarray(kmeans.centroids, np.float32)
    norm = np.linalg.norm(center, axis=1, keepdims=True)
    scaled: Float32 = np.divide(center, norm, out=np.zeros_like(center), where=norm > 0)
    return scaled
