"""How points of a curve err together: what the estimate says is what simulated curves do."""

import numpy as np
import pytest

from thresher.evaluation.curves.curve_fit import fit_curve
from thresher.evaluation.curves.enough import Tolerance, find_enough
from thresher.evaluation.curves.row_noise import bound_unseen, estimate_test_covariance

N_ROWS, N_SEEDS = 300, 3


def draw(rng, *, shares_the_pool):
    """Values of rows at three sizes; at the last one all runs may be one and the same model."""
    skill = rng.normal(0, 1, N_ROWS)
    tables = []
    for gap in (0.0, 0.3, 0.5):
        luck = rng.normal(0, 0.8, (N_SEEDS, N_ROWS))
        if gap == 0.5 and shares_the_pool:
            luck[:] = luck[0]
        tables.append((skill + gap + luck > 0).astype(float))
    return tables


@pytest.mark.parametrize("shares_the_pool", [False, True])
def test_seeds_and_rows_together_give_the_spread_of_differences(shares_the_pool):
    rng = np.random.default_rng(0)
    differences, of_rows, of_seeds = [], [], []
    for _ in range(400):
        tables = draw(rng, shares_the_pool=shares_the_pool)
        means = [table.mean(axis=1) for table in tables]
        differences.append(means[0].mean() - means[2].mean())
        of_rows.append(estimate_test_covariance(tables)[0, 0])
        of_seeds.append(sum(np.var(means[place], ddof=1) / N_SEEDS for place in (0, 2)))
    assert np.mean(of_rows) + np.mean(of_seeds) == pytest.approx(np.var(differences), rel=0.15)


def test_runs_on_the_same_rows_leave_their_luck_to_the_test_rows():
    rng = np.random.default_rng(1)
    own = np.mean([estimate_test_covariance(draw(rng, shares_the_pool=False))[0, 0] for _ in range(100)])
    shared = np.mean([estimate_test_covariance(draw(rng, shares_the_pool=True))[0, 0] for _ in range(100)])
    assert shared > 2 * own


def test_sizes_with_one_run_have_the_chance_of_the_others():
    tables = draw(np.random.default_rng(2), shares_the_pool=False)
    single = estimate_test_covariance([tables[0], tables[1][:1], tables[2]])
    assert np.isfinite(single).all()
    assert (np.linalg.eigvalsh(single) > -1e-12).all()
    assert estimate_test_covariance([table[:1] for table in tables]).shape == (3, 3)


@pytest.mark.parametrize(("n_test", "verdict"), [(10, "cannot tell"), (200, "cannot tell"), (310, "enough")])
@pytest.mark.parametrize("n_wrong", [0, 1])
def test_few_test_rows_that_all_runs_answer_alike_prove_nothing(n_test, verdict, n_wrong):
    answers = np.ones((3, n_test))
    answers[:, :n_wrong] = 0
    tables, sizes = [answers] * 6, [16 * 2**k for k in range(6)]
    means = [list(table.mean(axis=1)) for table in tables]
    fit = fit_curve(sizes, means, is_higher_better=True, test_covariance=estimate_test_covariance(tables))
    found = find_enough(fit, n_pool=sizes[-1], n_test=n_test)
    assert found.verdict == verdict
    assert "anywhere from 16 to 16" not in str(found)


def test_a_single_wrong_answer_of_one_run_proves_no_more_than_none():
    tables, sizes = [np.ones((3, 100)) for _ in range(4)], [16, 32, 64, 128]
    tables[1][0, 7] = 0
    means = [list(table.mean(axis=1)) for table in tables]
    fit = fit_curve(sizes, means, is_higher_better=True, test_covariance=estimate_test_covariance(tables))
    assert find_enough(fit, n_pool=128, n_test=100).verdict == "cannot tell"
    assert find_enough(fit, within=Tolerance(0.03), n_pool=128, n_test=100).verdict == "enough"


def test_the_test_rows_that_settle_answers_all_alike_are_three_per_tolerance():
    tables, sizes = [np.ones((3, 100))] * 4, [16, 32, 64, 128]
    fit = fit_curve(sizes, [[1.0] * 3] * 4, is_higher_better=True, test_covariance=estimate_test_covariance(tables))
    found = find_enough(fit, n_pool=128, n_test=100)
    assert 300 <= found.test_rows_needed <= 420
    assert found.more_seeds_needed is None


def test_values_other_than_right_and_wrong_have_no_unseen_rows():
    assert not estimate_test_covariance([np.full((2, 30), 0.5)] * 3).any()
    assert estimate_test_covariance([np.ones((2, 30))] * 3)[0, 0] == pytest.approx(2 * bound_unseen([30]))


def test_a_mean_over_classes_hides_more_where_one_is_rare():
    assert bound_unseen([495, 5]) > 20 * bound_unseen([250, 250])
    assert bound_unseen([500]) == pytest.approx(2 / 502**2)
