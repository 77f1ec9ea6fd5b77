"""Which expert a row belongs to, and which one a question goes to."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from thresher.experiments.attribution.row_influence import GradientSketcher
from thresher.features import load_encoder, resolve_encoder
from thresher.numeric.arrays import Float32, Int64
from thresher.numeric.kmeans import spherical_kmeans
from thresher.trainer.context import RunContext
from thresher.trainer.engine.tokenization import Examples

DIM = 1024  # of a gradient sketch


@dataclass(frozen=True)
class Division:
    """Rows divided among experts, and where questions go.

    Attributes:
        cluster: (n,) of each training row.
        centroids: (k, d) unit means of the prompts of each cluster, by which questions are routed;
            None for random clusters.
        route: (m,) expert of each held-out row.
        agreement: share of the training rows whose own prompt is routed to their cluster, or None.
    """

    cluster: Int64
    centroids: Float32 | None
    route: Int64
    agreement: float | None


def embed_prompts(prompts: list[str], encoder: str | None, *, device: str | None = None) -> Float32:
    """Return unit embeddings of prompts: (n, d)."""
    vectors: Float32 = load_encoder(resolve_encoder(encoder, device=device), device=device).encode(prompts)
    return vectors


def sketch_rows(context: RunContext, examples: Examples, model: Any) -> Float32:
    """Return unit gradient sketches of rows at the common adapter: (n, DIM).

    The gradient of a class points with the label, so that rows would be divided by their answers,
    which no question shows, and two tasks with contradicting labels would share a cluster. So for
    classifiers it is that of the first class, whatever the row's own: what its text would change.
    """
    sketcher = GradientSketcher(model, task=context.task, dim=DIM, device=context.accelerator.device)
    rows = examples.rows
    if context.task == "classification":
        rows = [replace(row, labels=[0]) for row in rows]
    g = sketcher.sketch_all(rows)
    unit: Float32 = g / np.maximum(np.linalg.norm(g, axis=1, keepdims=True), np.finfo(np.float32).tiny)
    return unit


def divide(rows: Float32, prompts: Float32, questions: Float32, k: int, *, seed: int) -> Division:
    """Divide rows by k-means on directions; route each question to the nearest mean of prompts.

    Args:
        rows: (n, d) unit vectors that are divided.
        prompts: (n, e) unit embeddings of the same rows' prompts.
        questions: (m, e) of the held-out rows.
        k: clusters; fewer come out where rows are equal.
        seed: of the start of k-means.
    """
    cluster = spherical_kmeans(rows, k, np.random.default_rng(seed)).group
    means = np.stack([prompts[cluster == one].mean(axis=0) for one in range(cluster.max() + 1)])
    centroids = (means / np.maximum(np.linalg.norm(means, axis=1, keepdims=True), 1e-12)).astype(np.float32)
    own = np.argmax(prompts @ centroids.T, axis=1)
    return Division(
        cluster=cluster,
        centroids=centroids,
        route=np.argmax(questions @ centroids.T, axis=1).astype(np.int64),
        agreement=float((own == cluster).mean()),
    )


def divide_at_random(division: Division, *, seed: int) -> Division:
    """Return clusters of the same sizes and routes of the same shares, at random."""
    rng = np.random.default_rng([seed, 1])
    return Division(
        cluster=rng.permutation(division.cluster), centroids=None, route=rng.permutation(division.route), agreement=None
    )
