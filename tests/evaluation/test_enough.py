import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from thresher.evaluation.curves.curve_fit import fit_curve
from thresher.evaluation.curves.enough import Enough, Tolerance, estimate_noise, find_enough
from thresher.evaluation.curves.interval import Interval
from thresher.evaluation.curves.row_noise import estimate_row_values, estimate_test_covariance
from thresher.experiments.advice.size import choose_size

SIZES = [50, 100, 200, 400, 800, 1600]
NOTHING = {"methods": {}, "of": 1600, "is_higher_better": True}


def answer(truth, *, sd=0.003, seeds=3, within=0.01, n_pool=1600, is_rate=True, number=0, **options):
    rng = np.random.default_rng(number)
    errors = [truth(float(n)) + rng.normal(0, sd, seeds) for n in SIZES]
    values = [list(1 - error) if is_rate else list(error) for error in errors]
    fit = fit_curve(SIZES, values, is_higher_better=is_rate, **options)
    return find_enough(fit, within=Tolerance(within, is_share=False), n_pool=n_pool, n_test=500)


def early(n):
    return 0.12 + 0.25 * np.exp(-n / 100)


def steep(n):
    return 0.9 - 0.1 * np.log2(n / 25)


def test_a_score_that_is_no_rate_is_answered_in_its_own_units():
    rng = np.random.default_rng(0)
    values = [list(2 + 0.36 * np.log2(n / 50) + rng.normal(0, 0.03, 3)) for n in SIZES]
    enough = find_enough(fit_curve(SIZES, values, is_higher_better=True), n_pool=1600, n_test=500)
    assert enough.within == pytest.approx(0.038, abs=0.001)
    assert enough.verdict == "all"
    assert "do not come within 0.0377 of the score of all of them: the last doubling still raises the score by" in str(
        enough
    )
    assert "point" not in f"{enough}{enough.describe_next()}"
    assert Enough.from_json(json.loads(json.dumps(enough.to_json()))) == enough


def test_answers_that_were_not_generated_are_the_remedy_before_further_test_rows():
    enough = answer(steep, sd=0.15, test_covariance=np.diag([0.1] * 5 + [0]) ** 2)
    doubt = replace(enough, verdict="cannot tell", n_test=100, n_unanswered=400, test_rows_needed=300)
    assert "with 100 answered test rows" in str(doubt)
    assert "300 answered test rows (--train eval_generations=300)" in str(doubt)
    more = str(replace(doubt, test_rows_needed=5700))
    assert "5,700 answered test rows (--train eval_generations=5700 and 5,700 test rows, not 500)" in more


def find_exactly(truth, within):
    """Return the answer by a plain scan."""
    sizes = np.arange(50, 1601)
    return sizes[np.flatnonzero(truth(sizes.astype(float)) - truth(1600.0) <= within)[0]]


@pytest.mark.parametrize("within", [0.005, 0.01, 0.05])
def test_the_smallest_size_within_the_tolerance_is_found(within):
    enough, truth = answer(early, sd=0.001, within=within), find_exactly(early, within)
    assert enough.verdict == "enough"
    assert enough.rows == pytest.approx(truth, rel=0.05)
    assert 0.9 * enough.low <= truth <= 1.1 * enough.high  # 80 % of intervals hold it as they are


def test_where_half_of_the_rows_is_worse_all_are_needed():
    enough = answer(steep)
    assert enough.verdict == "all"
    assert enough.last_doubling.median == pytest.approx(0.1, abs=0.003)
    assert "Half of the 1,600 rows do not come within 1 point of all of them: the last doubling still brings " in str(
        enough
    )


@pytest.mark.parametrize(
    ("truth", "brought", "than"),
    [
        (lambda n: 0.5 - 0.0002 * n, 0.16, "more"),  # each doubling brings twice as much
        (steep, 0.1, None),
    ],
)
def test_a_measured_last_doubling_takes_precedence_over_laws_that_it_contradicts(truth, brought, than):
    enough = answer(truth, sd=0.003)
    assert enough.unlike_laws == than
    assert enough.last_doubling.median == pytest.approx(brought, abs=0.004)
    assert ("is not known: the last doubling brought clearly" in enough.describe_next()) == (than is not None)


def test_the_last_doubling_brings_more_than_the_tolerance_where_all_rows_are_needed():
    # four runs, of which a flat curve keeps some probability
    fit = fit_curve([62, 248, 495], [[0.64, 0.616], [0.689], [0.73]], is_higher_better=True)
    assert fit.weights["constant"] > 0.1
    enough = find_enough(fit, n_pool=4530, n_test=1000)
    assert enough.verdict == "all"
    assert enough.last_doubling.low > enough.within


@pytest.mark.parametrize("is_rate", [True, False])
def test_rows_that_harm_are_called_so_and_the_best_size_is_enough(is_rate):
    def valley(n):
        return 0.2 + 0.03 * abs(np.log2(n / 400))

    enough = answer(valley, is_rate=is_rate)
    assert (enough.verdict, enough.rows, enough.low, enough.high) == ("enough", 400, 400, 400)
    assert "More rows make it worse: 400 of the 1,600 rows do best of the measured sizes, and all of them are " in str(
        enough
    )
    assert "not known" in enough.describe_next()
    assert enough.worse.median == pytest.approx(0.06, abs=0.01)
    assert Enough.from_json(json.loads(json.dumps(enough.to_json()))) == enough
    assert choose_size(SimpleNamespace(content=NOTHING, enough={"random": enough}), "random", 1600).n_rows == 400


def test_one_run_that_failed_is_no_rows_that_harm():
    values = [[0.7, 0.71], [0.75, 0.74], [0.78, 0.78], [0.8, 0.81], [0.82, 0.82], [0.3]]
    fit = fit_curve(SIZES, values, is_higher_better=True)
    assert find_enough(fit, n_pool=1600, n_test=500).worse is None


def test_noise_on_a_flat_curve_is_no_decline():
    flat = [answer(lambda n: 0.2 + 0 * n, sd=0.02, number=number).worse for number in range(30)]
    assert 30 - flat.count(None) <= 2


def test_noise_moves_the_verdict_and_never_the_tolerance():
    verdicts = [answer(lambda n: 0.3 - 0.004 * np.log2(n / 50), sd=sd, number=1) for sd in (0.0005, 0.05)]
    assert [each.verdict for each in verdicts] == ["enough", "cannot tell"]
    assert {each.within for each in verdicts} == {0.01}


def test_no_law_makes_up_for_noise_that_dwarfs_the_tolerance():
    def slow(n):
        return 0.05 + 0.9 * n**-0.4

    assert [answer(slow, sd=0.1, number=number).verdict for number in range(5)].count("enough") == 0
    fit = fit_curve([50, 100, 200], [[0.5, 0.6], [0.6, 0.7], [0.7, 0.8]], is_higher_better=True)
    # two seeds at the largest size, and at the one below it
    assert estimate_noise(fit, 60) == pytest.approx(np.sqrt(fit.seed_sd[1] ** 2 / 2 + fit.seed_sd[2] ** 2 / 2))
    assert estimate_noise(fit, 60) == pytest.approx(np.sqrt(0.005 / 2 + 0.005 / 2), rel=0.1)


def two_phases(n):
    """Learn fast up to some hundred rows, and slowly from there on: none of the laws."""
    return 0.05 + 0.3 * n**-0.15 + 0.5 * np.exp(-n / 150)


def test_far_too_few_rows_are_hardly_ever_enough_where_no_law_is_right():
    sizes, n_curves, too_small, n_called = [*SIZES, 3200], 60, 0, 0
    scan = np.arange(50.0, 3201.0)
    truth = scan[np.flatnonzero(two_phases(scan) - two_phases(3200.0) <= 0.01)[0]]
    for number in range(n_curves):
        rng = np.random.default_rng(number)
        values = [list(1 - two_phases(float(n)) - rng.normal(0, 0.012, 3)) for n in sizes]
        enough = find_enough(fit_curve(sizes, values, is_higher_better=True), n_pool=3200, n_test=500)
        n_called += enough.verdict == "enough"
        too_small += enough.verdict == "enough" and truth > 2 * enough.rows
    assert n_called >= n_curves / 3  # never to say so would be no answer
    assert too_small <= 0.05 * n_curves


def test_more_seeds_that_are_said_to_tell_do_tell():
    unsure = answer(early, sd=0.04)
    assert unsure.verdict == "cannot tell"
    assert str(unsure).startswith("Cannot tell yet: with 500 test rows, anywhere from ")
    assert f"may be enough to come within 1 point of all of them; {unsure.more_seeds_needed} more seed" in str(unsure)
    assert unsure.more_seeds_needed is not None
    n_seeds = 3 + unsure.more_seeds_needed
    verdicts = [answer(early, sd=0.04, seeds=n_seeds, number=number).verdict for number in range(10)]
    assert verdicts.count("cannot tell") <= 4  # they are expected to tell, and may have bad luck


def test_more_test_rows_are_proposed_where_the_rows_are_the_noise():
    def gentle(n):
        return 0.3 - 0.004 * np.log2(n / 50)

    covariance = 5e-5 * np.eye(6)
    covariance[-1, -1] = 0
    enough = answer(gentle, sd=0.0005, test_covariance=covariance)
    assert enough.verdict == "cannot tell"
    assert enough.test_rows_needed > 500
    assert enough.more_seeds_needed is None
    assert f"{enough.test_rows_needed:,} test rows would settle it" in str(enough)
    assert answer(gentle, sd=0.0005, test_covariance=covariance / 60).verdict == "enough"


def test_a_part_of_the_pool_is_said_to_be_one():
    enough = answer(early, sd=0.001, n_pool=50_000)
    assert "of the first 1,600 come within" in str(enough)
    assert not enough.is_whole_pool


def test_the_smallest_size_says_that_fewer_may_do():
    enough = answer(lambda n: 0.2 + 0.1 * np.exp(-n / 10), sd=0.0005, within=0.03)
    assert (enough.verdict, enough.high) == ("enough", 50)
    assert "smallest size measured, and fewer may do" in str(enough)


def test_a_share_is_of_the_loss_and_points_of_a_rate():
    rng = np.random.default_rng(0)
    errors = [early(float(n)) + rng.normal(0, 0.001, 3) for n in SIZES]
    loss = fit_curve(SIZES, [list(4 * error) for error in errors], is_higher_better=False)
    rate = fit_curve(SIZES, [list(1 - error) for error in errors], is_higher_better=True)
    assert Tolerance().resolve(loss) == pytest.approx(0.01 * 4 * early(1600.0), rel=0.02)
    assert Tolerance().resolve(rate) == 0.01
    assert Tolerance(0.2, is_share=False).resolve(loss) == 0.2


def test_the_answer_survives_json():
    for truth in (early, steep):
        enough = answer(truth)
        assert Enough.from_json(json.loads(json.dumps(enough.to_json(), allow_nan=False))) == enough


def test_the_luck_of_test_rows_that_all_sizes_share_cancels_and_the_rest_is_estimated():
    """A planted table: rows differ, rows differ by size, and each run has chance of its own."""
    rng, n, own = np.random.default_rng(0), 4000, 0.3
    row = rng.normal(0, 2, n)
    by_size = own * rng.normal(size=(3, n))
    values = [row + by_size[i] + rng.normal(0, 1, (4, n)) for i in range(3)]
    covariance = estimate_test_covariance(values)
    # the difference of two sizes has the variance of both, and shares that of the last one
    assert covariance[:2, :2] * n == pytest.approx(own**2 * np.array([[2, 1], [1, 2]]), abs=0.05)
    assert (covariance[-1] == 0).all()


def test_runs_that_differ_by_chance_alone_have_no_covariance_over_rows():
    rng = np.random.default_rng(0)
    row = rng.normal(size=500)
    covariance = estimate_test_covariance([row + rng.normal(0, 1, (3, 500)) for _ in range(4)])
    assert np.trace(covariance) < 0.2 * 3 * 2 / 500 / 3  # what it would be if chance were counted


def test_pseudo_values_average_to_the_metric():
    import polars as pl

    rng = np.random.default_rng(0)
    table = pl.DataFrame({"x": rng.normal(5, 1, 100)})
    values = estimate_row_values(lambda rows: float(np.log(rows["x"].mean())), table)
    assert values.mean() == pytest.approx(np.log(table["x"].mean()), abs=1e-3)
    assert values.std(ddof=1) / np.sqrt(20) == pytest.approx(0.02, rel=0.5)  # delta method


def test_one_group_that_is_enough_is_named_as_one_and_no_gain_is_no_string_of_zeros():
    flat = Interval(median=0.0, low=-0.0001, high=0.000459)
    settled = replace(
        answer(early, sd=0.001), verdict="enough", rows=1, low=1, high=1, smallest=1, of=4, unit="source groups",
        is_rate=False, is_higher_better=False, within=0.062, next_doubling=flat,
    )  # fmt: skip
    assert str(settled) == "1 of the 4 source groups comes within 0.062 of the loss of all of them."
    assert settled.describe_next() == (
        "Doubling to 8 source groups is expected to change next to nothing (less than 0.0062)."
    )
    rising = replace(settled, next_doubling=Interval(median=0.01, low=0.0, high=0.02))
    assert rising.describe_next().endswith("is expected to lower the loss by 0.01 [0, 0.02].")
    rate = replace(settled, is_rate=True, is_higher_better=True, within=0.01)
    assert rate.describe_next().endswith("change next to nothing (less than 0.1 points).")
    assert replace(rate, within=0.1).describe_next().endswith("(less than 1 point).")
