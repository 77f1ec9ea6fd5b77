"""Drift measures against scipy, closed forms and simulation."""

import numpy as np
import polars as pl
import pytest
import scipy

from thresher.jobs.drift.distributions import (
    chance_limit,
    count_lengths,
    count_top_values,
    count_topics,
    expect_chance,
    fit_topic_centroids,
    jensen_shannon,
    measure_drifts,
    population_stability,
)
from thresher.jobs.drift.gates import check_drift
from thresher.jobs.settings import Gates, Limits


@pytest.mark.parametrize("seed", range(4))
def test_jensen_shannon_is_that_of_scipy(seed):
    rng = np.random.default_rng(seed)
    p, q = rng.integers(0, 20, 8) + 1, rng.integers(0, 20, 8)
    names = [f"bin{n}" for n in range(8)]
    ours = jensen_shannon(dict(zip(names, p.tolist(), strict=True)), dict(zip(names, q.tolist(), strict=True)))
    assert ours == pytest.approx(scipy.spatial.distance.jensenshannon(p, q, base=2) ** 2, abs=1e-12)


def test_equal_distributions_have_no_drift_and_disjoint_ones_have_all():
    assert jensen_shannon({"a": 3, "b": 6}, {"a": 1, "b": 2}) == pytest.approx(0, abs=1e-12)
    assert jensen_shannon({"a": 3}, {"b": 5}) == pytest.approx(1)


def test_stability_index_of_two_bins_in_closed_form():
    expected = (0.6 - 0.5) * np.log(0.6 / 0.5) + (0.4 - 0.5) * np.log(0.4 / 0.5)
    assert population_stability({"a": 5, "b": 5}, {"a": 6, "b": 4}) == pytest.approx(expected)


def test_what_chance_gives_is_what_samples_of_one_distribution_show():
    rng = np.random.default_rng(0)
    shares = rng.dirichlet(np.ones(10) * 5)
    seen = []
    for _ in range(400):
        p, q = rng.multinomial(500, shares), rng.multinomial(800, shares)
        before, after = ({str(n): int(count) for n, count in enumerate(counts)} for counts in (p, q))
        seen.append(jensen_shannon(before, after))
    assert np.mean(seen) == pytest.approx(expect_chance(before, after), rel=0.1)


def test_one_of_a_hundred_pairs_of_samples_is_beyond_the_limit_of_chance():
    from scipy.stats import chi2

    rng = np.random.default_rng(1)
    shares = rng.dirichlet(np.ones(10) * 5)
    beyond = 0
    for _ in range(2000):
        p, q = rng.multinomial(300, shares), rng.multinomial(500, shares)
        before, after = ({str(n): int(count) for n, count in enumerate(counts)} for counts in (p, q))
        beyond += jensen_shannon(before, after) > chance_limit(before, after)
    assert 0.003 < beyond / 2000 < 0.02
    exact = chi2.ppf(0.99, 9) / (8 * np.log(2)) * (1 / 300 + 1 / 500)
    assert chance_limit(before, after) == pytest.approx(exact, rel=0.01)


def test_bins_without_rows_are_no_chance():
    empty = {f"topic-{n}": 0 for n in range(50)}
    assert expect_chance({"a": 5, **empty}, {"b": 5, **empty}) == expect_chance({"a": 5}, {"b": 5})
    assert chance_limit({"a": 5, **empty}, {"a": 9, **empty}) == 0.0


def test_a_handful_of_rows_fails_no_gate_that_chance_would_fail():
    gates = Gates(topics=Limits(fail=0.1))

    def failing(before, after):
        drifts = measure_drifts({"incoming": {"topics": before}}, {"incoming": {"topics": after}})
        return len(check_drift(gates, drifts))

    assert failing({"a": 1, "b": 1, "c": 1}, {"b": 1, "d": 1}) == 0  # though the divergence is 0.5
    assert failing({"a": 100, "b": 100, "c": 100}, {"b": 100, "d": 100}) == 1
    assert failing({"a": 10}, {"b": 10}) == 1


def test_lengths_fall_into_bins_named_by_their_lower_bound():
    assert count_lengths(np.array([1, 2, 3, 4, 5, 6, 7, 8, 100])) == {
        "1": 1,
        "2": 1,
        "3": 1,
        "4": 2,
        "6": 2,
        "8": 1,
        "91": 1,
    }


def test_rare_values_count_together():
    counts = count_top_values(pl.Series("v", [str(n) for n in range(300)] + ["often"] * 5))
    assert counts["often"] == 5
    assert sum(counts.values()) == 305
    assert counts["(other)"] == 101


def test_topics_of_separate_groups_are_found_and_counted():
    x = np.repeat(np.eye(3, 5, dtype=np.float32), [4, 5, 6], axis=0)
    centroids = fit_topic_centroids(x, 3, np.random.default_rng(0))
    assert sorted(count_topics(x, centroids).values()) == [4, 5, 6]


def test_only_what_both_have_is_compared():
    before = {"incoming": {"lengths": {"8": 4}}, "snapshot": {}}
    after = {"incoming": {"lengths": {"8": 4}, "labels": {"a": 1}}, "snapshot": {"lengths": {"8": 4}}}
    assert [(one.measure, one.of) for one in measure_drifts(before, after)] == [("lengths", "incoming")]
    assert measure_drifts(None, after) == []
