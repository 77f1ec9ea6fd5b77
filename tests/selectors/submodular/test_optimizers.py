"""Stochastic and threshold greedy: the rules of the papers, prefixes, and what they give away."""

import itertools

import numpy as np
import polars as pl
import pytest

from thresher.features.container import Features
from thresher.selectors.facility_location import FacilityLocation
from thresher.selectors.quality_diversity import QualityDiversity
from thresher.selectors.saturated_coverage import SaturatedCoverage

METHODS = (FacilityLocation, SaturatedCoverage, QualityDiversity)


def build(x):
    ids = pl.Series([f"{i:06d}" for i in range(len(x))])
    number = np.random.default_rng(1).standard_normal(len(x))
    return Features(row_id=ids, arrays={"embedding": np.asarray(x, np.float32), "number:score": number})


def run(x, n_ranked, method=FacilityLocation, seed=0, **settings):
    return method(**settings).score(build(x), n_ranked=n_ranked, rng=np.random.default_rng(seed))


def clustered(n=200, seed=0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((15, 16))[rng.integers(15, size=n)] + 0.6 * rng.standard_normal((n, 16))


def kernel(x):
    x = np.asarray(x, np.float32).astype(np.float64)
    x /= np.linalg.norm(x, axis=1, keepdims=True)
    return np.maximum(x @ x.T, 0)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("optimizer", ["stochastic", "threshold"])
@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_rankings_nest_repeat_no_row_and_lose_little(method, optimizer, kind):
    x = clustered()
    exact = run(x, 200, method, kernel=kind).objective
    longest = run(x, 200, method, optimizer=optimizer, kernel=kind)
    assert sorted(longest.ranking().tolist()) == list(range(200))
    for k in (1, 7, 60):
        found = run(x, k, method, optimizer=optimizer, kernel=kind)
        assert found.ranking().tolist() == longest.ranking()[:k].tolist()
        assert found.objective[-1] >= 0.85 * exact[k - 1]
    assert longest.notes["guarantee"].startswith(f"{optimizer} greedy")


def test_threshold_picks_equal_the_plain_algorithm():
    x, epsilon = clustered(80), 0.2
    s = kernel(x)
    best, picks = np.zeros(80), []
    threshold = s.sum(axis=0).max()
    last = epsilon / 80 * threshold
    while threshold >= last and len(picks) < 30:
        for v in range(80):
            gain = np.maximum(s[:, v] - best, 0).sum()
            if v not in picks and gain >= threshold * (1 - 1e-6) and len(picks) < 30:
                picks.append(v)
                best = np.maximum(best, s[:, v])
        left = max(np.maximum(s[:, v] - best, 0).sum() for v in range(80) if v not in picks)
        threshold = min(threshold * (1 - epsilon), left)
    found = run(x, 30, optimizer="threshold", epsilon=epsilon)
    assert found.ranking().tolist() == picks[:30]


def test_each_threshold_pick_has_nearly_the_largest_gain():
    x, epsilon = clustered(), 0.1
    s, best = kernel(x), np.zeros(200)
    for pick in run(x, 50, optimizer="threshold", epsilon=epsilon).ranking():
        gain = np.maximum(s - best[:, None], 0).sum(axis=0)
        assert gain[pick] >= (1 - epsilon) * gain.max() - 1e-4
        best = np.maximum(best, s[:, pick])


def test_stochastic_with_a_tiny_epsilon_samples_every_row_and_is_the_exact_greedy():
    x = clustered(60)
    # n / t ln(1 / epsilon) >= n for every pick t <= 13
    assert run(x, 13, optimizer="stochastic", epsilon=1e-6).ranking().tolist() == run(x, 13).ranking().tolist()


def test_stochastic_keeps_its_bound_on_average_for_every_prefix():
    x, epsilon = np.random.default_rng(3).standard_normal((9, 3)), 0.3
    s = kernel(x)
    objectives = np.array([run(x, 9, optimizer="stochastic", epsilon=epsilon, seed=i).objective for i in range(40)])
    for k in range(1, 10):
        best = max(s[:, list(c)].max(axis=1).sum() for c in itertools.combinations(range(9), k))
        assert objectives[:, k - 1].mean() >= (1 - 1 / np.e - epsilon) * best


def test_the_seed_decides_the_stochastic_ranking_and_nothing_else():
    x = clustered()
    assert run(x, 60, optimizer="stochastic", epsilon=0.5, seed=1).ranking().tolist() != (
        run(x, 60, optimizer="stochastic", epsilon=0.5, seed=2).ranking().tolist()
    )
    for optimizer in ("lazy", "threshold"):
        one, two = (run(x, 60, optimizer=optimizer, seed=seed).ranking().tolist() for seed in (1, 2))
        assert one == two
