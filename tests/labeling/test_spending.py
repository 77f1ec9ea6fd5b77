"""What money buys: against curves whose crossing is known."""

import math

import numpy as np
import pytest

import thresher as th
from thresher.evaluation.curves.curve_fit import fit_curve
from thresher.evaluation.curves.spending import Kind, compare_kinds, find_crossings

SIZES = (50, 100, 200, 400, 800)


def fit(floor, height, *, noise=0.0, seed=0):
    """Return the law of errors floor + height n^-0.5, measured with noise."""
    rng = np.random.default_rng(seed)
    values = [[1 - floor - height * n**-0.5 + noise * rng.normal() for _ in range(4)] for n in SIZES]
    return fit_curve(SIZES, values, is_higher_better=True, n_samples=300, seed=seed)


def make_kinds(**options):
    """Return gold rows at 1 each, and taught ones at 0.1 that end at a higher error."""
    return [
        Kind(name="gold", fit=fit(0.05, 2.0, **options), price=1.0),
        Kind(name="taught", fit=fit(0.15, 1.6, **options), price=0.1, fixed=20.0),
    ]


def true_crossing():
    """Return the money at which both have the same error, by bisection."""

    def gap(money):
        return 0.05 + 2.0 * money**-0.5 - 0.15 - 1.6 * ((money - 20) / 0.1) ** -0.5

    low, high = 25.0, 1e4
    for _ in range(80):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if gap(middle) > 0 else (low, middle)
    return low


def test_the_best_kind_changes_where_the_true_curves_cross():
    crossings = find_crossings(make_kinds(noise=1e-4), 30, 2000)
    assert [(c.before, c.after) for c in crossings] == [("taught", "gold")]
    assert crossings[0].money.median == pytest.approx(true_crossing(), rel=0.1)


def test_the_interval_of_the_crossing_covers_the_truth():
    true, covered = true_crossing(), 0
    for seed in range(12):
        crossing = find_crossings(make_kinds(noise=0.01, seed=seed), 30, 4000)[-1]
        covered += crossing.money.low <= true <= crossing.money.high
    assert covered >= 8  # of 12 intervals of 80 %: fewer have a chance of 2 %


def test_no_change_is_told_where_neither_kind_was_measured():
    curves = {
        name: [{"rows": n, "value": 1 - floor - height * n**-0.5, "seed": seed} for n in SIZES for seed in (0, 1)]
        for name, floor, height in (("gold", 0.05, 2.0), ("taught", 0.15, 1.6))
    }
    result = th.label_budget(curves, price={"gold": 1.0, "taught": 0.1}, fixed={"taught": 20}, money=[10, 2000])
    crossings = result.content["crossings"]
    assert all(each["money"]["median"] >= 25 for each in crossings)
    assert result.content["offers"][0]["is_beyond"] == ("gold",)


def test_an_amount_buys_rows_after_what_is_fixed():
    kinds = make_kinds(noise=0.001)
    offer = compare_kinds(kinds, 50.0)
    assert offer.rows == {"gold": 50, "taught": 300}
    assert offer.best == "taught"
    assert sum(offer.chance.values()) == pytest.approx(1)
    assert offer.score["taught"].median == pytest.approx(1 - 0.15 - 1.6 * 300**-0.5, abs=0.01)
    assert offer.is_sure
    assert offer.regret < 0.01
    only = compare_kinds(kinds, 15.0)
    assert (only.best, only.rows, only.chance) == ("gold", {"gold": 15, "taught": 0}, {"gold": 1.0, "taught": 0.0})
    assert compare_kinds(kinds, 0.5).best is None


def test_kinds_that_cannot_be_told_apart_say_what_would_tell():
    alike = [
        Kind(name="a", fit=fit(0.1, 1.5, noise=0.04), price=1.0),
        Kind(name="b", fit=fit(0.1, 1.5, noise=0.04), price=1.0),
    ]
    offer = compare_kinds(alike, 300.0)
    assert not offer.is_sure
    assert "more run" in offer.advice or "no affordable number" in offer.advice


def test_rows_far_beyond_what_was_measured_are_told():
    assert compare_kinds(make_kinds(noise=0.01), 3000.0).is_beyond == ("gold", "taught")


def test_where_no_kind_overtakes_there_is_no_crossing():
    one = Kind(name="a", fit=fit(0.1, 1.5, noise=1e-3), price=1.0)
    other = Kind(name="b", fit=fit(0.3, 1.5, noise=1e-3), price=1.0)
    assert find_crossings([one, other], 100, 1000) == []
    assert math.isclose(sum(compare_kinds([one, other], 500).chance.values()), 1)


@pytest.mark.parametrize(
    ("money", "price", "rows"), [(0.3, 0.1, 3), (4.35, 0.01, 435), (0.29, 0.1, 2), (26, 0.26, 100)]
)
def test_money_buys_every_row_that_it_pays_for(money, price, rows):
    assert math.floor(Kind(name="a", fit=fit(0.1, 1.0), price=price).count_rows(money)) == rows
