import numpy as np
import pytest

from thresher.numeric.matmul import NUMPY
from thresher.selectors.neighbors import inverted_lists
from thresher.selectors.neighbors.graph import build_symmetric_graph
from thresher.selectors.neighbors.inverted_lists import search_inverted_lists


def unit_rows(n, d, seed=0, n_clusters=20, spread=0.5):
    rng = np.random.default_rng(seed)
    center = rng.standard_normal((n_clusters, d))
    x = center[rng.integers(n_clusters, size=n)] + spread * rng.standard_normal((n, d))
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def true_neighbors(unit, k):
    return np.argsort(-(unit.astype(np.float64) @ unit.T.astype(np.float64)), axis=1, kind="stable")[:, :k]


def share_found(found, truth):
    return np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, truth, strict=True)])


def search(unit, k, *, min_recall=0.95, seed=0, products=NUMPY):
    return search_inverted_lists(unit, k, np.random.default_rng(seed), products, min_recall=min_recall)


@pytest.fixture
def small_lists(monkeypatch):
    monkeypatch.setattr(inverted_lists, "LIST_ROWS", 16)
    monkeypatch.setattr(inverted_lists, "FIRST_COMPARED", 32)


def test_a_search_of_all_lists_is_exact(small_lists, monkeypatch):
    unit = unit_rows(700, 12)
    monkeypatch.setattr(inverted_lists, "FIRST_COMPARED", 10_000)
    monkeypatch.setattr(inverted_lists, "PRODUCT_ENTRIES", 999)
    monkeypatch.setattr(inverted_lists, "BLOCK_ROWS", 300)
    found = search(unit, 10)
    assert found.recall == 1.0
    assert found.n_compared == 700
    np.testing.assert_array_equal(np.sort(found.row, axis=1), np.sort(true_neighbors(unit, 10), axis=1))


def test_the_recall_told_is_the_recall_there_is(small_lists):
    unit = unit_rows(3_000, 16)
    truth = true_neighbors(unit, 20)
    for least in (0.5, 0.9, 0.99):
        found = search(unit, 20, min_recall=least)
        assert found.recall >= least
        assert found.recall == pytest.approx(share_found(found.row, truth), abs=0.02)


def test_more_recall_compares_more_rows(small_lists):
    unit = unit_rows(3_000, 16)
    low, high = search(unit, 20, min_recall=0.5), search(unit, 20, min_recall=0.99)
    assert low.n_compared < high.n_compared < 3_000


def test_the_work_is_bounded_and_its_recall_still_told(small_lists, monkeypatch):
    monkeypatch.setattr(inverted_lists, "MAX_COMPARED", 64)
    unit = unit_rows(3_000, 32, n_clusters=1, spread=1.0)
    found = search(unit, 20, min_recall=0.99)
    assert found.n_compared < 200
    assert found.recall < 0.9
    assert found.recall == pytest.approx(share_found(found.row, true_neighbors(unit, 20)), abs=0.03)


def test_the_same_seed_finds_the_same(small_lists):
    unit = unit_rows(1_000, 16)
    np.testing.assert_array_equal(search(unit, 10).row, search(unit, 10).row)


def test_no_row_is_found_twice_and_each_finds_itself(small_lists):
    found = search(unit_rows(1_000, 16), 10)
    assert all(len(set(row)) == 10 for row in found.row.tolist())
    assert (found.row == np.arange(1_000)[:, None]).any(axis=1).all()


def test_lists_too_small_for_the_neighbors_leave_places_empty(small_lists, monkeypatch):
    monkeypatch.setattr(inverted_lists, "FIRST_COMPARED", 1)
    monkeypatch.setattr(inverted_lists, "MAX_COMPARED", 1)
    found = search(unit_rows(1_000, 16), 64)
    assert (found.row == -1).any()
    graph = build_symmetric_graph(unit_rows(1_000, 16), found.row)
    assert graph.row.min() >= 0


def test_few_rows_equal_rows_and_zero_rows_are_searched():
    unit = np.zeros((5, 4), np.float32)
    unit[:3, 0] = 1
    found = search(unit, 5)
    assert all(sorted(row) == [0, 1, 2, 3, 4] for row in found.row.tolist())


def reference_graph(unit, found):
    """The pairs of found neighbors, both ways, with the diagonal and without cosines up to 0."""
    cosine = unit.astype(np.float64) @ unit.T.astype(np.float64)
    is_near = np.eye(len(unit), dtype=bool)
    for i, row in enumerate(found):
        is_near[i, row[row >= 0]] = True
    return np.where(is_near | is_near.T, np.maximum(cosine, 0), 0)


@pytest.mark.parametrize("d", [1, 8, 13])
def test_the_graph_holds_found_pairs_both_ways(d):
    unit = unit_rows(60, d)
    unit[7] = 0
    found = np.argsort(-(unit @ unit.T), axis=1)[:, :6].astype(np.int32)
    found[np.random.default_rng(0).random(found.shape) < 0.1] = -1
    graph = build_symmetric_graph(unit, found)
    dense = np.zeros((60, 60))
    for i in range(60):
        row = graph.row[graph.start[i] : graph.start[i + 1]]
        assert (np.diff(row) > 0).all()
        dense[i, row] = graph.similarity[graph.start[i] : graph.start[i + 1]]
    np.testing.assert_allclose(dense, reference_graph(unit, found), atol=1e-6)
    np.testing.assert_array_equal(dense, dense.T)
    assert len(graph.row) == len(graph.similarity) == graph.start[-1]


def test_rows_that_are_all_equal_are_not_each_compared_with_each(small_lists):
    unit = np.zeros((3_000, 4), np.float32)
    unit[:, 0] = 1
    unit[:1_000] = unit_rows(1_000, 4)
    found = search(unit, 10)
    assert found.n_compared < 600  # a list has at most 8 * 16 rows
    assert found.recall > 0.95
    graph = build_symmetric_graph(unit, found.row)
    assert np.diff(graph.start)[1_000:].min() >= 10
