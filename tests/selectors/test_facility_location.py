"""Facility location against brute force, a plain numpy greedy, and apricot-select's `naive`."""

import itertools

import numpy as np
import pytest

from tests.selectors.embeddings import build_features, clipped_cosines
from thresher.errors import InputError
from thresher.selectors.facility_location import FacilityLocation
from thresher.selectors.neighbors import search
from thresher.selectors.submodular import dense_kernel, greedy, small_kernel


def run(x, n_ranked, *, existing=None, **settings):
    data = build_features(x, existing)
    return FacilityLocation(**settings).score(data, n_ranked=n_ranked, rng=np.random.default_rng(0))


def plain_greedy(similarity, k, floor=0.0):
    """Greedy as in the textbook; ties (1e-11) to the lowest row, rows without gain in order."""
    best = np.full(len(similarity), floor) if np.isscalar(floor) else floor.copy()
    picks, values = [], []
    for _ in range(k):
        gain = np.maximum(similarity - best[:, None], 0).sum(axis=0)
        gain[picks] = -np.inf
        most = gain.max()
        close = np.flatnonzero(gain >= most - 1e-11 * (1 + most)) if most > 1e-6 else np.flatnonzero(gain > -np.inf)
        picks.append(int(close[0]))
        best = np.maximum(best, similarity[:, picks[-1]])
        values.append(best.sum())
    return picks, values


def clustered(n, d, n_clusters, seed, share_of_duplicates=0.0):
    rng = np.random.default_rng(seed)
    center = rng.standard_normal((n_clusters, d))
    x = center[rng.integers(n_clusters, size=n)] + 0.5 * rng.standard_normal((n, d))
    copies = rng.choice(n, int(share_of_duplicates * n), replace=False)
    originals = np.setdiff1d(np.arange(n), copies)
    if len(copies):
        x[copies] = x[rng.choice(originals, len(copies))]
    return x.astype(np.float32)


SETS = {
    "gaussian": lambda: np.random.default_rng(0).standard_normal((300, 24)),
    "clusters": lambda: clustered(300, 24, 12, 1),
    "duplicates": lambda: clustered(300, 24, 30, 2, share_of_duplicates=0.3),
    "all positive": lambda: np.abs(np.random.default_rng(3).standard_normal((300, 24))),
    "few dimensions": lambda: np.random.default_rng(4).standard_normal((300, 2)),
    "with zero rows": lambda: clustered(300, 24, 12, 5) * (np.arange(300) % 5 > 0)[:, None],
}


@pytest.fixture
def compiled(monkeypatch):
    """Let the compiled loop pick from few rows, too."""
    monkeypatch.setattr(small_kernel, "MOST_ROWS", 0)


@pytest.mark.parametrize("most_rows", [0, 2000], ids=["compiled", "numpy"])
@pytest.mark.parametrize("name", SETS)
def test_dense_picks_and_objective_equal_plain_greedy_up_to_all_rows(name, monkeypatch, most_rows):
    monkeypatch.setattr(small_kernel, "MOST_ROWS", most_rows)
    x = SETS[name]()
    picks, values = plain_greedy(clipped_cosines(x), 300)
    scores = run(x, 300)
    # gains that float32 resolves
    n_clear = 1 + int(np.flatnonzero(np.diff(values, prepend=0) > 1e-4).max())
    assert n_clear > 100
    assert scores.ranking()[:n_clear].tolist() == picks[:n_clear]
    np.testing.assert_allclose(scores.objective, values, rtol=1e-5)


def test_threads_for_every_pick_or_for_none_change_no_pick(compiled, monkeypatch):
    x = SETS["duplicates"]()
    expected = run(x, 300).ranking().tolist()
    monkeypatch.setattr(dense_kernel, "WORTH_THREADS", 0)
    assert run(x, 300).ranking().tolist() == expected


@pytest.mark.parametrize("name", ["gaussian", "clusters", "duplicates"])
def test_picks_equal_apricot_naive(name):
    apricot = pytest.importorskip("apricot", reason="the bench extra is not installed")
    x = SETS[name]()
    # 40 of 300: later, two rows that cover only each other have equal gains, and apricot's rounding
    # decides
    oracle = apricot.FacilityLocationSelection(40, metric="precomputed", optimizer="naive").fit(clipped_cosines(x))
    scores = run(x, 40)
    assert scores.ranking().tolist() == oracle.ranking.tolist()
    np.testing.assert_allclose(scores.objective, np.cumsum(oracle.gains), rtol=1e-5)


def test_every_prefix_has_63_percent_of_the_best_objective():
    for seed in range(8):
        x = np.random.default_rng(seed).standard_normal((8, 3))
        similarity = clipped_cosines(x)
        objective = run(x, 8).objective
        for k in range(1, 9):
            best = max(similarity[:, list(c)].max(axis=1).sum() for c in itertools.combinations(range(8), k))
            assert (1 - 1 / np.e) * best <= objective[k - 1] <= best * (1 + 1e-6)


def test_complete_neighbor_graph_gives_the_dense_picks():
    for name in ("gaussian", "clusters", "duplicates"):
        x = SETS[name]()
        dense, sparse = run(x, 300, kernel="dense"), run(x, 300, kernel="sparse", n_neighbors=300)
        assert dense.ranking().tolist() == sparse.ranking().tolist()
        assert sparse.notes["kernel"] == "sparse"
        assert sparse.notes["recall"] == 1.0


def test_sparse_picks_equal_plain_greedy_on_the_symmetric_neighbor_kernel():
    x = SETS["clusters"]()
    similarity = clipped_cosines(x)
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :9]  # itself and 8 others
    near = np.zeros_like(similarity, dtype=bool)
    np.put_along_axis(near, nearest, values=True, axis=1)
    picks, values = plain_greedy(np.where(near | near.T, similarity, 0), 120)
    scores = run(x, 120, kernel="sparse", n_neighbors=8)
    assert scores.ranking().tolist() == picks
    np.testing.assert_allclose(scores.objective, values, rtol=1e-5)


def test_inverted_lists_reach_the_recall_they_report(monkeypatch):
    monkeypatch.setattr(search, "EXACT_ROWS", 1000)
    x = clustered(3000, 16, 40, 0)
    scores = run(x, 100, kernel="sparse", n_neighbors=10)
    assert scores.notes["search"] == "inverted lists"
    assert 0.95 <= scores.notes["recall"] <= 1.0
    assert len(set(scores.ranking().tolist())) == 100


def test_existing_rows_count_as_picked():
    x, existing = SETS["clusters"](), clustered(40, 24, 12, 1)
    floor = clipped_cosines(x, existing).max(axis=1)
    picks, values = plain_greedy(clipped_cosines(x), 50, floor)
    scores = run(x, 50, existing=existing)
    assert scores.ranking().tolist() == picks
    np.testing.assert_allclose(scores.objective, values, rtol=1e-5)


def test_pool_equal_to_the_existing_rows_is_ranked_lowest_first():
    x = SETS["gaussian"]()[:20]
    scores = run(x, 20, existing=x)
    assert scores.ranking().tolist() == list(range(20))
    assert scores.notes["n_picks_with_gain"] == 0


def test_covered_by_is_the_most_similar_pick():
    x = SETS["duplicates"]()
    scores = run(x, 20)
    similarity = clipped_cosines(x)[:, scores.ranking()]
    found = clipped_cosines(x)[np.arange(300), scores.covered_by]
    np.testing.assert_allclose(found, similarity.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(scores.similarity, similarity.max(axis=1), atol=1e-6)
    assert (scores.covered_by[scores.ranking()] == scores.ranking()).all()


def test_row_similar_to_no_pick_is_covered_by_none():
    x = np.array([[1.0, 0], [0.9, 0.1], [0.95, 0], [-1, 0], [0, 0]])
    scores = run(x, 1)
    assert scores.covered_by[3] == -1
    assert scores.covered_by[4] == -1
    assert scores.similarity[3] == 0


def test_orthogonal_rows_are_picked_in_order():
    assert run(np.eye(200), 200).ranking().tolist() == list(range(200))


def test_scaled_rows_tie_and_go_to_the_lowest():
    x = np.repeat(np.random.default_rng(0).standard_normal((6, 5)), 2, axis=0) * np.tile([2.0, 8.0], 6)[:, None]
    assert all(pick % 2 == 0 for pick in run(x, 6).ranking())


def test_number_of_threads_changes_nothing(compiled, monkeypatch):
    x = clustered(600, 24, 20, 7)
    two = run(x, 200)
    monkeypatch.setattr(greedy, "count_threads", lambda: 1)
    monkeypatch.setattr(dense_kernel, "count_threads", lambda: 1)
    one = run(x, 200)
    assert one.value.tobytes() == two.value.tobytes()
    assert one.objective.tobytes() == two.objective.tobytes()


def test_dense_kernel_beyond_the_memory_plan_is_refused_and_auto_goes_sparse():
    x = SETS["gaussian"]()
    with pytest.raises(InputError, match="max_kernel_gb"):
        run(x, 5, kernel="dense", max_kernel_gb=1e-4)
    assert run(x, 5, max_kernel_gb=1e-4).notes["kernel"] == "sparse"
    assert run(x, 5).notes["kernel"] == "dense"


def test_close_gains_are_settled_in_float64_not_by_rounding_of_the_kernel(compiled, monkeypatch):
    # equal directions, unequal bytes: nothing merges
    x = SETS["duplicates"]() * np.linspace(0.1, 9, 300)[:, None]
    picks, _ = plain_greedy(clipped_cosines(x), 150)
    exact = dense_kernel.compute_kernel
    noise = np.random.default_rng(0)

    def noisy(unit, products):
        out = exact(unit, products)
        error = np.tril(noise.standard_normal(out.shape) * 6e-8)
        return out + (error + np.tril(error, -1).T).astype(np.float32)

    monkeypatch.setattr(dense_kernel, "compute_kernel", noisy)
    agree = np.mean(np.array(run(x, 150).ranking()) == np.array(picks))
    assert agree == 1.0
