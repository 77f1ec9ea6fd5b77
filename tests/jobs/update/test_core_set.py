"""The cap: weighted facility location against a slow reference, and weights that are never lost."""

import numpy as np
import polars as pl
import pytest

from thresher.features.container import Features
from thresher.jobs.update.core_set import assign_representatives, build_core_set, compute_objective, transfer_weight
from thresher.selectors import create


def vectors(n, seed, d=6):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


def slow_greedy(x, weight, k):
    """Facility location by trying every row at each pick, in float64."""
    unit = x.astype(np.float64) / np.linalg.norm(x.astype(np.float64), axis=1, keepdims=True)
    similarity = np.maximum(unit @ unit.T, 0)
    best, picks = np.zeros(len(x)), []
    for _ in range(k):
        gains = [
            (weight * np.maximum(similarity[:, j] - best, 0)).sum() if j not in picks else -1 for j in range(len(x))
        ]
        picks.append(int(np.argmax(gains)))
        best = np.maximum(best, similarity[:, picks[-1]])
    return sorted(picks)


@pytest.mark.parametrize("seed", range(5))
def test_picks_are_those_of_a_slow_greedy(seed):
    x = vectors(30, seed)
    weight = np.random.default_rng(seed).integers(1, 50, 30)
    core = build_core_set(x, weight, 7, np.random.default_rng(0))
    assert core.kept.tolist() == slow_greedy(x, weight, 7)


def test_equal_weights_are_facility_location():
    x = vectors(40, 1)
    features = Features(row_id=pl.Series([f"{n:03d}" for n in range(40)]), arrays={"embedding": x})
    scores = create("facility-location").score(features, n_ranked=9, rng=np.random.default_rng(0))
    core = build_core_set(x, np.ones(40, np.int64), 9, np.random.default_rng(0))
    assert sorted(core.kept.tolist()) == sorted(scores.ranking()[:9].tolist())


def test_a_weight_counts_as_so_many_copies():
    x = vectors(12, 2)
    weight = np.random.default_rng(2).integers(1, 5, 12)
    kept = build_core_set(x, weight, 4, np.random.default_rng(0)).kept
    assert compute_objective(x, kept, weight) == pytest.approx(
        compute_objective(np.repeat(x, weight, axis=0), np.cumsum(weight)[kept] - 1)
    )


def test_each_row_is_stood_for_by_the_nearest_kept_one_and_no_weight_is_lost():
    x = vectors(50, 3)
    weight = np.random.default_rng(3).integers(1, 9, 50)
    core = build_core_set(x, weight, 11, np.random.default_rng(0))
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    nearest = core.kept[(unit @ unit[core.kept].T).argmax(axis=1)]
    assert core.representative.tolist() == nearest.tolist()
    after = transfer_weight(weight, core)
    assert after.sum() == weight.sum()
    assert set(np.flatnonzero(after)) == set(core.kept.tolist())


@pytest.mark.parametrize("x", [np.ones((9, 4), np.float32), np.zeros((9, 4), np.float32)])
def test_equal_rows_and_zero_rows_fill_up_to_the_number_asked_for(x):
    core = build_core_set(x, np.ones(9, np.int64), 4, np.random.default_rng(0))
    assert len(set(core.kept.tolist())) == 4


def test_more_than_there_are_keeps_all():
    x = vectors(5, 4)
    assert (
        assign_representatives(x, np.arange(5)).kept.tolist()
        == build_core_set(x, np.ones(5, np.int64), 8, np.random.default_rng(0)).kept.tolist()
    )
