"""Saturated coverage against a plain greedy in float64 with the paper's formula."""

import itertools

import numpy as np
import pytest

from tests.selectors.embeddings import build_features, clipped_cosines, clustered
from thresher.selectors.saturated_coverage import SaturatedCoverage


def run(x, n_ranked, *, existing=None, **settings):
    return SaturatedCoverage(**settings).score(
        build_features(x, existing), n_ranked=n_ranked, rng=np.random.default_rng(0)
    )


def covered(s, picks, saturation, beside=None):
    begun = 0 if beside is None else beside.sum(axis=1)
    return np.minimum(s[:, picks].sum(axis=1) + begun, saturation * (s.sum(axis=1) + begun)).sum()


def plain_greedy(s, k, saturation, beside=None):
    """Try every candidate at every step; gains within 1e-6 (relative) tie: lowest row first."""
    picks, values = [], [covered(s, [], saturation, beside)]
    for _ in range(k):
        rest = [j for j in range(len(s)) if j not in picks]
        gain = np.array([covered(s, [*picks, j], saturation, beside) for j in rest]) - values[-1]
        most = gain.max()
        picks.append(rest[np.flatnonzero(gain >= most - 1e-6 * (1 + most))[0]] if most > 1e-6 else rest[0])
        values.append(covered(s, picks, saturation, beside))
    return picks, np.array(values[1:])


@pytest.mark.parametrize("saturation", [0.0, 0.05, 0.1, 0.3, 1.0])
@pytest.mark.parametrize("with_duplicates", [False, True])
def test_picks_and_objective_equal_plain_greedy(saturation, with_duplicates):
    x = clustered()
    if with_duplicates:
        x[[7, 20, 41, 5]] = x[3]
    picks, values = plain_greedy(clipped_cosines(x), 40, saturation)
    found = run(x, 40, saturation=saturation)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, rtol=1e-5)
    assert found.notes["kernel"] == "dense"


def test_existing_rows_count_as_picked():
    x, existing = clustered(), clustered(12, 5)
    picks, values = plain_greedy(clipped_cosines(x), 20, 0.3, clipped_cosines(x, existing))
    found = run(x, 20, existing=existing, saturation=0.3)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, rtol=1e-5)


def test_complete_graph_gives_the_dense_picks_and_a_sparse_one_those_of_its_own_kernel():
    x = clustered()
    s = clipped_cosines(x)
    dense, sparse = run(x, 60, saturation=0.2), run(x, 60, saturation=0.2, kernel="sparse", n_neighbors=60)
    assert dense.ranking().tolist() == sparse.ranking().tolist()
    near = np.zeros_like(s, dtype=bool)
    np.put_along_axis(near, np.argsort(-s, axis=1, kind="stable")[:, :7], values=True, axis=1)
    picks, values = plain_greedy(np.where(near | near.T, s, 0), 25, 0.4)
    found = run(x, 25, saturation=0.4, kernel="sparse", n_neighbors=6)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, rtol=1e-5)


def test_every_prefix_has_63_percent_of_the_best_objective():
    x = np.random.default_rng(0).standard_normal((8, 3))
    s, objective = clipped_cosines(x), run(x, 8, saturation=0.4).objective
    for k in range(1, 9):
        best = max(covered(s, list(c), 0.4) for c in itertools.combinations(range(8), k))
        assert (1 - 1 / np.e) * best <= objective[k - 1] <= best * (1 + 1e-6)


def test_the_whole_pool_reaches_every_cap():
    found = run(clustered(), 60, saturation=0.25)
    assert found.objective[-1] == pytest.approx(0.25 * clipped_cosines(clustered()).sum(), rel=1e-5)
    assert found.notes["n_saturated_rows"] == 60
    assert found.notes["n_picks_with_gain"] < 60
