"""What several tests of selectors need: features of given vectors, and their kernel in float64."""

import numpy as np
import polars as pl

from thresher.features.container import Features


def build_features(x, existing=None):
    context = {} if existing is None else {"existing_embedding": np.asarray(existing, np.float32)}
    ids = pl.Series([f"{i:06d}" for i in range(len(x))])
    return Features(row_id=ids, arrays={"embedding": np.asarray(x, np.float32)}, context=context)


def clipped_cosines(x, y=None):
    """Cosines in float64, clipped at 0; equal rows have equal columns, unlike in a product."""
    x = np.asarray(x, np.float32).astype(np.float64)
    y = x if y is None else np.asarray(y, np.float32).astype(np.float64)
    length = [np.maximum(np.linalg.norm(a, axis=1, keepdims=True), 1e-300) for a in (x, y)]
    return np.maximum(np.einsum("id,jd->ij", x / length[0], y / length[1]), 0)


def clustered(n=60, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((8, 12))[rng.integers(8, size=n)] + 0.6 * rng.standard_normal((n, 12))).astype(
        np.float32
    )
