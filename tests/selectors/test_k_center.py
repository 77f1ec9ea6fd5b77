"""Farthest first against brute force and a slow reference."""

import itertools

import numpy as np
import pytest

from tests.selectors.embeddings import build_features
from thresher.selectors import k_center
from thresher.selectors.k_center import KCenter
from thresher.subset.scores import EXISTING


def run(x, n_ranked, *, seed=0, existing=None, **settings):
    data = build_features(x, existing)
    return KCenter(**settings).score(data, n_ranked=n_ranked, rng=np.random.default_rng(seed))


def distances(x, metric):
    x = x.astype(np.float64)
    if metric == "cosine":
        x = x / np.linalg.norm(x, axis=1, keepdims=True)
    return np.linalg.norm(x[:, None] - x[None], axis=2)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_radius_is_at_most_twice_the_optimum(metric):
    for seed in range(10):
        x = np.random.default_rng(seed).standard_normal((8, 3))
        apart = distances(x, metric)
        scores = run(x, 8, seed=seed, metric=metric)
        for k in range(1, 8):
            best = min(apart[:, list(c)].min(axis=1).max() for c in itertools.combinations(range(8), k))
            radius = apart[:, scores.ranking()[:k]].min(axis=1).max()
            assert radius <= 2 * best + 1e-6
            assert scores.objective[k - 1] == pytest.approx(radius, rel=1e-4)


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
@pytest.mark.parametrize("min_active", [4, 4096])
def test_picks_equal_a_slow_reference_however_few_rows_are_active(metric, min_active, monkeypatch):
    monkeypatch.setattr(k_center, "MIN_ACTIVE", min_active)
    monkeypatch.setattr(k_center, "CELLS", 200)
    x = np.random.default_rng(4).standard_normal((300, 5)) + 20.0
    if metric == "cosine":
        x -= 20.0
    apart = distances(x, metric)
    scores = run(x, 120, metric=metric)
    picks = [int(scores.ranking()[0])]
    gap = apart[picks[0]].copy()
    while len(picks) < 120:
        picks.append(int(gap.argmax()))
        gap = np.minimum(gap, apart[picks[-1]])
    assert scores.ranking().tolist() == picks
    nearest = np.array(picks)[apart[:, picks].argmin(axis=1)]
    assert (scores.covered_by == nearest).all()


def test_existing_rows_count_as_the_first_picks():
    x = np.array([[0.0, 1], [1, 0], [-1, 0], [0, -1]])
    scores = run(x, 4, existing=np.array([[0.0, 3]]))
    assert scores.ranking()[0] == 3  # opposite to what is there
    assert scores.ranking()[-1] == 0  # equal in direction to what is there
    first = run(x, 1, existing=np.array([[0.0, 3]]))
    assert first.covered_by.tolist() == [EXISTING, EXISTING, EXISTING, 3]
    np.testing.assert_allclose(first.similarity, [1, 0, 0, 1], atol=1e-6)


def test_first_pick_is_drawn_by_the_generator():
    x = np.random.default_rng(0).standard_normal((50, 4))
    assert len({int(run(x, 1, seed=s).ranking()[0]) for s in range(20)}) > 5


def test_duplicates_of_picks_come_last_and_lowest_first():
    x = np.random.default_rng(0).standard_normal((10, 7)).repeat(3, axis=0)
    ranking = run(x, 30).ranking()
    assert len({r // 3 for r in ranking[:10]}) == 10
    assert ranking[10:].tolist() == sorted(ranking[10:].tolist())


def test_similarity_is_the_cosine_with_the_covering_pick():
    x = np.random.default_rng(0).standard_normal((40, 4))
    scores = run(x, 5)
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    np.testing.assert_allclose(scores.similarity, (unit * unit[scores.covered_by]).sum(axis=1), atol=1e-6)


def test_scale_far_from_one_does_not_matter_for_euclidean():
    x = np.random.default_rng(0).standard_normal((40, 4))
    assert run(x, 40, metric="euclidean").ranking().tolist() == run(x * 1e25, 40, metric="euclidean").ranking().tolist()


@pytest.mark.parametrize("metric", ["euclidean", "cosine"])
def test_equal_distances_go_to_the_lowest_row_whatever_float32_makes_of_them(metric):
    """Rows of the same numbers in other orders: many distances are equal, but round differently."""
    x = np.array([np.random.default_rng(i).permutation(16) + 1.0 for i in range(300)])
    square = distances(x, metric) ** 2
    for seed in range(3):
        picks = run(x, 30, seed=seed, metric=metric).ranking().tolist()
        gap = square[picks[0]].copy()
        for pick in picks[1:]:
            assert pick == np.flatnonzero(gap >= gap.max() * (1 - 1e-11))[0]
            gap = np.minimum(gap, square[pick])


def test_of_equally_far_rows_the_lowest_are_active(monkeypatch):
    monkeypatch.setattr(k_center, "MIN_ACTIVE", 16)
    kind = np.random.default_rng(0).integers(0, 8, 900)
    ranking = run(np.eye(8)[kind], 8).ranking().tolist()
    first = [int(np.flatnonzero(kind == kind_of)[0]) for kind_of in range(8) if kind_of != kind[ranking[0]]]
    assert ranking[1:] == sorted(first)
