import json
import math
from dataclasses import replace

import numpy as np
import pytest

from thresher.errors import InputError
from thresher.evaluation.curves.curve_fit import fit_curve
from thresher.evaluation.curves.laws import fit_law

SIZES = [50, 100, 200, 400, 800, 1600]


def runs(truth, *, seeds=3, sd=0.01, rng=None, sizes=SIZES):
    rng = rng or np.random.default_rng(0)
    return [list(1 - truth(np.float64(n)) + rng.normal(0, sd, seeds)) for n in sizes]


def fit(truth, **options):
    return fit_curve(options.get("sizes", SIZES), runs(truth, **options), is_higher_better=True)


def early(n):
    return 0.12 + 0.25 * np.exp(-n / 100)


def slow(n):
    return 0.05 + 0.9 * n**-0.2


def test_more_noise_gives_a_wider_interval():
    quiet, loud = (fit(early, sd=sd).predict(6400) for sd in (0.002, 0.02))
    assert quiet.high - quiet.low < loud.high - loud.low


def test_losses_and_rates_give_the_same_answer():
    values = runs(early, sd=0.005)
    rate = fit_curve(SIZES, values, is_higher_better=True)
    loss = fit_curve(SIZES, [[1 - v for v in run] for run in values], is_higher_better=False)
    assert rate.sampled_enough_sizes(0.01, 1600) == pytest.approx(loss.sampled_enough_sizes(0.01, 1600))
    assert rate.predict(3200).median == pytest.approx(1 - loss.predict(3200).median, abs=1e-3)


def test_the_order_of_the_sizes_does_not_matter():
    values = runs(early)
    forward = fit_curve(SIZES, values, is_higher_better=True)
    backward = fit_curve(SIZES[::-1], values[::-1], is_higher_better=True)
    assert (forward.sampled_enough_sizes(0.01, 1600) == backward.sampled_enough_sizes(0.01, 1600)).all()


def test_rows_for_a_target_invert_the_curve():
    curve = fit(early, sd=0.001)
    target = 1 - float(early(250.0))
    interval = curve.rows_needed(target)
    assert interval.low <= 250 * 1.05
    assert interval.high >= 250 * 0.95
    assert curve.rows_needed(0.999).median == math.inf


def test_the_gain_of_more_rows_is_the_difference_of_the_curve():
    interval = fit(early, sd=0.001).gain(100, 100)
    truth = float(early(100.0) - early(200.0))
    assert interval.low - 0.005 <= truth <= interval.high + 0.005


def test_rows_as_good_as_finds_the_size_on_the_other_curve():
    better = fit(lambda n: early(2 * n), sd=0.001)
    interval = fit(early, sd=0.001).equivalent_rows(better, 100)
    assert 170 <= interval.median <= 230


def test_points_that_no_law_meets_widen_the_interval():
    zigzag = fit_curve(SIZES, [[0.7, 0.701], [0.5, 0.501], [0.8, 0.801], [0.6, 0.601], [0.9, 0.901], [0.7, 0.701]],
                       is_higher_better=True)  # fmt: skip
    assert zigzag.misfit > 10


@pytest.mark.parametrize("means", [(0.5, 0.7, 0.8), (0.6, 0.75, 0.85), (0.7, 0.74, 0.76)])
def test_three_rising_sizes_are_not_called_flat(means):
    values = [[mean - 0.005, mean, mean + 0.005] for mean in means]
    curve = fit_curve([100, 200, 400], values, is_higher_better=True)
    assert curve.misfit == 1
    assert curve.weights["constant"] < 0.01


def test_test_rows_that_all_runs_share_widen_what_is_said_of_others_and_not_differences():
    values = runs(early, sd=0.003)
    sure, unsure = (fit_curve(SIZES, values, is_higher_better=True, test_stderr=noise) for noise in (0.0, 0.02))
    assert sure.gain(100, 100) == unsure.gain(100, 100)
    for ask, least in ((lambda fit: fit.predict(1600), 2.0), (lambda fit: fit.asymptote(), 1.2)):
        assert ask(unsure).high - ask(unsure).low > least * (ask(sure).high - ask(sure).low)
    assert unsure.predict(1600, same_test=True) == sure.predict(1600)


def test_the_answer_is_json_without_infinities():
    curve = fit(slow)
    text = json.dumps([curve.rows_needed(0.999).to_json()], allow_nan=False)
    assert json.loads(text)[0]["median"] is None


@pytest.mark.parametrize(
    ("sizes", "values", "words"),
    [
        ([100], [[0.5, 0.6]], "at least 3 sizes"),
        ([100, 200, 400], [[0.5], [0.6], [0.7]], "two runs"),
        ([100, 200, 400], [[0.5, 0.6], [float("nan"), 0.6], [0.7, 0.7]], "finite number, got others at 200"),
        ([100, 100, 400], [[0.5, 0.6], [0.6, 0.6], [0.7, 0.7]], "found one twice"),
        ([100, 200, 400], [[0.5, 0.6], [], [0.7, 0.7]], "found none at 200"),
        ([0, 200, 400], [[0.5, 0.6], [0.6], [0.7, 0.7]], "at least 1 row"),
    ],
)
def test_bad_curves_are_refused_in_one_sentence(sizes, values, words):
    with pytest.raises(InputError, match=words):
        fit_curve(sizes, values, is_higher_better=True)


def test_equal_runs_at_every_size_do_not_divide_by_zero():
    curve = fit_curve(SIZES, [[0.8, 0.8]] * 6, is_higher_better=True)
    assert np.median(curve.sampled_enough_sizes(0.005, 1600)) == 50


@pytest.mark.parametrize("truth", [early, lambda n: 0.08 + 1.2 * n**-0.5], ids=["exponential", "power"])
def test_the_interval_covers_as_often_as_it_says(truth):
    rng = np.random.default_rng(1)
    hits = 0
    for number in range(60):
        curve = fit_curve(SIZES, runs(truth, rng=rng), is_higher_better=True, n_samples=300, seed=number)
        interval = curve.predict(6400)
        hits += interval.low <= 1 - truth(6400.0) <= interval.high
    assert 0.65 <= hits / 60 <= 0.97  # nominal 0.8, four standard errors of 60 trials are 0.2


def test_no_score_is_foretold_that_a_score_cannot_have():
    near = [list(0.99 + 0.001 * np.arange(3) - 0.05 / size) for size in SIZES]
    curve = fit_curve(SIZES, near, is_higher_better=True, test_stderr=0.02)
    for interval in (curve.predict(1600), curve.predict(6400), curve.asymptote()):
        assert interval.low < interval.median <= interval.high <= 1
    loss = fit_curve(SIZES, [[1 - value for value in run] for run in near], is_higher_better=False, test_stderr=0.02)
    assert loss.asymptote().low >= 0


def rate_and_turned(times, plus):
    """Fits of one set of runs as it is, outside of 0..1, and as a times it plus b."""
    values = [[5 * value + 1 for value in run] for run in runs(early, sd=0.005)]
    turned = [[times * value + plus for value in run] for run in values]
    fits = [
        fit_curve(SIZES, values, is_higher_better=True),
        fit_curve(SIZES, turned, is_higher_better=times > 0),
    ]
    return *fits, values


@pytest.mark.parametrize(("times", "plus"), [(2.0, -30.0), (-1.0, 0.0), (-0.3, 1.5)])
def test_a_score_of_any_range_and_sign_is_foretold_in_its_own_units(times, plus):
    score, turned, values = rate_and_turned(times, plus)
    assert not score.scale.is_rate
    assert score.predict(1600).median == pytest.approx(np.mean(values[-1]), abs=0.05)
    assert turned.predict(1600).median == pytest.approx(times * score.predict(1600).median + plus, abs=1e-3)
    assert turned.gain(1600, 1600).high == pytest.approx(abs(times) * score.gain(1600, 1600).high, rel=0.01)
    sizes = [fit.sampled_enough_sizes(0.05 * scale, 1600) for fit, scale in ((score, 1), (turned, abs(times)))]
    assert np.median(sizes[0]) == pytest.approx(np.median(sizes[1]), rel=0.01)


def test_curves_on_scales_of_their_own_are_compared_by_their_scores():
    values = [[5 * value for value in run] for run in runs(early, sd=0.003)]
    base = fit_curve(SIZES, values, is_higher_better=True)
    other = fit_curve(SIZES, values, is_higher_better=True, scale=replace(base.scale, offset=40.0))
    assert other.errors - base.errors == pytest.approx(40 - base.scale.offset)
    assert base.equivalent_rows(other, 200).median == pytest.approx(200, rel=0.1)


def test_fewer_rows_than_the_smallest_size_are_told_by_a_zero():
    curve = fit(early, sd=0.001)
    poor = fit(lambda n: early(n) + 0.3, sd=0.001)
    assert curve.equivalent_rows(poor, 400).high == 0
    assert poor.equivalent_rows(curve, 400).low == math.inf
    assert curve.rows_needed(1 - float(early(50.0)) - 0.1).to_json() == {"median": 0, "low": 0, "high": 0}


def test_curves_that_fall_are_sampled_as_often_where_the_constant_law_takes_all():
    curve = fit_curve([62, 248, 495], [[0.68, 0.66], [0.672], [0.67]], is_higher_better=True)
    assert curve.weights["constant"] > 0.97
    for is_cautious in (False, True):
        falling = curve.sampled_errors([62, 495], is_falling=True, is_cautious=is_cautious)
        assert len(falling) == 1000
        assert (falling[:, 0] >= falling[:, 1]).all()
    # n_samples of 3 leaves none of them among the others
    few = fit_curve([62, 248, 495], [[0.68, 0.66], [0.672], [0.67]], is_higher_better=True, n_samples=3)
    assert few.sampled_enough_sizes(0.01, 495).shape == (3,)


def test_a_tail_that_goes_on_slowly_after_a_fast_start_is_not_called_flat():
    def two_phases(n):
        return 0.05 + 0.3 * n**-0.15 + 0.5 * np.exp(-n / 150)

    sizes = [*SIZES, 3200]
    truth = np.array([two_phases(n) for n in (1600.0, 3200.0)])
    gain = fit_curve(sizes, runs(two_phases, sd=0.003, sizes=sizes), is_higher_better=True).gain(1600, 1600)
    assert gain.low <= truth[0] - truth[1] <= gain.high


def test_a_score_that_gains_as_much_with_every_doubling_goes_on_beyond_the_measured_sizes():
    def straight(n):
        return 0.6 - 0.025 * np.log2(n / 50)

    gain = fit_curve(SIZES, runs(straight, sd=0.003), is_higher_better=True).gain(1600, 1600)
    assert gain.median == pytest.approx(0.025, abs=0.003)  # half of it by a law that flattens


def test_correlated_points_are_weighted_as_plain_generalized_least_squares_weighs_them():
    rng = np.random.default_rng(0)
    n = np.array([50, 100, 200, 400.0])
    root = rng.normal(size=(4, 4))
    precision = np.linalg.inv(root @ root.T + np.eye(4))
    y = 0.2 + 0.8 * n**-0.5 + rng.normal(0, 0.01, 4)
    fit = fit_law("power", n, y[None], precision)
    design = np.column_stack([np.ones(4), n ** -fit.shape[0, 0]])
    expected = np.linalg.solve(design.T @ precision @ design, design.T @ precision @ y)
    assert (fit.c[0], fit.a[0]) == pytest.approx(tuple(expected))
    residual = y - design @ expected
    assert fit.chi2[0] == pytest.approx(residual @ precision @ residual)
