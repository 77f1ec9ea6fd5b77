import numpy as np
import pytest
import scipy

from thresher.errors import InputError
from thresher.evaluation.effect import (
    _detectable,
    adjust_p_values,
    estimate_effect,
    estimate_seeds_needed,
    find_widening,
)


def table(rng, *, seeds, rows, gain=0.0, seed_sd=0.05):
    latent = rng.normal(1, 1, rows) + rng.normal(0, seed_sd, (seeds, 1)) + rng.normal(0, 0.8, (seeds, rows))
    return (latent + gain > 0).astype(float)


def test_without_a_spread_between_rows_the_test_is_the_paired_t_test_over_seeds():
    rng = np.random.default_rng(0)
    gap = rng.normal(0.02, 0.03, 6)
    ours = np.repeat(gap[:, None], 50, axis=1)
    result = estimate_effect(ours, np.zeros_like(ours), is_higher_better=True)
    expected = scipy.stats.ttest_1samp(gap, 0)
    assert result.p == pytest.approx(expected.pvalue)
    assert result.dof == 5


def test_without_a_spread_between_seeds_the_test_is_the_paired_t_test_over_rows():
    rng = np.random.default_rng(0)
    gap = rng.normal(0.1, 1, 80)
    ours = np.repeat(gap[None], 4, axis=0)
    result = estimate_effect(ours, np.zeros_like(ours), is_higher_better=True)
    assert result.p == pytest.approx(scipy.stats.ttest_1samp(gap, 0).pvalue)
    assert (result.low, result.high) == pytest.approx(scipy.stats.ttest_1samp(gap, 0).confidence_interval(), abs=0.03)


@pytest.mark.parametrize("variance", [0.0, 0.5, 2.0])
def test_three_seeds_call_equal_methods_different_in_one_of_twenty_at_most(variance):
    """Tables of luck alone; without the widening up to 7.3 %."""
    rng = np.random.default_rng(1)
    called = 0
    for _ in range(300):
        gap = rng.normal(0, 1, (3, 20)) + rng.normal(0, np.sqrt(variance / 10), (3, 1))
        called += estimate_effect(gap, np.zeros_like(gap), is_higher_better=True).p < 0.05
    assert called / 300 <= 0.05 + 2 * 0.0126


def test_intervals_are_widened_for_few_seeds_that_decide_alone():
    """The factors found by simulating 20,000 tables of mean squares, each sum of squares drawn."""
    found = [find_widening(1.0, 1.0, n_seeds=seeds, n=500) for seeds in (3, 4, 5, 10)]
    assert found == pytest.approx([1.23, 1.065, 1.02, 1.0], abs=0.03)
    assert find_widening(50.0, 1.0, n_seeds=3, n=500) == pytest.approx(1.23, abs=0.05)
    assert find_widening(1.0, 0.0, n_seeds=3, n=500) == 1  # runs without luck
    assert find_widening(1.0, 1.0, n_seeds=5, n=500, shared=0.78) > 2


def test_lower_is_better_turns_the_sign():
    rng = np.random.default_rng(0)
    ours, theirs = rng.normal(1, 1, (3, 50)), rng.normal(2, 1, (3, 50))
    assert estimate_effect(ours, theirs, is_higher_better=False).value == pytest.approx(
        -estimate_effect(ours, theirs, is_higher_better=True).value
    )


def test_totals_are_compared_per_unit_of_weight():
    weights = np.array([1.0, 10.0, 5.0])
    ours, theirs = np.array([[1.0, 10, 5], [1.0, 10, 5]]), np.array([[2.0, 20, 10], [2.0, 20, 10]])
    assert estimate_effect(ours, theirs, weights, is_higher_better=False).value == pytest.approx(1.0)


def test_equal_runs_show_no_difference():
    same = np.ones((3, 20))
    result = estimate_effect(same, same, is_higher_better=True)
    assert (result.value, result.p, result.low, result.high) == (0, 1, 0, 0)


def test_seeds_with_common_luck_are_not_taken_for_independent_ones():
    """Two sides whose luck is common to their seeds, with correlation 0.6: nominal 5 %."""
    rng = np.random.default_rng(0)

    def draw():
        luck = 0.02 * (np.sqrt(0.6) * rng.normal() + np.sqrt(0.4) * rng.normal(size=(5, 1)))
        return luck + rng.normal(0, 0.05, (5, 200))

    pairs = [(draw(), draw()) for _ in range(300)]
    called = {
        shared: np.mean([estimate_effect(*pair, is_higher_better=True, shared=shared).p < 0.05 for pair in pairs])
        for shared in (0.0, 0.6)
    }
    assert called[0.0] > 0.3
    assert called[0.6] < 0.09


def test_seeds_cannot_take_away_what_they_have_in_common():
    rng = np.random.default_rng(0)
    ours = rng.normal(0, 0.03, (5, 1)) + rng.normal(0, 0.05, (5, 500))
    theirs = rng.normal(0, 0.05, (5, 500))
    few = estimate_seeds_needed(ours, theirs, gain=0.05)
    assert few is not None
    with_luck = estimate_seeds_needed(ours, theirs, gain=0.05, shared=0.5)
    assert with_luck is None or with_luck > few


def test_two_samples_of_one_method_are_rarely_called_different():
    rng = np.random.default_rng(3)
    called = [
        estimate_effect(table(rng, seeds=5, rows=300), table(rng, seeds=5, rows=300), is_higher_better=True).p < 0.05
        for _ in range(100)
    ]
    assert np.mean(called) <= 0.12  # nominal 0.05 with a standard error of 0.022


def test_a_large_gain_is_found_and_its_interval_holds_it():
    rng = np.random.default_rng(4)
    ours, theirs = table(rng, seeds=5, rows=1000, gain=0.8), table(rng, seeds=5, rows=1000)
    result = estimate_effect(ours, theirs, is_higher_better=True)
    assert result.p < 0.001
    assert result.low < ours.mean() - theirs.mean() < result.high
    assert result.low > 0


def test_the_pilot_asks_for_more_seeds_for_a_smaller_gain_and_none_when_rows_are_too_few():
    rng = np.random.default_rng(5)
    ours, theirs = table(rng, seeds=4, rows=2000), table(rng, seeds=4, rows=2000)
    large, small = (estimate_seeds_needed(ours, theirs, gain=gain) for gain in (0.05, 0.02))
    assert large is not None
    assert small is None or small >= large
    rows_differ = np.repeat(rng.normal(0, 1, 20)[None], 3, axis=0)
    assert estimate_seeds_needed(rows_differ, np.zeros((3, 20)), gain=0.01) is None


def test_holm_is_that_of_the_definition():
    assert adjust_p_values([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert adjust_p_values([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert adjust_p_values([]) == []


def test_one_seed_is_refused():
    with pytest.raises(InputError, match="at least 2 seeds"):
        estimate_effect(np.ones((1, 20)), np.zeros((1, 20)), is_higher_better=True)


def test_values_that_are_not_numbers_are_refused():
    ours = np.ones((2, 20))
    ours[0, 3] = np.nan
    with pytest.raises(InputError, match="finite number"):
        estimate_effect(ours, np.zeros((2, 20)), is_higher_better=True)


def test_more_comparisons_at_once_need_a_larger_difference():
    rng = np.random.default_rng(6)
    ours, theirs = table(rng, seeds=5, rows=500), table(rng, seeds=5, rows=500)
    one, ten = (estimate_effect(ours, theirs, is_higher_better=True, n_tests=n) for n in (1, 10))
    assert one.detectable < ten.detectable
    assert (one.p, one.low, one.high) == (ten.p, ten.low, ten.high)


def test_a_pilot_whose_seeds_agree_by_chance_still_plans_for_their_spread():
    rng = np.random.default_rng(8)
    gap = rng.choice([-1.0, 0.0, 1.0], size=(2, 2000), p=[0.15, 0.7, 0.15])
    ours = np.vstack([gap[0], np.roll(gap[0], 7)])  # both seeds give the same mean
    assert ours.mean(axis=1)[0] == pytest.approx(ours.mean(axis=1)[1])
    needed = estimate_seeds_needed(ours, np.zeros_like(ours), gain=0.02)
    assert needed is None or needed >= 3


@pytest.mark.parametrize(("dof", "level"), [(1.0, 0.05), (4.0, 0.005), (50.0, 0.05)])
def test_a_detectable_difference_is_seen_in_four_of_five_experiments(dof, level):
    rng = np.random.default_rng(0)
    estimated = np.sqrt(rng.chisquare(dof, 100_000) / dof)
    seen = np.abs(rng.normal(_detectable(1.0, dof, level), 1, 100_000)) / estimated > scipy.stats.t.ppf(
        1 - level / 2, dof
    )
    assert seen.mean() == pytest.approx(0.8, abs=0.005)  # four standard errors of 100,000 draws


def test_seeds_that_share_their_luck_and_agree_by_chance_leave_few_degrees_of_freedom():
    rng = np.random.default_rng(0)
    # rows and seeds cancel but for noise: the seeds agree better than chance would have it
    gap = rng.normal(0, 1, (1, 60)) + rng.normal(0, 1, (3, 60))
    gap -= gap.mean(axis=1, keepdims=True) - 0.1
    alone = estimate_effect(gap, np.zeros_like(gap), is_higher_better=True, shared=0.05)
    together = estimate_effect(gap, np.zeros_like(gap), is_higher_better=True, shared=0.6)
    assert alone.dof == 59
    # by hand: the mean squares of rows and residual, and that of seeds as large as the residual
    centered = gap - gap.mean()
    row = 3 * (centered.mean(axis=0) ** 2).sum() / 59
    rest = ((centered - centered.mean(axis=0)) ** 2).sum() / (59 * 2)
    expected = row**2 / (row**2 / 59 + rest**2 / 2 + rest**2 / 118)
    assert together.dof == pytest.approx(expected)
    widening = [find_widening(row, rest, n_seeds=3, n=60, shared=shared) for shared in (0.05, 0.6)]
    assert together.stderr / alone.stderr == pytest.approx(widening[1] / widening[0])
    assert together.p > alone.p
