import errno
import gc
import os

import numpy as np
import polars as pl
import pytest

from thresher.cache import memory_map
from thresher.cache.batch import Batch
from thresher.cache.by_text import compute_cached
from thresher.cache.feature_cache import FeatureCache
from thresher.cache.memory_map import empty_array
from thresher.errors import OutputError


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr(memory_map, "MAPPED_BYTES", 100)


def test_a_large_array_lies_in_a_file_without_a_name(small_limit, tmp_path):
    array = empty_array((10, 4), np.float32, tmp_path / "new")
    array[:] = np.arange(40).reshape(10, 4)
    assert isinstance(array.base, np.memmap)
    assert list((tmp_path / "new").iterdir()) == []
    del array
    gc.collect()
    assert list((tmp_path / "new").iterdir()) == []


def test_small_arrays_and_those_without_a_folder_are_in_memory(small_limit, tmp_path):
    for array in (empty_array((5, 4), np.float32, tmp_path), empty_array((10, 4), np.float32, None)):
        assert array.base is None
        assert array.flags.owndata


def test_no_room_is_told_before_anything_is_written(small_limit, tmp_path, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"0\.0 GB of room are required .* got 'No space left on device'; free space"):
        empty_array((10, 4), np.float32, tmp_path)


def test_values_in_a_file_are_those_in_memory(small_limit, tmp_path, make_sentences):
    texts = pl.Series([*make_sentences(30), *make_sentences(10)])

    def lengths(part):
        yield Batch(np.arange(len(part)), np.stack([part.str.len_chars().to_numpy()] * 3, axis=1))

    partition = FeatureCache(tmp_path).partition("length", "m", "f" * 32)
    mapped_values = compute_cached(texts, lengths, feature="length", partition=partition, on_progress=None)
    assert isinstance(mapped_values.base, np.memmap)
    np.testing.assert_array_equal(
        mapped_values, compute_cached(texts, lengths, feature="length", partition=None, on_progress=None)
    )
