import numpy as np
import pytest

from thresher.evaluation.curves.seed_spread import estimate_seed_variance

SIZES = np.array([100.0, 200, 400, 800, 1600, 3200])


def draw(rng, *, sd, exponent, seeds=3):
    """Runs whose variance is a power of the size."""
    spread = sd * (SIZES / SIZES[0]) ** (-exponent / 2)
    return [rng.normal(0.3, each, seeds) for each in spread]


@pytest.mark.parametrize("exponent", [0.0, 0.5, 1.0])
def test_many_seeds_give_the_variance_of_each_size(exponent):
    runs = draw(np.random.default_rng(0), sd=0.02, exponent=exponent, seeds=2000)
    variance, dof = estimate_seed_variance(SIZES, runs)
    assert variance == pytest.approx(0.02**2 * (SIZES / 100) ** -exponent, rel=0.1)
    assert dof == 6 * 1999 - 1


def test_the_average_over_exponents_is_that_of_a_slow_loop():
    runs = draw(np.random.default_rng(1), sd=0.02, exponent=0.7)
    likelihoods, variances = [], []
    for g in np.linspace(0, 1.5, 61):
        v = sum(((run - run.mean()) ** 2).sum() * n**g for n, run in zip(SIZES, runs, strict=True)) / 12
        each = v * SIZES**-g
        # density of the sums of squares where each is its variance times chi-square of 2, v at its
        # best value
        terms = [-np.log(s2) - ((run - run.mean()) ** 2).sum() / (2 * s2) for s2, run in zip(each, runs, strict=True)]
        likelihoods.append(np.exp(sum(terms) - 4 * g))
        variances.append(np.log(each))
    expected = np.exp(np.average(variances, axis=0, weights=likelihoods))
    assert estimate_seed_variance(SIZES, runs)[0] == pytest.approx(expected, rel=1e-9)


def test_three_seeds_of_equal_spread_are_hardly_called_falling():
    rng = np.random.default_rng(2)
    ratios = []
    for _ in range(300):
        variance, _ = estimate_seed_variance(SIZES, draw(rng, sd=0.02, exponent=0.0))
        ratios.append(np.sqrt(variance[-1]) / 0.02)
    assert 0.7 < np.median(ratios) < 1


def test_a_whole_pool_that_all_seeds_share_leaves_little_spread_there():
    runs = draw(np.random.default_rng(3), sd=0.03, exponent=1.0)
    runs[-1][:] = runs[-1].mean()
    variance, _ = estimate_seed_variance(SIZES, runs)
    assert np.sqrt(variance[-1]) < 0.25 * np.sqrt(variance[0])


def test_two_runs_of_one_size_stand_for_all():
    runs = [np.array([0.5, 0.52]), np.array([0.4]), np.array([0.3])]
    variance, dof = estimate_seed_variance(SIZES[:3], runs)
    assert variance == pytest.approx([0.0002] * 3)
    assert dof == 1


def test_equal_runs_have_the_spread_of_rounding():
    variance, _ = estimate_seed_variance(SIZES, [np.full(3, 0.5)] * 6)
    assert variance == pytest.approx([1e-12] * 6)
