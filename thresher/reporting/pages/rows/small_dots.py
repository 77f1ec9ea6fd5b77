"""The rows of a map that are not laid out: each next to laid-out rows that it resembles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl

from thresher.cache.keys import text_keys
from thresher.dataset import Dataset
from thresher.features import FeatureCache
from thresher.numeric.arrays import Float32, Int64
from thresher.reporting.page import MapPlaces, SmallDots
from thresher.reporting.rendering import MAP_HEIGHT, MAP_WIDTH

MAX_DOTS = 100_000
NEIGHBORS = 3  # laid-out rows whose places are averaged
SHARPNESS = 20.0  # how fast their weights fall with the cosine
REACH = 60.0  # between laid-out rows further apart, a place means nothing
JITTER = 5.0  # so that rows next to the same one do not hide each other
BLOCK = 4_096
SEED = 0


@dataclass(frozen=True)
class Further:
    """Rows beside the laid-out ones: (m,) positions in the pool, and their (m, d) vectors."""

    rows: Int64
    vectors: Float32


def find_further(pool: Dataset, sample: Int64, embedding: Mapping[str, str] | None) -> Further | None:
    """Return other rows with their vectors; None without any, or where the cache lacks some.

    Args:
        pool: every row.
        sample: (s,) positions of the rows that are laid out.
        embedding: `encoder` and `fingerprint` of the vectors.
    """
    if embedding is None or len(sample) == len(pool):
        return None
    others = np.setdiff1d(np.arange(len(pool)), sample)
    n = min(len(others), MAX_DOTS - len(sample))
    rows = np.sort(np.random.default_rng(SEED).permutation(others)[:n])
    vectors = read_cached(pool.take(rows), embedding)
    return None if vectors is None else Further(rows, vectors)


def read_cached(rows: Dataset, embedding: Mapping[str, str]) -> Float32 | None:
    """Return the vectors from the cache, or None when some are missing; loads no model."""
    keys, group = np.unique(text_keys(rows.texts().to_list()), return_inverse=True)
    partition = FeatureCache().partition("embedding", embedding["encoder"], embedding["fingerprint"])
    batches = list(partition.read(keys, on_damage=lambda _: None))
    if sum(len(positions) for positions, _ in batches) < len(keys):
        return None
    vectors = np.zeros((len(keys), batches[0][1].shape[1]), dtype=np.float32)
    for positions, values in batches:
        vectors[positions] = values
    return vectors[group]


def place_small_dots(
    further: Further, vectors: Float32, x: Int64, y: Int64, kept: Int64, of: Sequence[Sequence[int]]
) -> SmallDots:
    """Return further rows as dots, each at the mean of the most similar laid-out rows.

    Cost: O(m s d) time for m rows, s laid-out ones and d dimensions; O(s) memory beyond the rows.

    Args:
        further: the rows.
        vectors: (s, d) of the laid-out rows.
        x: (s,) where those lie.
        y: (s,) the same, downwards.
        kept: (k,) positions of the kept rows in the pool.
        of: for each column, (m,) index of each row's value.
    """
    laid_out, places = _normalize(vectors), np.column_stack([x, y]).astype(np.float32)
    n_near = min(NEIGHBORS, len(places))
    found = np.empty((len(further.rows), 2), dtype=np.float32)
    for start in range(0, len(found), BLOCK):
        cosine = _normalize(further.vectors[start : start + BLOCK]) @ laid_out.T
        near = np.argpartition(-cosine, n_near - 1, axis=1)[:, :n_near]
        value = np.take_along_axis(cosine, near, axis=1)
        first = places[near[np.arange(len(near)), value.argmax(axis=1)]]
        weight = np.exp(SHARPNESS * (value - value.max(axis=1, keepdims=True)))
        # a similar row that lies elsewhere on the map would pull the dot into the void between
        weight *= np.linalg.norm(places[near] - first[:, None], axis=2) <= REACH
        found[start : start + BLOCK] = (weight[:, :, None] * places[near]).sum(axis=1) / weight.sum(axis=1)[:, None]
    found += np.random.default_rng(SEED).normal(0, JITTER, found.shape).astype(np.float32)
    across, down = np.clip(found.round(), 0, [MAP_WIDTH, MAP_HEIGHT]).astype(int).T
    is_kept = np.isin(further.rows, kept)
    return SmallDots(x=across.tolist(), y=down.tolist(), is_kept=is_kept.tolist(), of=of)


def find_places(pool: Dataset, rows: Int64) -> MapPlaces:
    """Return file and line of rows of the pool."""
    frame = pool.frame[rows].select(pl.col("file").cast(pl.String), "line")
    names = frame["file"].unique(maintain_order=True).to_list()
    index = {name: number for number, name in enumerate(names)}
    files = [index[name] for name in frame["file"]]
    return MapPlaces(names=[Path(name).name for name in names], file=files, line=frame["line"].to_list())


def _normalize(vectors: Float32) -> Float32:
    norm = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.where(norm > 0, norm, 1), dtype=np.float32)
