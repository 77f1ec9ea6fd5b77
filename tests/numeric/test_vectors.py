"""Lengths and groups of rows, and how much memory they take."""

import tracemalloc

import numpy as np

from thresher.numeric.vectors import distinct_rows, inverse_norms, unit_rows
from thresher.selectors.submodular.kernels import similarity_to_existing


def peak_bytes(call):
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_a_row_too_short_for_float32_is_a_zero_row_and_no_infinity():
    x = np.array([[3, 4], [1e-40, 0], [0, 0], [3e-38, 0]], np.float32)
    np.testing.assert_allclose(unit_rows(x), [[0.6, 0.8], [0, 0], [0, 0], [1, 0]], rtol=1e-6)


def test_equal_rows_are_grouped_without_a_copy_of_all_rows():
    x = np.random.default_rng(0).standard_normal((20_000, 128)).astype(np.float32)
    x[19_999] = x[3]
    result = []
    assert peak_bytes(lambda: result.append(distinct_rows(x))) < x.nbytes / 2
    assert len(result[0].first) == 19_999
    assert result[0].group[19_999] == result[0].group[3]


def test_many_existing_rows_are_compared_block_by_block():
    rng = np.random.default_rng(0)
    x, existing = (rng.standard_normal((n, 4)).astype(np.float32) for n in (1_000, 30_000))
    result = []
    # all pairs would take 120 MB
    assert peak_bytes(lambda: result.append(similarity_to_existing(x, inverse_norms(x), existing))) < 40e6
    nearest = np.maximum((unit_rows(x) @ unit_rows(existing).T).max(axis=1), 0)
    np.testing.assert_allclose(result[0], nearest, atol=1e-6)
