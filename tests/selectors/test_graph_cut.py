"""Graph cut against a plain greedy in float64 with the paper's formula."""

import numpy as np
import pytest

from tests.selectors.embeddings import build_features, clipped_cosines, clustered
from thresher.errors import InputError
from thresher.selectors import graph_cut as module
from thresher.selectors.graph_cut import GraphCut
from thresher.selectors.submodular import memory


def run(x, n_ranked, *, existing=None, **settings):
    return GraphCut(**settings).score(build_features(x, existing), n_ranked=n_ranked, rng=np.random.default_rng(0))


def cut(s, picks, redundancy, beside=None):
    """Return f of some picks and existing rows: `s` (n, n), `beside` (n, p)."""
    rows = s[:, picks] if beside is None else np.concatenate([s[:, picks], beside], axis=1)
    inner = s[np.ix_(picks, picks)].sum()
    shared = 0 if beside is None else 2 * beside[picks].sum()
    return rows.sum() - redundancy * (inner + shared)


def plain_greedy(s, k, redundancy, beside=None):
    """Try every candidate at every step, by the formula; ties (1e-9) to the lowest row."""
    picks, values = [], []
    for _ in range(k):
        rest = [j for j in range(len(s)) if j not in picks]
        found = np.array([cut(s, [*picks, j], redundancy, beside) for j in rest])
        picks.append(rest[np.flatnonzero(found >= found.max() - 1e-9)[0]])
        values.append(found.max())
    return picks, np.array(values)


@pytest.mark.parametrize("redundancy", [0.0, 0.3, 0.5, 2.0, 10.0])
@pytest.mark.parametrize("with_duplicates", [False, True])
def test_picks_and_objective_equal_plain_greedy(redundancy, with_duplicates):
    x = clustered()
    if with_duplicates:
        x[[7, 20, 41, 5]] = x[3]
    picks, values = plain_greedy(clipped_cosines(x), 30, redundancy)
    found = run(x, 30, redundancy=redundancy)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, rtol=1e-5, atol=1e-4)


def test_existing_rows_count_as_picked():
    x, existing = clustered(), clustered(10, 5)
    beside = clipped_cosines(x, existing)
    picks, values = plain_greedy(clipped_cosines(x), 20, 0.8, beside)
    found = run(x, 20, existing=existing, redundancy=0.8)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values - beside.sum(), rtol=1e-5, atol=1e-4)


def test_negative_gains_go_on_with_the_least_loss_and_the_notes_say_where_they_begin():
    found = run(clustered(), 60, redundancy=3.0)
    gains = np.diff(found.objective, prepend=0)
    assert sorted(found.ranking().tolist()) == list(range(60))
    best = found.notes["n_picks_with_gain"]
    assert 0 < best < 60
    assert found.objective.argmax() == best - 1
    assert (gains[best:] < 1e-5).all()
    assert "no bound" in found.notes["guarantee"]
    assert "1 - 1/e" in run(clustered(), 60).notes["guarantee"]


def test_complete_graph_gives_the_picks_of_all_pairs_and_a_sparse_one_those_of_its_own_kernel():
    x = clustered()
    s = clipped_cosines(x)
    assert run(x, 50, kernel="sparse", n_neighbors=60).ranking().tolist() == run(x, 50).ranking().tolist()
    near = np.zeros_like(s, dtype=bool)
    np.put_along_axis(near, np.argsort(-s, axis=1, kind="stable")[:, :7], values=True, axis=1)
    picks, values = plain_greedy(np.where(near | near.T, s, 0), 25, 0.5)
    found = run(x, 25, kernel="sparse", n_neighbors=6)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, rtol=1e-5)


def test_one_pass_and_one_row_of_similarities_per_pick():
    assert run(clustered(), 20).notes["n_gain_evaluations"] == 60 + 20 * 60


def test_covered_by_is_the_most_similar_pick():
    x = clustered()
    found = run(x, 8)
    s = clipped_cosines(x)[:, found.ranking()]
    np.testing.assert_allclose(found.similarity, s.max(axis=1), atol=1e-6)
    np.testing.assert_allclose(clipped_cosines(x)[np.arange(60), found.covered_by], s.max(axis=1), atol=1e-6)


def test_rows_that_do_not_fit_into_memory_are_refused_before_anything_is_computed(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 1000)
    with pytest.raises(InputError, match="graph-cut: 60 rows of 12 components need .* GB are free"):
        run(clustered(), 5)


def test_ties_go_to_the_lowest_row_to_the_last_pick_where_gains_are_small_beside_the_sums_they_began_as():
    rng = np.random.default_rng(1)
    x = np.repeat(rng.standard_normal((40, 64)), 15, axis=0) * rng.uniform(0.3, 3, 600)[:, None]
    x = np.abs(x) + 0.2
    s = clipped_cosines(x)
    picks, gain = [], s.sum(axis=0) - 0.5
    for _ in range(600):
        picks.append(int(np.flatnonzero(gain >= gain.max() - 1e-9 * (1 + abs(gain.max())))[0]))
        gain -= s[:, picks[-1]]
        gain[picks[-1]] = -np.inf
    assert run(x, 600).ranking().tolist() == picks


def test_no_bound_is_told_beside_existing_rows_where_the_objective_can_fall():
    x = clustered()
    found = run(x, 20, existing=np.repeat(x[:5], 20, axis=0))
    assert np.diff(found.objective).min() < 0
    assert found.notes["guarantee"] == "exact greedy; no bound, the objective may fall beside existing rows"
    assert "1 - 1/e" in run(x, 20, existing=x[:5], redundancy=0.0).notes["guarantee"]


@pytest.mark.parametrize("with_existing", [False, True])
def test_equal_gains_go_to_the_lowest_row_with_both_kernels(with_existing):
    """Rows of few whole numbers: many gains are equal, but float32 rounds their cosines apart."""
    for seed in (*range(30, 61), 135, 157):
        rng = np.random.default_rng(seed)
        x = rng.integers(-1, 2, (int(rng.integers(1, 60)), int(rng.integers(1, 6)))).astype(np.float32)
        existing = rng.integers(-1, 2, (5, x.shape[1])).astype(np.float32) if with_existing else None
        s, picks = clipped_cosines(x), []
        gain = s.sum(axis=0) - 0.7 * (
            np.diag(s) + (2 * clipped_cosines(x, existing).sum(axis=1) if with_existing else 0)
        )
        for _ in x:
            picks.append(int(np.flatnonzero(gain >= gain.max() - 1e-9 * (1 + abs(gain.max())))[0]))
            gain = gain - 1.4 * s[:, picks[-1]]
            gain[picks] = -np.inf
        for settings in ({}, {"kernel": "sparse", "n_neighbors": len(x)}):
            assert run(x, len(x), existing=existing, redundancy=0.7, **settings).ranking().tolist() == picks


def test_many_equal_rows_are_compared_as_one(monkeypatch):
    """Each pick compared all rows of equal gain with all earlier picks: hours of work."""
    asked = []
    real = module._cosine_sum
    monkeypatch.setattr(module, "_cosine_sum", lambda rows, one: asked.append(len(rows)) or real(rows, one))
    x = np.repeat(np.eye(4, 8, dtype=np.float32), [15, 10, 15, 10], axis=0)
    found = run(x, 20)
    picks, _ = plain_greedy(clipped_cosines(x), 20, 0.5)
    assert found.ranking().tolist() == picks
    assert sum(asked) < 5 * (len(x) + 20)
    asked.clear()
    run(np.zeros((200, 8), np.float32), 80, kernel="sparse")
    assert len(asked) <= 80 * 3 * module.N_COMPARED
