"""Greedy by numpy alone makes the picks of the compiled loop; other files compare with oracles."""

import numpy as np
import pytest

from thresher.numeric.threads import limit_blas
from thresher.numeric.vectors import inverse_norms, unit_rows
from thresher.selectors.submodular import kernels, small_kernel
from thresher.selectors.submodular.dense_kernel import compute_kernel, pick_from_kernel
from thresher.selectors.submodular.greedy import start_coverage, start_saturation
from thresher.selectors.submodular.optimizers import OPTIMIZERS
from thresher.selectors.submodular.pick_rules import start_pick_rule

N = 240


def make_vectors(name):
    rng = np.random.default_rng(0)
    if name == "clusters":
        center = rng.standard_normal((12, 16))
        x = center[rng.integers(12, size=N)] + 0.4 * rng.standard_normal((N, 16))
    else:
        x = rng.standard_normal((N, {"gaussian": 16, "flat": 2, "equal": 16, "zeros": 16}[name]))
    if name == "equal":
        x[N // 2 :] = x[: N // 2]
    if name == "zeros":
        x[::7] = 0
    return x.astype(np.float32)


def start(x, state):
    rng = np.random.default_rng(1)
    if state == "saturation":
        return start_saturation(N, rng.uniform(0, 3, N)), None
    weight = rng.integers(1, 4, N) if state == "weights" else np.ones(N)
    floor = rng.uniform(0, 0.4, N) if state == "floor" else np.zeros(N)
    vectors, scale = (x[:, :0], np.zeros(N)) if state == "no vectors" else (x, inverse_norms(x))
    bonus = rng.uniform(0, 2, N).round(1) if state == "bonus" else None
    return start_coverage(vectors, scale, weight.astype(np.float32), floor), bonus


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("state", ["plain", "weights", "floor", "no vectors", "bonus", "saturation"])
@pytest.mark.parametrize("name", ["gaussian", "clusters", "flat", "equal", "zeros"])
def test_picks_gains_and_coverage_are_those_of_the_compiled_loop(name, state, optimizer):
    x = make_vectors(name)
    results = []
    for pick in (pick_from_kernel, small_kernel.pick_from_small_kernel):
        cover, bonus = start(x, state)
        rule = start_pick_rule(optimizer, 0.1, np.random.default_rng(2), cover.is_pick)
        with limit_blas():  # two threads may round the products of equal rows differently
            kernel = compute_kernel(unit_rows(x))
        results.append((cover, pick(kernel, cover, 60, rule, bonus)))
    (cover, picks), (other_cover, other) = results
    assert len(picks.rows) > 5
    # of rows that can take all that is left, any may be first
    if (state, optimizer) == ("saturation", "threshold"):
        np.testing.assert_allclose(other.gains.sum(), picks.gains.sum(), rtol=1e-6)
        return
    assert other.rows.tolist() == picks.rows.tolist()
    np.testing.assert_allclose(other.gains, picks.gains, rtol=1e-5, atol=1e-5)
    assert other_cover.by.tolist() == cover.by.tolist()
    assert other_cover.is_pick.tolist() == cover.is_pick.tolist()
    for one in ("nearest", "open_from", "open_to"):
        np.testing.assert_allclose(getattr(other_cover, one), getattr(cover, one), rtol=1e-6, atol=1e-6)


def test_the_number_of_rows_decides(monkeypatch):
    asked = []
    monkeypatch.setattr(small_kernel, "pick_from_small_kernel", lambda *_: asked.append("numpy"))
    monkeypatch.setattr(kernels.dense_kernel, "pick_from_kernel", lambda *_: asked.append("compiled"))
    for n in (small_kernel.MOST_ROWS, small_kernel.MOST_ROWS + 1):
        kernels.pick_greedily(np.empty((n, 1), np.float32), None, 1, None)
    assert asked == ["numpy", "compiled"]
