"""Compute one value per text: each distinct text once, finished ones from the cache, new ones into it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch, ComputeBatches
from thresher.cache.feature_cache import CachePartition
from thresher.cache.keys import text_keys
from thresher.cache.memory_map import empty_array
from thresher.numeric.arrays import Array
from thresher.progress import OnProgress, Progress

if TYPE_CHECKING:
    from thresher.cache.dry_run import Rehearsal

CHUNK_ROWS = 4096
CHUNK_SECONDS = 5.0
CHUNKS_PER_LIMIT_CHECK = 256
SLICE_ROWS = 65_536  # texts turned into Python strings at a time


def compute_cached(
    texts: pl.Series,
    compute: ComputeBatches,
    *,
    feature: str,
    partition: CachePartition | None,
    on_progress: OnProgress | None,
    together: NDArray[np.int64] | None = None,
    size: NDArray[np.int64] | None = None,
) -> Array | None:
    """Return (n, ...) values, one per text in order, or None when there are no texts.

    The value of a text is a function of the text alone, so repeats are computed once and a cached
    value stands for a computed one. Cost: one sort of n 16-byte keys besides the model's work.

    Args:
        texts: (n,) string, no nulls.
        compute: yields the values of the texts it is given, in any order, in batches.
        feature: its name, for progress.
        partition: the cache's part for this feature and model; None computes everything.
        on_progress: told of each batch, and of damaged cache chunks.
        together: (n,) groups of texts that share work; only a rehearsal looks at them.
        size: (n,) of what is behind each text, where texts are short names of something longer;
            only a rehearsal looks at it, and takes the bytes of the texts where it is not given.
    """
    if len(texts) == 0:
        return None
    work = _Work(texts, feature, on_progress, folder=None if partition is None else partition.cache.root)
    if partition is not None and partition.cache.rehearsal is not None:
        size = texts.str.len_bytes().to_numpy().astype(np.int64) if size is None else size
        return _rehearsed(work, texts, compute, feature, partition, partition.cache.rehearsal, together, size)
    if partition is not None:
        for positions, values in partition.read(work.keys, on_damage=work.report_damage):
            work.fill(positions, values)
        work.n_cached = work.n_done
    work.report()
    missing = np.flatnonzero(work.is_missing)
    if len(missing):
        writer = _ChunkWriter(partition, work.keys) if partition is not None else None
        for batch in compute(texts.gather(work.first[missing])):
            positions = missing[batch.positions]
            work.fill(positions, batch.values)
            if writer is not None:
                writer.add(positions, batch.values)
            work.report()
        if writer is not None:
            writer.close()
    return work.result()


def _rehearsed(
    work: _Work,
    texts: pl.Series,
    compute: ComputeBatches,
    feature: str,
    partition: CachePartition,
    rehearsal: Rehearsal,
    together: NDArray[np.int64] | None,
    size: NDArray[np.int64],
) -> Array:
    """Run a few batches, and give the texts that were not computed the values of others: only the costs are true."""
    if rehearsal.reads_cache:
        for positions, values in partition.read(work.keys, on_damage=work.report_damage, is_used=False):
            work.fill(positions, values)
    missing = np.flatnonzero(work.is_missing)
    first = work.first[missing]
    found = rehearsal.run(
        feature,
        lambda chosen: compute(texts.gather(first[chosen])),
        size[first],
        None if together is None else together[first],
        n_cached=work.n_done,
    )
    for entries, values in found:
        work.fill(missing[entries], values)
    left = np.flatnonzero(work.is_missing)
    if len(left):
        values = found[-1][1]
        work.fill(left, values[np.arange(len(left)) % len(values)])
    return work.result()


class _Work:
    """The distinct texts, which of them are done, and the array that the result grows in."""

    def __init__(self, texts: pl.Series, feature: str, on_progress: OnProgress | None, *, folder: Path | None) -> None:
        slices = (texts[start : start + SLICE_ROWS].to_list() for start in range(0, len(texts), SLICE_ROWS))
        keys = np.concatenate([text_keys(part) for part in slices])
        # keys (u,) S16 sorted; first (u,) row of the first such text; group (n,) key of each row
        self.keys, self.first, self.group = np.unique(keys, return_index=True, return_inverse=True)
        self.is_missing = np.ones(len(self.keys), dtype=bool)
        self.n_done = 0
        self.n_cached = 0
        self._out: Array | None = None
        self._folder = folder
        self._feature = feature
        self._on_progress = on_progress

    def fill(self, positions: NDArray[np.int64], values: Array) -> None:
        if self._out is None:
            self._out = empty_array((len(self.group), *values.shape[1:]), values.dtype, self._folder)
        self._out[self.first[positions]] = values
        self.is_missing[positions] = False
        self.n_done += len(positions)

    def result(self) -> Array:
        if self._out is None or self.is_missing.any():
            raise AssertionError(f"{int(self.is_missing.sum())} texts got no value of '{self._feature}'")
        source = self.first[self.group]  # (n,) row that holds the value of each row
        repeats = np.flatnonzero(source != np.arange(len(source)))
        self._out[repeats] = self._out[source[repeats]]
        return self._out

    def report(self, note: str | None = None) -> None:
        if self._on_progress is not None:
            total = len(self.keys)
            event = Progress(stage=self._feature, done=self.n_done, total=total, n_cached=self.n_cached, note=note)
            self._on_progress(event)

    def report_damage(self, path: Path) -> None:
        self.report(f"{path}: this cache chunk was damaged; it was deleted and its rows are computed again")


class _ChunkWriter:
    """Collects batches and writes a chunk every few thousand rows or seconds: all that a kill can lose."""

    def __init__(self, partition: CachePartition, keys: NDArray[np.bytes_]) -> None:
        self._shelf = partition
        self._keys = keys
        self._pending: list[Batch] = []
        self._n_rows = 0
        self._n_chunks = 0
        self._last = time.monotonic()

    def add(self, positions: NDArray[np.int64], values: Array) -> None:
        self._pending.append(Batch(positions, values))
        self._n_rows += len(positions)
        if self._n_rows >= CHUNK_ROWS or time.monotonic() - self._last >= CHUNK_SECONDS:
            self._write()

    def close(self) -> None:
        if self._pending:
            self._write()
        self._shelf.cache.enforce_limit()

    def _write(self) -> None:
        positions = np.concatenate([batch.positions for batch in self._pending])
        self._shelf.write(self._keys[positions], np.concatenate([batch.values for batch in self._pending]))
        self._pending = []
        self._n_rows = 0
        self._n_chunks += 1
        self._last = time.monotonic()
        if self._n_chunks % CHUNKS_PER_LIMIT_CHECK == 0:
            self._shelf.cache.enforce_limit()
