import math

import numpy as np
import pytest

from thresher.errors import InputError
from thresher.evaluation.estimate import Estimate, exp, mean, mean_over_seeds, paired_difference, proportion, ratio


def test_a_proportion_has_the_binomial_error():
    result = proportion([True] * 3 + [False])
    assert (result.value, result.n) == (0.75, 4)
    assert result.stderr == pytest.approx(math.sqrt(0.75 * 0.25 / 4))


@pytest.mark.parametrize("is_hit", [True, False])
def test_a_proportion_of_all_or_none_is_not_certain(is_hit):
    result = proportion([is_hit] * 12)
    assert (result.value, result.n) == (float(is_hit), 12)
    assert result.stderr == pytest.approx(math.sqrt(14 / 16 * 2 / 16 / 16))  # two more of each


def test_a_mean_has_the_error_of_the_mean():
    result = mean([1.0, 2.0, 6.0])
    assert result.value == 3.0
    assert result.stderr == pytest.approx(np.std([1, 2, 6], ddof=1) / math.sqrt(3))


def test_one_row_has_no_known_error():
    assert math.isnan(mean([2.0]).stderr)
    assert math.isnan(proportion([True]).stderr)
    assert mean([2.0]).to_json() == {"value": 2.0, "stderr": None, "n": 1}


def test_no_row_is_refused():
    with pytest.raises(InputError, match="at least one held-out row"):
        mean([])


def test_a_ratio_weighs_tokens_and_not_rows():
    assert ratio([2.0, 30.0], [1, 10]).value == pytest.approx(32 / 11)


def test_the_error_of_a_ratio_is_its_spread_over_samples():
    rng = np.random.default_rng(0)

    def draw(n):
        tokens = rng.integers(5, 50, size=n)
        return tokens * rng.normal(2.0, 0.5, size=n) + rng.normal(0, 4, size=n), tokens

    estimates = [ratio(*draw(200)) for _ in range(800)]
    spread = np.std([estimate.value for estimate in estimates])
    assert np.mean([estimate.stderr for estimate in estimates]) == pytest.approx(spread, rel=0.1)


def test_perplexity_has_the_error_of_the_delta_method():
    assert exp(Estimate(2.0, 0.1, 9)) == Estimate(math.exp(2), math.exp(2) * 0.1, 9)
    assert exp(Estimate(1e4, 1.0, 9)).value == math.inf
    assert exp(Estimate(1e4, 1.0, 9)).to_json()["value"] is None


def test_with_one_seed_the_paired_error_is_that_of_the_differences():
    a, b = np.array([1.0, 0, 1, 1, 0]), np.array([0.0, 0, 1, 0, 1])
    assert paired_difference(a, b) == mean(a - b)


def test_pairing_removes_what_both_share():
    rng = np.random.default_rng(0)
    shared = rng.normal(0, 5, size=300)
    ours, theirs = shared + rng.normal(1, 0.1, size=300), shared + rng.normal(0, 0.1, size=300)
    assert paired_difference(ours, theirs).stderr < 0.05 * math.hypot(mean(ours).stderr, mean(theirs).stderr)


def test_a_weighted_difference_is_the_difference_of_the_ratios():
    rng = np.random.default_rng(1)
    weights = rng.integers(1, 9, size=40)
    a, b = rng.normal(5, 1, size=(3, 40)), rng.normal(4, 1, size=(3, 40))
    expected = a.sum() / (3 * weights.sum()) - b.sum() / (3 * weights.sum())
    assert paired_difference(a, b, weights).value == pytest.approx(expected)


@pytest.mark.parametrize(("of_row", "of_seed"), [(1.0, 0.0), (0.0, 1.0), (1.0, 0.5)])
def test_the_error_over_rows_and_seeds_is_the_spread_over_repeated_studies(of_row, of_seed):
    rng = np.random.default_rng(0)

    def study():
        x = rng.normal(0, of_row, size=(1, 30)) + rng.normal(0, of_seed, size=(8, 1)) + rng.normal(0, 0.5, size=(8, 30))
        return mean_over_seeds(x)

    result = [study() for _ in range(1500)]
    spread = np.std([estimate.value for estimate in result])
    assert math.sqrt(np.mean([estimate.stderr**2 for estimate in result])) == pytest.approx(spread, rel=0.12)


def test_models_judged_on_different_rows_are_refused():
    with pytest.raises(InputError, match="the same rows"):
        paired_difference([1.0, 2.0], [1.0])
