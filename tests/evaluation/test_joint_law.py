import numpy as np
import pytest

from thresher.errors import InputError
from thresher.evaluation.curves.joint_law import fit_joint_law

FACTORS, ROWS = np.meshgrid([4.0, 16.0, 64.0], [100.0, 200.0, 400.0, 800.0, 1600.0])
FACTORS, ROWS = FACTORS.ravel(), ROWS.ravel()


def law(alpha, beta):
    return lambda x, n: 0.1 + 2.0 * x**-alpha * n**-beta


def fit(truth, *, sd=0.002, number=0):
    noise = np.random.default_rng(number).normal(0, sd, len(ROWS))
    return fit_joint_law(FACTORS, ROWS, truth(FACTORS, ROWS) + noise, np.eye(len(ROWS)) * sd**2)


def test_exact_points_give_the_law_back():
    joint = fit_joint_law(FACTORS, ROWS, law(0.2, 0.4)(FACTORS, ROWS), np.eye(len(ROWS)) * 1e-8)
    for found, truth in ((joint.alpha, 0.2), (joint.beta, 0.4), (joint.floor, 0.1), (joint.height, 2.0)):
        assert np.median(found) == pytest.approx(truth, rel=0.05)


@pytest.mark.parametrize(("alpha", "beta", "p"), [(0.1, 0.5, 1.0), (0.5, 0.1, 0.0)])
def test_what_matters_more_is_told(alpha, beta, p):
    answer = fit(law(alpha, beta)).compare(64, 1600)
    assert answer.p_rows == pytest.approx(p, abs=0.05)


def test_two_equal_exponents_cannot_be_told_apart():
    chances = [fit(law(0.3, 0.3), sd=0.01, number=number).compare(64, 1600).p_rows for number in range(10)]
    assert 0.2 < np.mean(chances) < 0.8


@pytest.mark.parametrize("slope", [0.0, 0.02])
def test_a_curve_that_does_not_fall_speaks_for_neither(slope):
    errors = 0.2 + slope * np.log(ROWS / ROWS.min())
    answer = fit_joint_law(FACTORS, ROWS, errors, np.eye(len(ROWS)) * 1e-4).compare(64, 1600)
    assert 0.2 < answer.p_rows < 0.8


def test_the_gain_is_covered_as_often_as_its_interval_says():
    truth = law(0.2, 0.4)
    right, hits = truth(64.0, 1600.0) - truth(64.0, 3200.0), 0
    for number in range(60):
        gain = fit(truth, sd=0.005, number=number).compare(64, 1600).gain_of_rows
        hits += gain.low <= right <= gain.high
    assert 0.65 <= hits / 60 <= 0.95


def test_one_factor_or_two_sizes_are_refused():
    with pytest.raises(InputError, match="2 values of the factor and 3 sizes, got 1 and 5"):
        fit_joint_law(np.full(5, 4.0), ROWS[::3], np.ones(5), np.ones(5))
