"""Clusters of embeddings."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.kmeans import spherical_centers
from thresher.numeric.vectors import distinct_rows, unit_rows

N_ITERATIONS = 25


class Clusters(NamedTuple):
    """Clusters of rows.

    Attributes:
        group: (n,) int64, the cluster of each row, 0..n_clusters - 1; none is empty.
        cosine: (n,) float64, cosine of each row with its centroid.
    """

    group: Int64
    cosine: Float64


def spherical_kmeans(embedding: Float32, n_clusters: int, rng: np.random.Generator) -> Clusters:
    """Group rows by cosine with k-means, started by k-means++.

    Args:
        embedding: (n, d), any length.
        n_clusters: at most; there are never more clusters than distinct rows.
        rng: seeds the centroids.
    """
    unit = unit_rows(embedding)
    n_clusters = min(n_clusters, len(distinct_rows(unit).first))
    centroid = spherical_centers(unit, n_clusters, rng, n_iterations=N_ITERATIONS, starts_spread=True)
    group = np.empty(len(unit), np.int64)
    for first in range(0, len(unit), 8192):
        group[first : first + 8192] = (unit[first : first + 8192] @ centroid.T).argmax(axis=1)
    cosine = np.einsum("ij,ij->i", unit, centroid[group], dtype=np.float64)
    return Clusters(np.unique(group, return_inverse=True)[1].reshape(-1).astype(np.int64), cosine)
