"""The gain over a reference: rows that differ seldom, or never, prove nothing."""

import numpy as np
import polars as pl
import pytest

from thresher.evaluation.gain import Gain, estimate_gain, format_gain
from thresher.evaluation.held_out import compare
from thresher.evaluation.metric import METRICS, NATS, Metric
from thresher.trainer.untouched.summary import describe_difference, describe_gain, describe_verdict, name_shots

ACCURACY = Metric(name="accuracy", is_higher_better=True, column="correct")


def outcomes(hits):
    rows = [f"row {i}" for i in range(len(hits))]
    predictions = ["a" if hit else "b" for hit in hits]
    return pl.DataFrame({"row_id": rows, "label": ["a"] * len(hits), "prediction": predictions, "correct": hits})


def test_the_interval_is_that_of_bonett_and_price():
    # as above it: (better - worse) / (n + 2), one row of each kind added
    ours = [True] * 40 + [True] * 3 + [False] * 7
    theirs = [True] * 31 + [False] * 9 + [False] * 3 + [True] * 3 + [False] * 4
    n_better = sum(a and not b for a, b in zip(ours, theirs, strict=True))
    n_worse = sum(b and not a for a, b in zip(ours, theirs, strict=True))
    gain = estimate_gain(ACCURACY, [outcomes(ours)], [outcomes(theirs)])
    center, reach = (
        (n_better - n_worse) / 52,
        1.96 * (n_better + n_worse + 2 - (n_better - n_worse) ** 2 / 52) ** 0.5 / 52,
    )
    assert gain.value == pytest.approx((n_better - n_worse) / 50)
    assert (gain.low, gain.high) == pytest.approx((center - reach, center + reach))


@pytest.mark.parametrize("n", [2, 3])
def test_a_few_rows_that_are_all_better_prove_nothing(n):
    assert estimate_gain(ACCURACY, [outcomes([True] * n)], [outcomes([False] * n)]).direction == 0


def test_many_rows_that_are_all_better_do():
    assert estimate_gain(ACCURACY, [outcomes([True] * 8)], [outcomes([False] * 8)]).direction == 1


@pytest.mark.parametrize(("n", "n_better"), [(20, 4), (2, 2), (100, 4)])
def test_a_second_equal_seed_proves_no_more_than_the_first(n, n_better):
    ours, theirs = outcomes([i < n_better for i in range(n)]), outcomes([False] * n)
    one = estimate_gain(ACCURACY, [ours], [theirs])
    two = estimate_gain(ACCURACY, [ours, ours], [theirs, theirs])
    assert one.direction == two.direction == 0  # an exact test has a p of 0.125 or more
    assert two.low <= one.low + 1e-12
    assert two.high >= one.high - 1e-12


def test_sides_that_agree_on_all_rows_may_differ_by_what_so_few_rows_cannot_show():
    gain = estimate_gain(ACCURACY, [outcomes([True] * 40)], [outcomes([True] * 40)])
    assert gain.value == 0
    assert gain.high == -gain.low == pytest.approx(1.96 * 2**0.5 / 42)


SIDES = ((0, (0.3, 0.2)), (1, (0.0, 0.0)))
PAIR = ((1.7, 1.8), (2.0, 2.0))
MORE = "thresher train --seeds 3 would show how much training runs vary"


@pytest.mark.parametrize(
    ("metric", "value", "seeds", "words"),
    [
        ("accuracy", 0.061, 2, "better than random rows by 6.1 points [3.2, 9.0]"),
        ("accuracy", -0.061, 2, "worse than random rows by 6.1 points [3.2, 9.0]"),
        ("accuracy", 0.01, 2, "no clear difference from random rows (from 1.9 points worse to 3.9 better)"),
        ("loss", -0.061, 2, "better than random rows by 0.061 nats [0.032, 0.090]"),
        # one run each shows nothing of the luck of training
        ("accuracy", 0.061, 1, f"ahead of random rows by 6.1 points [3.2, 9.0] in one run each; {MORE}"),
        ("loss", 0.061, 1, f"behind random rows by 0.061 nats [0.032, 0.090] in one run each; {MORE}"),
    ],
)
def test_the_first_line_of_a_summary_says_whether_these_rows_were_better(metric, value, seeds, words):
    gain = value if metric == "accuracy" else -value
    ends = {"low": gain - 0.029, "high": gain + 0.029}
    compared = {"metric": metric, "gain": {"value": gain, **ends, "stderr": 0.015, "n": 500, "n_seeds": seeds}}
    assert describe_difference(compared, "random rows") == words
    metrics = {"base": {"sentence": "training pays"}, "comparison": compared, "control": None}
    verdict = describe_verdict(metrics)
    assert verdict == f"Training pays; {words.replace('random rows', 'the same number of random rows')}"
    assert describe_verdict({"base": None, "comparison": None, "control": None}) is None


def test_a_reference_with_rows_in_its_prompt_is_called_so():
    gain = Gain(value=0.3, low=0.2, high=0.4, stderr=0.05, n=100, n_seeds=1)
    words = {
        name: describe_gain(gain, name, METRICS["text"]["loss"]) for name in ("untouched", name_shots(1), name_shots(4))
    }
    assert words["untouched"].startswith("training pays: better than the untouched model by 0.300 nats")
    assert "than the untouched model with 1 training row in its prompt by" in words["1 in the prompt"]
    assert "than the untouched model with 4 training rows in its prompt by" in words["4 in the prompt"]


def tabulate_losses(gap, seed):
    values = 2.0 - gap + 0.01 * np.random.default_rng(seed).standard_normal(200)
    return pl.DataFrame({"row_id": [f"row {i}" for i in range(200)], "loss": values, "n_tokens": [1] * 200})


def test_two_seeds_of_different_luck_do_not_make_rows_better():
    ours, theirs = ([tabulate_losses(gap, 10 * side + i) for i, gap in enumerate(gaps)] for side, gaps in SIDES)
    comparison = compare(ours, theirs)
    # 1.96 standard errors would say better; with one degree of freedom it takes 12.7
    assert comparison.difference.value + 1.96 * comparison.difference.stderr < 0
    assert comparison.gain.value == pytest.approx(-comparison.difference.value)
    compared = {"metric": "loss", "gain": comparison.gain.to_json()}
    assert describe_difference(compared, "random rows").startswith("no clear difference from random rows")


def test_two_rows_are_judged_by_the_t_distribution():
    ours, theirs = (tabulate_losses(0.0, seed).head(2).with_columns(loss=pl.Series(v)) for seed, v in enumerate(PAIR))
    gain = estimate_gain(METRICS["sft"]["loss"], [ours], [theirs])
    assert gain.value == pytest.approx(0.25)
    assert (gain.low, gain.high) == pytest.approx((0.25 - 12.7062 * 0.05, 0.25 + 12.7062 * 0.05), rel=1e-4)
    assert gain.direction == 0


def test_gains_that_are_judged_together_have_wider_intervals():
    losses = [tabulate_losses(0.0, 0)], [tabulate_losses(0.0, 1)]
    hits = [outcomes([True] * 8)], [outcomes([False] * 8)]
    for metric, (ours, theirs), ratio in ((METRICS["sft"]["loss"], losses, 1.2243), (ACCURACY, hits, 1.2214)):
        one, three = (estimate_gain(metric, ours, theirs, n_tests=n) for n in (1, 3))
        center = (one.low + one.high) / 2 if one.high < 1 else 0.8
        assert (center - three.low) / (center - one.low) == pytest.approx(ratio, rel=1e-3)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (0.3, "0.300 nats [0.200, 0.400]"),
        (-0.3, "0.300 nats [0.200, 0.400]"),
        (-0.05, "-0.050 nats [-0.150, +0.050]"),
        (0.05, "+0.050 nats [-0.050, +0.150]"),
    ],
)
def test_a_gain_that_is_not_clear_shows_its_direction(value, words):
    gain = Gain(value=value, low=value - 0.1, high=value + 0.1, stderr=0.05, n=100, n_seeds=1)
    assert format_gain(gain, NATS) == words
