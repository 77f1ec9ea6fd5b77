"""More rows or a bigger model: models differ in the test rows that they are good at, by chance."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest

from thresher.evaluation.curves.curve_fit import fit_curve
from thresher.evaluation.curves.joint_law import JointAnswer
from thresher.evaluation.metric import find_metric
from thresher.experiments.design.variants import Variant, compare_factors, describe_factors
from thresher.experiments.runner import ExperimentRunner

SIZES, SEEDS, N_TEST = (50, 100, 200, 400, 800), 3, 300
ROW_IDS = [f"{row:05}" for row in range(N_TEST)]


def measure(number):
    """Two models that are equally good on average, on one draw of test rows; a runner of it."""
    rng = np.random.default_rng(number)
    variants = [
        Variant(method="random", factor="model", value=name, amount=amount)
        for name, amount in (("small", 1.0), ("large", 4.0))
    ]
    outcomes = {}
    for variant in variants:
        own = rng.normal(0, 1, N_TEST)  # how hard each test row is to this model
        for size in SIZES:
            for seed in range(SEEDS):
                is_right = own + 1.5 - 9 / size**0.5 + rng.normal(0, 0.3, N_TEST) > 0
                table = pl.DataFrame({"row_id": ROW_IDS, "correct": is_right})
                outcomes[variant.label, size, seed] = SimpleNamespace(outcomes=table)
    experiment = SimpleNamespace(metric=find_metric("accuracy", "classification"), test=range(N_TEST))
    settings = {"rankings": None, "worker_pool": None, "n_workers": 1, "engine": "local", "on_progress": None}
    runner = ExperimentRunner(experiment=experiment, outcomes=outcomes, **settings)
    return runner, variants, fit_all(runner, variants)


def fit_all(runner, variants):
    """The laws of each variant."""
    return {
        variant.label: fit_curve(
            SIZES,
            [[table["correct"].mean() for table in runner.list_tables(variant.label, size)] for size in SIZES],
            is_higher_better=True,
            test_covariance=runner.estimate_test_covariance(variant.label, SIZES),
            n_samples=50,
        )
        for variant in variants
    }


def test_a_larger_model_that_is_no_better_is_seldom_called_better():
    n_better, n = 0, 20
    for number in range(n):
        runner, variants, fits = measure(number)
        joint = compare_factors(variants, fits, runner.estimate_covariance)
        n_better += joint["gain_of_factor"]["low"] > 0.002
    assert n_better <= 4  # of an 80 % interval, 2 in 20; by the errors of single curves it was 7


def test_points_of_several_models_err_with_the_test_rows_of_the_last_one():
    runner, variants, _ = measure(0)
    points = [(variant.label, size) for variant in variants for size in SIZES]
    covariance = runner.estimate_covariance(points)
    own = runner.estimate_covariance(points[len(SIZES) :])
    assert covariance[len(SIZES) :, len(SIZES) :] == pytest.approx(own, abs=1e-6)
    # a whole model is off by as much as two independent sets of row values
    assert covariance[len(SIZES) - 1, len(SIZES) - 1] ** 0.5 == pytest.approx((2 * 0.1 / N_TEST) ** 0.5, rel=0.4)
    assert (covariance[-1] == 0).all()


def test_models_that_count_tokens_in_their_own_way_weigh_rows_by_their_own_tokens():
    runner, variants, _ = measure(0)
    rng = np.random.default_rng(1)
    mean_loss, tokens = rng.gamma(2, 1, N_TEST), {each.label: rng.integers(5, 50, N_TEST) for each in variants}
    for label, size, seed in runner.outcomes:
        n = tokens[label]  # the models differ in how they count alone
        table = pl.DataFrame({"row_id": ROW_IDS, "loss": mean_loss * n + rng.normal(0, 1e-3, N_TEST), "n_tokens": n})
        runner.outcomes[label, size, seed] = SimpleNamespace(outcomes=table)
    runner.experiment.metric = find_metric("loss", "sft")
    points = [(each.label, SIZES[0]) for each in variants]
    ratios = []
    for label, _ in points:
        n = tokens[label]
        ratios.append(n / n.mean() * (mean_loss - (mean_loss * n).sum() / n.sum()))
    wanted = np.var(ratios[0] - ratios[1], ddof=1) / N_TEST
    assert runner.estimate_covariance(points)[0, 0] == pytest.approx(wanted, rel=1e-2)


@pytest.mark.parametrize("p_rows", [0.05, 0.6, 0.95])
@pytest.mark.parametrize("is_rate", [True, False])
def test_the_answer_is_a_sentence_whichever_is_likelier(p_rows, is_rate):
    gains = [SimpleNamespace(low=0.5 * gain, median=gain, high=2 * gain) for gain in (0.01, 0.03)]
    answer = JointAnswer(gain_of_rows=gains[0], gain_of_factor=gains[1], p_rows=p_rows, times=2)
    largest = Variant(method="random", factor="model", value="large", amount=4.0)
    scale = SimpleNamespace(is_rate=is_rate, is_higher_better=is_rate)
    text = describe_factors(answer, largest, rows=800, scale=scale, is_misfit=False)
    wanted = (
        "the rows are expected to bring 1.0 points [0.5, 2.0], the model 3.0 points [1.5, 6.0]."
        if is_rate
        else "the rows are expected to lower the loss by 0.010 [0.005, 0.020], the model by 0.030 [0.015, 0.060]."
    )
    assert text.endswith(f"from 800 rows and large, {wanted}")


def test_a_law_that_misses_the_points_names_neither():
    gains = [SimpleNamespace(low=0.5 * gain, median=gain, high=2 * gain) for gain in (0.01, 0.03)]
    answer = JointAnswer(gain_of_rows=gains[0], gain_of_factor=gains[1], p_rows=0.99, times=2)
    largest = Variant(method="random", factor="model", value="large", amount=4.0)
    scale = SimpleNamespace(is_rate=True, is_higher_better=True)
    text = describe_factors(answer, largest, rows=800, scale=scale, is_misfit=True)
    assert text.startswith("Cannot tell whether twice the rows or a model of twice the size would bring more")


def test_a_larger_model_that_is_worse_is_called_so():
    runner, variants, _ = measure(0)
    variants = [replace(variants[0], amount=4.0), replace(variants[1], amount=1.0)][::-1]
    for (label, size, seed), outcome in list(runner.outcomes.items()):
        if label == variants[1].label:  # the larger one: an eighth of its right answers are wrong
            spoiled = outcome.outcomes.with_columns(pl.col("correct") & (pl.int_range(N_TEST) % 8 > 0))
            runner.outcomes[label, size, seed] = SimpleNamespace(outcomes=spoiled)
    joint = compare_factors(variants, fit_all(runner, variants), runner.estimate_covariance)
    assert joint["worse"]["than"] == "large"
    assert joint["answer"].startswith("The larger model is worse here: with 800 rows, small is 1")


def test_one_run_that_diverged_does_not_make_the_larger_model_worse():
    runner, variants, _ = measure(0)
    label = variants[1].label
    for (name, size, seed), outcome in list(runner.outcomes.items()):
        if (name, size) == (label, SIZES[-1]):
            if seed > 0:
                del runner.outcomes[name, size, seed]
                continue
            broken = outcome.outcomes.with_columns(correct=pl.int_range(N_TEST) % 3 == 0)
            runner.outcomes[name, size, seed] = SimpleNamespace(outcomes=broken)
    assert compare_factors(variants, fit_all(runner, variants), runner.estimate_covariance)["worse"] is None


def test_a_few_test_rows_that_all_runs_answer_alike_prove_no_model_worse():
    runner, variants, _ = measure(0)
    for name, size, seed in runner.outcomes:
        is_right = np.arange(4) < (1 if name == variants[1].label else 4)
        table = pl.DataFrame({"row_id": ROW_IDS[:4], "correct": is_right})
        runner.outcomes[name, size, seed] = SimpleNamespace(outcomes=table)
    assert compare_factors(variants, fit_all(runner, variants), runner.estimate_covariance)["worse"] is None


@pytest.mark.parametrize("n_test", [4, N_TEST])
@pytest.mark.parametrize("is_larger", [True, False])
def test_a_model_with_its_fewest_rows_that_beats_the_other_with_all_is_named_before_any_law(is_larger, n_test):
    runner, (small, large), _ = measure(0)
    best = large if is_larger else small
    for number, (name, size, seed) in enumerate(list(runner.outcomes)):
        # the better one learns with the rows, which the other does not: no product of powers fits
        share = 0.75 + 0.2 * (size / 800) if name == best.label else 0.4
        is_right = (7 * np.arange(n_test) + number) % n_test < share * n_test
        table = pl.DataFrame({"row_id": ROW_IDS[:n_test], "correct": is_right})
        runner.outcomes[name, size, seed] = SimpleNamespace(outcomes=table)
    fits = fit_all(runner, [small, large])
    joint = compare_factors([small, large], fits, runner.estimate_covariance)
    if n_test == 4:  # so few prove nothing
        assert joint["ahead"] is None
        return
    other = small if is_larger else large
    found = {name: joint["ahead"][name] for name in ("value", "rows", "than", "of")}
    assert found == {"value": best.value, "rows": 50, "than": other.value, "of": 800}
    assert 0.2 < joint["ahead"]["low"] < joint["ahead"]["median"] < joint["ahead"]["high"] < 0.5
    start = "The larger model pays more than more rows" if is_larger else "The larger model is worse here"
    wanted = f"{start}: with 50 rows, {best.value} is 36.3 points ["
    assert joint["answer"].startswith(wanted), joint["answer"]
    assert f"] better than {other.value} with all 800." in joint["answer"]


@pytest.mark.parametrize("last", [0.4, 0.99])
def test_a_single_run_with_all_rows_may_only_contradict_that_fewer_rows_suffice(last):
    runner, (small, large), _ = measure(0)
    for number, (name, size, seed) in enumerate(list(runner.outcomes)):
        share = 0.9 if name == large.label else last if size == SIZES[-1] else 0.4
        is_right = (7 * np.arange(N_TEST) + number) % N_TEST < share * N_TEST
        runner.outcomes[name, size, seed] = SimpleNamespace(
            outcomes=pl.DataFrame({"row_id": ROW_IDS, "correct": is_right})
        )
    for seed in range(1, SEEDS):
        del runner.outcomes[small.label, SIZES[-1], seed]
    joint = compare_factors([small, large], fit_all(runner, [small, large]), runner.estimate_covariance)
    if last > 0.9:
        assert joint["ahead"] is None
    else:
        assert joint["ahead"]["of"] == SIZES[-2]
        assert f"] better than {small.value} with {SIZES[-2]}." in joint["answer"]
