"""Compute one value per text: each distinct text once, finished ones read from the cache."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch, ComputeBatches
from thresher.cache.feature_cache import CachePartition
from thresher.cache.keys import text_keys
from thresher.cache.memory_map import empty_array
from thresher.numeric.arrays import Array, Int64
from thresher.progress import OnProgress, Progress

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
) -> Array | None:
    """Return (n, ...) values, one per text in order, or None when there are no texts.

    The value of a text is a function of the text alone, so repeats are computed once and a cached
    value stands for a computed one. Cost: one sort of n 16-byte keys besides the model's work.

    Args:
        texts: (n,) string, no nulls.
        compute: yields the values of the texts it is given, in any order, in batches.
        feature: its name, for progress.
        partition: the cache's part for this feature and model; None computes everything.
        on_progress: called after each batch, and where a cache chunk is damaged.
    """
    if len(texts) == 0:
        return None
    work = TextValues(texts, feature, folder=None if partition is None else partition.cache.root)
    n_cached = 0

    def report(note: str | None = None, *, is_warning: bool = False) -> None:
        if on_progress is not None:
            total = len(work.keys)
            done = work.n_done
            on_progress(
                Progress(stage=feature, done=done, total=total, n_cached=n_cached, note=note, is_warning=is_warning)
            )

    def report_damage(path: Path) -> None:
        report(f"{path}: this cache chunk was damaged; it was deleted and its rows are computed again", is_warning=True)

    if partition is not None:
        for positions, values in partition.read(work.keys, on_damage=report_damage):
            work.fill(positions, values)
        n_cached = work.n_done
    report()
    missing = np.flatnonzero(work.is_missing)
    if len(missing):
        batches = (Batch(missing[at], values) for at, values in compute(texts.gather(work.first[missing])))
        for positions, values in batches if partition is None else _store(batches, partition, work.keys):
            work.fill(positions, values)
            report()
    return work.spread()


class TextValues:
    """The distinct texts of a column, and the values that are known of them so far.

    Attributes:
        keys: (u,) S16 of the distinct texts, sorted.
        first: (u,) int64 row of the first such text.
        is_missing: (u,) bool, whether a value is still to come.
    """

    def __init__(self, texts: pl.Series, feature: str, *, folder: Path | None) -> None:
        """Find the distinct texts.

        Args:
            texts: (n,) string, at least one, no nulls.
            feature: its name, for messages.
            folder: where an array that is larger than memory may lie; None for memory.
        """
        slices = (texts[start : start + SLICE_ROWS].to_list() for start in range(0, len(texts), SLICE_ROWS))
        keys = np.concatenate([text_keys(part) for part in slices])
        # _group: (n,) position in `keys` of each row's text
        self.keys, self.first, self._group = np.unique(keys, return_index=True, return_inverse=True)
        self.is_missing = np.ones(len(self.keys), dtype=bool)
        self.n_done = 0
        self._out: Array | None = None
        self._folder = folder
        self._feature = feature

    def fill(self, positions: Int64, values: Array) -> None:
        """Enter the values of some of the distinct texts."""
        if self._out is None:
            self._out = empty_array((len(self._group), *values.shape[1:]), values.dtype, self._folder)
        self._out[self.first[positions]] = values
        self.is_missing[positions] = False
        self.n_done += len(positions)

    def spread(self) -> Array:
        """Return (n, ...) the values of all texts, repeats included."""
        if self._out is None or self.is_missing.any():
            raise AssertionError(f"{int(self.is_missing.sum())} texts got no value of '{self._feature}'")
        source = self.first[self._group]  # (n,) row that holds the value of each row
        repeats = np.flatnonzero(source != np.arange(len(source)))
        self._out[repeats] = self._out[source[repeats]]
        return self._out


def _store(batches: Iterator[Batch], partition: CachePartition, keys: NDArray[np.bytes_]) -> Iterator[Batch]:
    """Pass batches on, and store a chunk every few thousand rows or seconds."""
    pending: list[Batch] = []
    n_chunks, last = 0, time.monotonic()

    def write() -> None:
        positions = np.concatenate([batch.positions for batch in pending])
        partition.write(keys[positions], np.concatenate([batch.values for batch in pending]))
        pending.clear()

    for batch in batches:
        pending.append(batch)
        is_due = sum(len(each.positions) for each in pending) >= CHUNK_ROWS or time.monotonic() - last >= CHUNK_SECONDS
        if is_due:
            write()
            n_chunks, last = n_chunks + 1, time.monotonic()
            if n_chunks % CHUNKS_PER_LIMIT_CHECK == 0:
                partition.cache.enforce_limit()
        yield batch
    if pending:
        write()
    partition.cache.enforce_limit()
