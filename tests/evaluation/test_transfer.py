"""What is expected one model further up: against a plain integral, and simulated ladders."""

import numpy as np
import pytest
import scipy

from thresher.evaluation.transfer import compare_orders, correlate_ranks, predict_next


def test_the_probability_is_that_of_a_plain_integral():
    effects, stderr = np.array([[0.02, 0.05], [-0.01, 0.01], [0.03, 0.01]]), np.full((3, 2), 0.02)

    def density(spread):
        total = 1.0
        for own in effects:
            v = 0.02**2 + spread**2
            # a flat mean leaves the difference
            total *= scipy.stats.norm.pdf(own[0] - own[1], 0, np.sqrt(2 * v))
        return total

    def weigh(spread, own):
        v = 0.02**2 + spread**2
        return density(spread) * scipy.stats.norm.cdf(own.mean() / np.sqrt(spread**2 + v / 2))

    most = 4.0 * max(np.abs(effects - effects.mean(axis=1, keepdims=True)).max(), 0.02)
    whole = scipy.integrate.quad(density, 0, most)[0]
    slow = [scipy.integrate.quad(lambda s, own=own: weigh(s, own), 0, most)[0] / whole for own in effects]
    assert predict_next(effects, stderr).above_zero == pytest.approx(slow, abs=0.02)


def test_a_method_that_helps_everywhere_is_expected_to_help_on():
    steady = np.array([[0.10, 0.11, 0.10], [0.0, 0.01, -0.01], [-0.08, -0.09, -0.08]])
    step = predict_next(steady, np.full((3, 3), 0.01))
    assert step.above_zero[0] > 0.95
    assert 0.2 < step.above_zero[1] < 0.8
    assert step.above_zero[2] < 0.05
    assert step.low[0] < 0.103 < step.high[0]
    swinging = predict_next(np.array([[0.1, -0.1], [-0.1, 0.12]]), np.full((2, 2), 0.01))
    assert 0.2 < swinging.above_zero[0] < 0.8
    assert np.median(swinging.spread) > 0.05


def test_missing_models_and_exact_effects_are_taken():
    step = predict_next(np.array([[0.1, np.nan], [0.1, 0.1]]), np.array([[0.01, np.nan], [0.0, 0.0]]))
    assert np.isfinite(step.mean).all()
    assert step.above_zero[0] > 0.5


def test_probabilities_are_kept_in_simulated_ladders():
    hits, said = [], []
    for seed in range(150):
        rng = np.random.default_rng(seed)
        mean, spread = 0.03 * rng.standard_normal(5), 0.02
        true = mean[:, None] + spread * rng.standard_normal((5, 4))
        seen = true[:, :3] + 0.01 * rng.standard_normal((5, 3))
        above = predict_next(seen, np.full((5, 3), 0.01)).above_zero
        is_sure = (above > 0.8) | (above < 0.2)
        said += np.maximum(above, 1 - above)[is_sure].tolist()
        hits += ((true[:, 3] > 0) == (above > 0.5))[is_sure].tolist()
    assert len(hits) > 150
    assert abs(np.mean(hits) - np.mean(said)) < 0.06


def test_orders_are_compared_by_rank_with_their_errors():
    ours, theirs = np.array([0.1, 0.2, 0.3, 0.4]), np.array([0.1, 0.3, 0.2, 0.5])
    exact = compare_orders(ours, theirs, np.zeros(4), np.zeros(4))
    assert exact.correlation == pytest.approx(scipy.stats.spearmanr(ours, theirs).statistic)
    assert (exact.low, exact.high, exact.same_first) == (pytest.approx(0.8), pytest.approx(0.8), 1.0)
    noisy = compare_orders(ours, theirs, np.full(4, 0.3), np.full(4, 0.3))
    assert noisy.low < 0.2
    assert noisy.same_first < 0.7
    two = compare_orders(ours[:2], theirs[:2], np.zeros(2), np.zeros(2))
    assert two.correlation is None
    assert correlate_ranks(np.ones((1, 4)), ours[None, :]).tolist() == [0.0]
