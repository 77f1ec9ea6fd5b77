"""Parts of a pool: rows near one centroid, so that equal and nearly equal rows are in one part."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from thresher.artifacts.folder import atomic_file
from thresher.features.container import Features
from thresher.numeric.arrays import Array, Float32, Int64
from thresher.numeric.vectors import unit_rows
from thresher.selection.distributed.shard_features import features_path, read_features
from thresher.selection.distributed.stage import FILES, Record, shard_name
from thresher.selectors import Selector

EMBEDDING = "embedding"
CLOSE = 1e-4  # cosines of a row with two centroids that float32 may confuse
BLOCK_CELLS = 1 << 22  # cosines computed at once


@dataclass(frozen=True, kw_only=True)
class SampleRows:
    """Fetches the embeddings of some rows of a shard.

    Attributes:
        features: folder of the feature files.
        sampled: by shard, which of its rows.
        folder: for the result.
    """

    features: Path
    sampled: Mapping[int, Int64]
    folder: Path
    name: str = "sample"
    memory_bytes: int = 0

    def __call__(self, number: int) -> Record:
        """Write the embeddings of the sampled rows of a shard."""
        arrays, _ = read_features(features_path(self.features, number), [EMBEDDING])
        written = write_arrays(self.folder, number, {EMBEDDING: arrays[EMBEDDING][self.sampled[number]]})
        return {FILES: [written], "rows": len(self.sampled[number])}


@dataclass(frozen=True, kw_only=True)
class AssignShard:
    """Puts the rows of a shard into parts, and writes them so that each part is one stretch.

    Attributes:
        features: folder of the feature files.
        centroids: file of the (p, d) centroids.
        numbers: folder with the numbers of each shard's rows in the order of ids.
        folder: for the result.
    """

    features: Path
    centroids: Path
    numbers: Path
    folder: Path
    name: str = "partition"
    memory_bytes: int = 0

    def __call__(self, number: int) -> Record:
        """Write `number`, `index`, `embedding` of the rows by part, and `start` of each part."""
        features, _ = read_features(features_path(self.features, number), [EMBEDDING])
        x, numbers = features[EMBEDDING], np.load(number_path(self.numbers, number))
        centroid: Float32 = np.load(self.centroids)
        part = nearest_centroid(x, centroid)
        index = np.lexsort((numbers, part)).astype(np.int64)
        start = np.searchsorted(part[index], np.arange(len(centroid) + 1)).astype(np.int64)
        arrays = {"number": numbers[index], "index": index, EMBEDDING: x[index], "start": start}
        written = write_arrays(self.folder, number, arrays)
        return {FILES: [written], "rows": len(x), "parts": np.diff(start).tolist()}


def nearest_centroid(x: Float32, centroid: Float32) -> Int64:
    """Return the centroid with the largest cosine for each row, (n,): the same for equal rows.

    Where float32 could confuse two, cosines are compared in float64, summed row by row; ties go to
    the lowest.
    """
    nearest = np.empty(len(x), np.int64)
    step = max(1, BLOCK_CELLS // len(centroid))
    for first in range(0, len(x), step):
        unit = unit_rows(x[first : first + step])
        cosine = unit @ centroid.T
        best = cosine.max(axis=1)
        nearest[first : first + step] = cosine.argmax(axis=1)
        # every centroid so near the best that float32 may have confused the two, compared exactly
        row, candidate = np.nonzero(cosine > (best - CLOSE)[:, None])
        exact = _exact_products(unit, row, centroid, candidate)
        # of each row the largest product first, ties by the lowest centroid: the first entry leads
        order = np.lexsort((candidate, -np.round(exact, 9), row))
        leads = np.concatenate([[True], row[order][1:] != row[order][:-1]]) if len(row) else np.zeros(0, np.bool_)
        nearest[first + row[order][leads]] = candidate[order][leads]
    return nearest


def _exact_products(x: Float32, row: Int64, y: Float32, other: Int64) -> NDArray[np.float64]:
    """Return the products of pairs of rows in float64, (m,), block by block: there may be many."""
    products = np.empty(len(row))
    step = max(1, BLOCK_CELLS // x.shape[1])
    for first in range(0, len(row), step):
        pairs = slice(first, first + step)
        products[pairs] = np.einsum("ij,ij->i", x[row[pairs]].astype(np.float64), y[other[pairs]].astype(np.float64))
    return products


@dataclass(frozen=True, kw_only=True)
class ChoosePart:
    """Chooses from the rows of one part, for the first of two rounds.

    Attributes:
        assigned: folder of `AssignShard`.
        n_shards: files in it.
        selector: with its settings.
        n_ranked: by part, how many rows to rank.
        side_inputs: file of the features of rows beside the pool.
        seed: of the selection.
        folder: for the result.
        memory_bytes: of the largest part.
    """

    assigned: Path
    n_shards: int
    selector: Selector
    n_ranked: tuple[int, ...]
    side_inputs: Path
    seed: int
    folder: Path
    memory_bytes: int
    name: str = "first round"

    def __call__(self, number: int) -> Record:
        """Write `number`, `embedding`, `weight` (rows it represents) of each pick, best first."""
        numbers, x = self._rows(number)
        features = Features(
            row_id=build_ids(numbers), arrays={EMBEDDING: x}, context=load_file(self.side_inputs) if len(x) else {}
        )
        picks, weight = np.empty(0, np.int64), np.empty(0, np.int64)
        if len(x):
            rng = np.random.default_rng([self.seed, number])
            scores = self.selector.score(features, n_ranked=self.n_ranked[number], rng=rng)
            picks = scores.ranking()
            by = scores.covered_by if scores.covered_by is not None else np.arange(len(x))
            weight = np.bincount(by[by >= 0], minlength=len(x))[picks].astype(np.int64)
        arrays: dict[str, Array] = {"number": numbers[picks], EMBEDDING: x[picks], "weight": weight}
        return {FILES: [write_arrays(self.folder, number, arrays)], "rows": len(x), "picks": len(picks)}

    def _rows(self, part: int) -> tuple[Int64, Float32]:
        """Return numbers and embeddings of the rows of a part, in the order of the numbers."""
        numbers, vectors = [np.empty(0, np.int64)], []
        for shard in range(self.n_shards):
            with safe_open(arrays_path(self.assigned, shard), framework="numpy") as file:
                low, high = file.get_slice("start")[part : part + 2].tolist()
                if low < high:  # safetensors refuses an empty slice at the end
                    numbers.append(file.get_slice("number")[low:high])
                    vectors.append(file.get_slice(EMBEDDING)[low:high])
                elif not vectors:
                    vectors.append(np.empty((0, file.get_slice(EMBEDDING).get_shape()[1]), np.float32))
        number, x = np.concatenate(numbers), np.concatenate(vectors)
        order = np.argsort(number)
        return number[order], x[order]


def build_ids(numbers: Int64) -> pl.Series:
    """Return ids that sort as the numbers do."""
    return pl.Series("row_id", numbers).cast(pl.String).str.zfill(20)


def write_arrays(folder: Path, number: int, arrays: Mapping[str, Array]) -> Path:
    """Write arrays of a shard or part to one file, and return its path."""
    written = arrays_path(folder, number)
    with atomic_file(written) as path:
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, path)
    return written


def arrays_path(folder: Path, number: int) -> Path:
    """Return where the arrays of a shard or part lie."""
    return folder / f"{shard_name(number)}.safetensors"


def number_path(folder: Path, number: int) -> Path:
    """Return where the numbers of a shard's rows lie."""
    return folder / f"{shard_name(number)}.npy"


def concatenate_arrays(folder: Path, numbers: Sequence[int]) -> dict[str, Array]:
    """Return the arrays of several files, one after the other."""
    parts = [load_file(arrays_path(folder, number)) for number in numbers]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
