"""Prices and plans of transport against exact linear programs."""

import numpy as np
import pytest
import scipy

from thresher.numeric import optimal_transport
from thresher.numeric.capped_plan import solve_capped_plan
from thresher.numeric.optimal_transport import compute_potentials, solve_prices


def unit(x):
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def draw(n, m, *, seed=0, d=8):
    rng = np.random.default_rng(seed)
    ahead = np.eye(d)[:2]
    return unit(rng.standard_normal((n, d)) + 2 * ahead[0]), unit(rng.standard_normal((m, d)) + 2 * ahead[1])


def distances(rows, targets):
    return np.linalg.norm(rows[:, None].astype(np.float64) - targets[None], axis=2)


def solve_exactly(rows, targets, mass):
    n, m = len(rows), len(targets)
    marginals = scipy.sparse.vstack(
        [
            scipy.sparse.kron(scipy.sparse.eye(n), np.ones((1, m))),
            scipy.sparse.kron(np.ones((1, n)), scipy.sparse.eye(m)),
        ]
    )
    result = scipy.optimize.linprog(
        distances(rows, targets).ravel(), A_eq=marginals, b_eq=np.r_[mass, np.full(m, 1 / m)]
    )
    return result.fun, result.eqlin.marginals[:n]


@pytest.mark.parametrize(("smoothing", "least"), [(0.02, 0.98), (0.05, 0.96), (0.1, 0.93)])
def test_potentials_order_rows_like_the_exact_dual(smoothing, least):
    rows, targets = draw(60, 40)
    _, exact = solve_exactly(rows, targets, np.full(60, 1 / 60))
    prices = solve_prices(rows, targets, smoothing=smoothing)
    assert prices.error < optimal_transport.TOLERANCE
    assert scipy.stats.spearmanr(exact, compute_potentials(rows, targets, prices)).statistic > least


def test_potentials_are_the_gradient_of_the_exact_distance():
    rows, targets = draw(40, 25, seed=1)
    potential = compute_potentials(rows, targets, solve_prices(rows, targets, smoothing=0.02))
    step, slopes = 2e-3, []
    for i in range(40):
        more, less = (np.full(40, 1 / 40) - sign * step / 39 for sign in (1, -1))
        more[i], less[i] = 1 / 40 + step, 1 / 40 - step
        slopes.append((solve_exactly(rows, targets, more)[0] - solve_exactly(rows, targets, less)[0]) / (2 * step))
    gradient = (potential - potential.mean()) * 40 / 39
    assert np.corrcoef(slopes, gradient)[0, 1] > 0.98
    assert np.abs(gradient - slopes).max() < 0.1


def test_target_rows_that_the_pool_lacks_have_the_highest_price():
    rng = np.random.default_rng(2)
    targets = unit(np.eye(4)[[0] * 10 + [1] * 10] + rng.normal(0, 0.05, (20, 4)))
    rows = unit(np.eye(4)[[0] * 190 + [1] * 10] + rng.normal(0, 0.05, (200, 4)))
    price = solve_prices(rows, targets, smoothing=0.05).price
    assert price[10:].min() > price[:10].max() + 0.2


def test_a_pool_that_is_the_target_gives_about_the_same_potential_to_all():
    rows, _ = draw(50, 1)
    other, _ = draw(50, 1, seed=5)
    same = compute_potentials(rows, rows, solve_prices(rows, rows, smoothing=0.02))
    apart = compute_potentials(rows, other, solve_prices(rows, other, smoothing=0.02))
    assert same.std() < apart.std() / 3


def test_blocks_and_the_warm_start_change_no_order(monkeypatch):
    rows, targets = draw(300, 10)
    whole = compute_potentials(rows, targets, solve_prices(rows, targets, smoothing=0.05))
    monkeypatch.setattr(optimal_transport, "BLOCK_CELLS", 70)
    monkeypatch.setattr(optimal_transport, "WARM_ROWS", 50)
    parts = compute_potentials(rows, targets, solve_prices(rows, targets, smoothing=0.05))
    assert scipy.stats.spearmanr(whole, parts).statistic > 0.999


@pytest.mark.parametrize("balance", [0.01, 0.3, 1.0, 3.0, 100.0])
def test_capped_plan_is_that_of_the_linear_program(balance):
    rows, targets = draw(40, 6, seed=3)
    n, m = 40, 6
    weights = np.random.default_rng(4).uniform(0.2, 1, n)
    cost = np.r_[distances(rows, targets).T.ravel() / m, balance]
    sums = np.hstack([scipy.sparse.kron(scipy.sparse.eye(m), np.ones((1, n))).toarray(), np.zeros((m, 1))])
    caps = np.hstack([np.eye(n * m), -np.tile(weights, m)[:, None]])
    exact = scipy.optimize.linprog(cost, A_ub=caps, b_ub=np.zeros(n * m), A_eq=sums, b_eq=np.ones(m))
    plan = solve_capped_plan(rows, weights, targets, balance=balance)
    assert plan.spread == pytest.approx(1 / exact.x[-1], rel=1e-6)
    assert plan.mass.sum() == pytest.approx(1)
    # rows of one bin of distances share what the program may give to one of them
    assert np.abs(plan.mass - exact.x[:-1].reshape(m, n).mean(axis=0)).max() < 0.03
    near = np.argsort(distances(rows, targets), axis=0)
    reached = np.cumsum(weights[near], axis=0) - weights[near]  # weight before each row, by target
    level = np.full(n, np.inf)
    np.minimum.at(level, near.ravel(), reached.ravel())
    assert np.mean(np.abs(plan.level - level) < 1e-9) > 0.95
