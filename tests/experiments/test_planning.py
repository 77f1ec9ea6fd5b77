from types import SimpleNamespace

import numpy as np
import pytest

from thresher.evaluation.curves.curve_fit import fit_curve
from thresher.experiments.curve import CurveProgress
from thresher.experiments.learning_curve import keep_payable
from thresher.experiments.planning import (
    Cost,
    choose_curve_methods,
    compute_width,
    is_firm,
    list_doubling_sizes,
    list_first_cells,
    predict_width,
    propose_cells,
)
from thresher.experiments.settings import CurveSettings

SIZES = [50, 100, 200, 400]


def measured(truth, *, sizes=SIZES, sd=0.01, seeds=2, number=0):
    rng = np.random.default_rng(number)
    return fit_curve(sizes, [list(1 - truth(n) + rng.normal(0, sd, seeds)) for n in sizes], is_higher_better=True)


def early(n):
    return 0.12 + 0.25 * np.exp(-n / 100)


def power(n):
    return 0.1 + 2.0 * n**-0.6


@pytest.mark.parametrize(
    ("sizes", "n_seeds", "n_first"),
    [
        ([60, 170, 495], 3, 4),  # a grid of nine cells: only what an answer takes
        ([100, 200, 400, 800, 1600, 3200, 6400], 5, 7),
    ],
)
def test_the_adaptive_mode_starts_with_what_it_may_spend(sizes, n_seeds, n_first):
    cost = Cost(epochs=3, equal_rows=0, n_test=1000, least_rows=640)
    settings = CurveSettings(seeds=n_seeds)
    progress = CurveProgress(settings=settings, methods=("random",), sizes=tuple(sizes))
    runner = SimpleNamespace(experiment=SimpleNamespace(pool=range(10_000)), variants={})
    progress.full_cost = n_seeds * sum(cost.compute(size) for size in sizes)
    first = [("random", *cell) for cell in list_first_cells(sizes, n_seeds)]
    kept = keep_payable(first, 4, progress, runner, cost)
    assert kept == first[: len(kept)]
    assert len(kept) == n_first
    share = sum(cost.compute(size) for _, size, _ in kept) / progress.full_cost
    assert share <= 0.4 or len(kept) == 4


def test_sizes_double_up_to_the_whole_pool():
    assert list_doubling_sizes(6400) == [100, 200, 400, 800, 1600, 3200, 6400]
    assert list_doubling_sizes(100)[-1] == 100
    assert list_doubling_sizes(10_003, n_classes=77)[0] >= 154
    assert min(list_doubling_sizes(40)) >= 16


@pytest.mark.parametrize("sizes", [[100, 200, 400], [100, 200, 400, 800, 1600], [1, 2, 4, 8, 16, 32, 64]])
def test_any_four_first_cells_allow_an_answer_about_the_largest_size(sizes):
    cells = list_first_cells(sizes, 5)
    assert len(set(cells)) == len(cells)
    four = cells[:4]
    assert len({size for size, _ in four}) == 3
    assert (sizes[-1], 0) in four
    assert any(seed == 1 for _, seed in four)
    assert (sizes[-1], 1) not in cells  # the dearest one waits until it is needed


def test_a_cell_costs_its_passes_and_its_test_rows():
    assert Cost(epochs=2, equal_rows=0, n_test=100).compute(50) == 3 * 2 * 50 + 100
    assert Cost(epochs=None, equal_rows=640, n_test=100).compute(50) == 3 * 640 + 100
    floor = Cost(epochs=2, equal_rows=0, n_test=100, least_rows=320)
    assert [floor.compute(n) for n in (50, 160, 200)] == [3 * 320 + 100, 3 * 320 + 100, 3 * 400 + 100]


def test_one_more_run_is_expected_to_narrow_the_interval():
    fit = measured(power)
    rng = np.random.default_rng(0)
    assert predict_width(fit, 200, within=0.01, largest=400, rng=rng) < compute_width(fit, 0.01, 400)


def test_a_quiet_curve_is_firm_and_a_noisy_one_is_not():
    assert is_firm(measured(early, sd=0.001, sizes=[50, 100, 200, 400, 800]), within=0.01, largest=800)
    assert not is_firm(measured(early, sd=0.1, sizes=[50, 100, 200, 400, 800]), within=0.01, largest=800)


def test_a_curve_that_surely_still_pays_at_the_end_of_the_pool_is_firm():
    fit = measured(lambda n: 0.9 - 0.1 * np.log2(n / 50), sd=0.001)
    assert is_firm(fit, within=0.01, largest=400)


def test_proposals_are_new_cells_in_reach_and_none_when_all_seeds_are_done():
    fit, cost = measured(power), Cost(epochs=1, equal_rows=0, n_test=100)
    counts = {50: 2, 100: 2, 200: 2, 400: 2, 800: 0, 1600: 0}
    cells = propose_cells(fit, counts=counts, n_seeds=3, within=0.01, cost=cost, n=3, rng=np.random.default_rng(0))
    assert 1 <= len(cells) <= 3
    assert all(counts[size] <= seed < 3 for size, seed in cells)
    assert len(set(cells)) == len(cells)
    done = dict.fromkeys(counts, 3)
    assert propose_cells(fit, counts=done, n_seeds=3, within=0.01, cost=cost, n=3, rng=np.random.default_rng(0)) == []


@pytest.mark.parametrize("number", range(3))
def test_the_same_state_gives_the_same_plan(number):
    fit, cost = measured(power, number=number), Cost(epochs=1, equal_rows=0, n_test=100)
    plans = [
        propose_cells(
            fit, counts={400: 2, 800: 0}, n_seeds=5, within=0.01, cost=cost, n=2, rng=np.random.default_rng(7)
        )
        for _ in range(2)
    ]
    assert plans[0] == plans[1]


def test_a_curve_has_a_chosen_arm_by_default_only_where_one_is_known_to_help():
    assert choose_curve_methods(CurveSettings(), "classification") == ["random", "prototypes"]
    assert choose_curve_methods(CurveSettings(), "sft") == ["random"]
    assert choose_curve_methods(CurveSettings(axis="source"), "classification") == ["random"]
    assert choose_curve_methods(CurveSettings(methods=("length",)), "sft") == ["random", "length"]
