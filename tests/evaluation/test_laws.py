"""The closed-form grid fits against scipy's least squares at one shape, and noiseless curves."""

import numpy as np
import pytest
import scipy

from thresher.evaluation.curves.laws import N_PARAMETERS, fit_law, weigh_shapes

SIZES = np.array([50, 100, 200, 400, 800, 1600.0])
RNG = np.random.default_rng(0)


@pytest.mark.parametrize("law", list(N_PARAMETERS))
def test_height_and_floor_are_those_of_bounded_least_squares_at_the_same_shape(law):
    for _ in range(20):
        y = RNG.uniform(0.05, 0.6, len(SIZES))
        weights = RNG.uniform(1, 100, len(SIZES))
        fits = fit_law(law, SIZES, y[None], weights)
        unit = fit_law(law, SIZES, y[None], weights)
        falling = unit.__class__(law, np.zeros(1), np.ones(1), fits.shape, np.zeros(1)).errors(SIZES)[0]
        design = np.column_stack([np.ones_like(SIZES), falling]) * np.sqrt(weights)[:, None]
        best = scipy.optimize.lsq_linear(design, y * np.sqrt(weights), bounds=(0, np.inf))
        assert fits.chi2[0] == pytest.approx(2 * best.cost, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("law", "truth"),
    [
        ("power", lambda n: 0.08 + 1.2 * n**-0.5),
        ("rectified", lambda n: 0.1 + 12 / (40 + n**0.75)),
        ("exponential", lambda n: 0.12 + 0.25 * np.exp(-n / 300)),
        ("constant", lambda n: np.full_like(n, 0.3)),
    ],
)
def test_a_curve_of_the_family_is_met_closely_and_foretold_at_four_times_the_size(law, truth):
    fits = fit_law(law, SIZES, truth(SIZES)[None], np.ones(len(SIZES)))
    assert np.abs(fits.errors(SIZES)[0] - truth(SIZES)).max() < 2e-3
    assert fits.errors([6400.0])[0, 0] == pytest.approx(truth(np.array([6400.0]))[0], abs=5e-3)


def test_the_unit_of_the_sizes_does_not_matter():
    y = 0.1 + 0.5 * np.exp(-SIZES / 300)
    for law in ("exponential", "rectified"):
        small = fit_law(law, SIZES, y[None], np.ones(len(SIZES)))
        large = fit_law(law, SIZES * 1000, y[None], np.ones(len(SIZES)))
        assert large.chi2[0] == pytest.approx(small.chi2[0], rel=0.05, abs=1e-5)


def test_floor_and_height_are_never_negative():
    y = RNG.uniform(0, 1, (200, len(SIZES)))
    for law in N_PARAMETERS:
        fits = fit_law(law, SIZES, y, np.ones(len(SIZES)))
        assert (fits.a >= 0).all()
        assert (fits.c >= 0).all()
        assert np.isfinite(fits.errors([1.0, 1e9])).all()


def test_each_shape_is_weighed_by_bounded_least_squares_at_that_shape():
    y = np.array([0.6, 0.5, 0.42, 0.3, 0.28, 0.25])
    weights = np.array([900.0, 900, 400, 400, 900, 900])
    weighted = weigh_shapes("rectified", SIZES, y, weights, dof=12)
    for index in RNG.integers(len(weighted.shapes), size=30):
        b, d, _ = weighted.shapes[index]
        design = np.column_stack([np.ones(6), 1 / (d**b + SIZES**b)]) * np.sqrt(weights)[:, None]
        best = scipy.optimize.lsq_linear(design / design.max(axis=0), y * np.sqrt(weights), bounds=(0, np.inf))
        assert weighted.chi2[index] == pytest.approx(2 * best.cost, rel=1e-5, abs=1e-8)
    # Student's likelihood of m points whose variance has 12 degrees of freedom
    expected = -0.5 * (12 + 6) * np.log1p(weighted.chi2 / 12)
    np.testing.assert_allclose(weighted.log_likelihood, expected)
    assert weighted.log_evidence == pytest.approx(np.log(np.mean(np.exp(expected))))


def test_samples_at_one_shape_scatter_like_weighted_least_squares():
    """A constant has one shape: samples follow Student's distribution of a weighted mean."""
    y, weights = np.array([0.3, 0.32, 0.29]), np.array([3e4, 1e4, 2e4])
    weighted = weigh_shapes("constant", np.array([10.0, 20, 40]), y, weights, dof=9)
    samples = weighted.sample(20_000, np.random.default_rng(0))
    mean = (weights @ y) / weights.sum()
    chi2 = weights @ (y - mean) ** 2
    freedom = 9 + 3 - 1
    scale = np.sqrt((9 + chi2) / freedom / weights.sum())
    assert samples.c.mean() == pytest.approx(mean, abs=4 * scale / np.sqrt(20_000))
    assert samples.c.std() == pytest.approx(scale * np.sqrt(freedom / (freedom - 2)), rel=0.03)


def test_three_points_leave_the_shape_open():
    """Four parameters on three points: the samples must spread over what the points cannot tell."""
    sizes, y = np.array([50.0, 100, 200]), np.array([0.6, 0.45, 0.3])
    samples = weigh_shapes("rectified", sizes, y, np.full(3, 1e4), dof=6).sample(1000, np.random.default_rng(0))
    far = samples.errors([1600.0])[:, 0]
    assert np.abs(np.median(samples.errors(sizes), axis=0) - y).max() < 0.02
    assert np.quantile(far, 0.9) - np.quantile(far, 0.1) > 0.1
