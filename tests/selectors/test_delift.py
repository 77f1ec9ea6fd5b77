"""DELIFT's three stages against plain greedy and brute force on small dense kernels, in float64."""

import itertools

import numpy as np
import polars as pl
import pytest

import thresher as th
from thresher.errors import InputError, SettingsError
from thresher.features.container import Features
from thresher.features.utility.in_context_utility import IN_CONTEXT_UTILITY
from thresher.selectors import create, delift
from thresher.selectors.delift import Delift
from thresher.selectors.submodular.sparse_facility import Pairs, cover_pairs

N = 40
REASON = "the response has no token"


def dense(values):
    """Return the feature of utilities (n, m) of all m examples."""
    values = np.asarray(values, np.float64)
    found = np.empty(values.shape, IN_CONTEXT_UTILITY)
    found["example"], found["utility"] = np.arange(values.shape[1]), values
    return found


def build(utility, *, target=None, existing=None):
    n = len(utility)
    others = {"target_in_context_utility": target, "existing_in_context_utility": existing}
    has_none = np.isnan(utility["utility"]).all(axis=1)
    return Features(
        row_id=pl.Series([f"{i:06d}" for i in range(n)]),
        arrays={"in_context_utility": utility},
        context={name: dense(values) for name, values in others.items() if values is not None},
        missing={"in_context_utility": pl.Series([REASON if none else None for none in has_none], dtype=pl.String)},
    )


def run(data, n_ranked, **settings):
    return Delift(**settings).score(data, n_ranked=n_ranked, rng=np.random.default_rng(0))


def random_utility(n=N, m=None, seed=0, *, decimals=6):
    """Return asymmetric utilities, many below 0; few decimals make ties."""
    return (np.random.default_rng(seed).standard_normal((n, m or n)) / 4).round(decimals)


def value(s, picks, target=None, existing=None, eta=1.0, nu=1.0):
    """Return f of some picks by the paper's formulas: kernels (n, n), (n, q), (n, p), all >= 0."""
    best = s[:, picks].max(axis=1, initial=0)
    if target is not None:
        best = np.minimum(best, eta * target.max(axis=1))
    if existing is not None:
        best = np.maximum(best - nu * existing.max(axis=1), 0)
    return best.sum()


def plain_greedy(s, k, **others):
    """Return picks and f after each, as in the textbook: every candidate is tried at every step."""
    n = s.shape[1]
    alone = [value(s, [j], **others) for j in range(n)]
    picks, values = [], [0.0]
    while len(picks) < k:
        rest = [j for j in range(n) if j not in picks]
        found = np.array([value(s, [*picks, j], **others) for j in rest])
        if found.max() > values[-1] + 1e-9:
            picks.append(rest[np.flatnonzero(found >= found.max() - 1e-10)[0]])
        else:
            picks.append(min(rest, key=lambda j: (-round(alone[j], 10), j)))
        values.append(value(s, picks, **others))
    return picks, np.array(values[1:])


def clip(values):
    return None if values is None else np.maximum(values, 0)


STAGES = {
    "instruction tuning": (None, None),
    "task-specific": (random_utility(N, 5, 1), None),
    "continual": (None, random_utility(N, 3, 2) - 0.2),
    "task-specific and continual": (random_utility(N, 5, 1), random_utility(N, 2, 2) - 0.2),
}


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("decimals", [1, 6])
def test_every_stage_equals_plain_greedy_up_to_all_rows(stage, decimals):
    target, existing = STAGES[stage]
    utility = random_utility(decimals=decimals)
    picks, values = plain_greedy(clip(utility), N, target=clip(target), existing=clip(existing))
    found = run(build(dense(utility), target=target, existing=existing), N)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, atol=1e-9)
    assert found.notes["stage"] == stage


@pytest.mark.parametrize(("name", "setting"), [("target", "eta"), ("existing", "nu")])
@pytest.mark.parametrize("weight", [0.0, 0.5, 2.0])
def test_eta_and_nu_weigh_the_rows_beside_the_pool(name, setting, weight):
    utility, beside = random_utility(), random_utility(N, 4, 1)
    picks, values = plain_greedy(clip(utility), 15, **{name: clip(beside), setting: weight})
    found = run(build(dense(utility), **{name: beside}), 15, **{setting: weight})
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, atol=1e-9)


@pytest.mark.parametrize("stage", STAGES)
def test_every_prefix_has_63_percent_of_the_best_objective(stage):
    target, existing = (None if each is None else each[:8] for each in STAGES[stage])
    utility = random_utility(8)
    objective = run(build(dense(utility), target=target, existing=existing), 8).objective
    others = {"target": clip(target), "existing": clip(existing)}
    for k in range(1, 9):
        best = max(value(clip(utility), list(c), **others) for c in itertools.combinations(range(8), k))
        assert (1 - 1 / np.e) * best - 1e-9 <= objective[k - 1] <= best + 1e-9


def test_the_min_max_scale_is_one_for_the_whole_kernel():
    utility, target = random_utility(), random_utility(N, 3, 1) * 1.5
    low, high = utility.min(), max(utility.max(), target.max())
    scaled, beside = (utility - low) / (high - low), np.maximum((target - low) / (high - low), 0)
    picks, values = plain_greedy(scaled, 12, target=beside)
    found = run(build(dense(utility), target=target), 12, scale="min-max")
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, atol=1e-9)


def test_pairs_that_were_not_tried_count_nothing():
    utility, rng = random_utility(), np.random.default_rng(5)
    tried = np.array([[i, *rng.choice(np.delete(np.arange(N), i), 6, replace=False)] for i in range(N)])
    sparse = np.empty(tried.shape, IN_CONTEXT_UTILITY)
    sparse["example"], sparse["utility"] = tried, np.take_along_axis(utility, tried, axis=1)
    full = np.zeros((N, N))
    np.put_along_axis(full, tried, np.maximum(sparse["utility"], 0), axis=1)
    picks, values = plain_greedy(full, N)
    found = run(build(sparse), N)
    assert found.ranking().tolist() == picks
    np.testing.assert_allclose(found.objective, values, atol=1e-9)
    assert found.notes["n_pairs"] == 7 * N


def test_a_smaller_budget_is_a_prefix_of_a_larger_one_and_no_row_comes_twice():
    for target, existing in STAGES.values():
        data = build(dense(random_utility()), target=target, existing=existing)
        whole = run(data, N).ranking().tolist()
        assert sorted(whole) == list(range(N))
        for k in (1, 7, 25):
            assert run(data, k).ranking().tolist() == whole[:k]


def test_a_row_without_a_value_is_excluded_and_stands_for_nothing():
    utility = random_utility()
    utility[[3, 8]] = np.nan
    fine = np.delete(np.arange(N), [3, 8])
    picks, values = plain_greedy(np.maximum(utility[np.ix_(fine, fine)], 0), 38)
    for scale in ("clip", "min-max"):
        found = run(build(dense(utility)), N, scale=scale)
        assert sorted(found.ranking().tolist()) == fine.tolist()
        assert found.excluded.is_not_null().arg_true().to_list() == [3, 8]
    found = run(build(dense(utility)), N)
    assert found.ranking().tolist() == fine[picks].tolist()
    np.testing.assert_allclose(found.objective, values, atol=1e-9)


def test_equal_rows_go_to_the_lowest():
    assert run(build(dense(np.full((6, 6), 0.25))), 6).ranking().tolist() == list(range(6))


def test_nothing_that_helps_still_ranks_every_row():
    assert run(build(dense(np.full((5, 5), -0.5))), 5).ranking().tolist() == list(range(5))
    assert run(build(dense(np.full((1, 1), -0.5))), 1, scale="min-max").ranking().tolist() == [0]


def test_a_row_is_covered_by_the_pick_that_helps_it_most():
    utility = random_utility()
    found = run(build(dense(utility)), 10)
    picks = found.ranking()[:10]
    for i in np.setdiff1d(np.arange(N), picks):
        most = utility[i, picks].max()
        assert found.covered_by[i] == (picks[utility[i, picks].argmax()] if most > 0 else -1)
    assert (found.covered_by[picks] == picks).all()


def cosines(x, y):
    x, y = (a / np.linalg.norm(a, axis=1, keepdims=True) for a in (x.astype(np.float64), y.astype(np.float64)))
    return np.maximum(x @ y.T, 0).round(6)


@pytest.mark.parametrize("roles", [(), ("target",), ("existing",), ("target", "existing")])
def test_the_embedding_kernel_is_that_of_cosines(roles):
    rng = np.random.default_rng(0)
    x, beside = rng.standard_normal((N, 6)).astype(np.float32), rng.standard_normal((2, 6)).astype(np.float32)
    data = Features(
        row_id=pl.Series([f"{i:06d}" for i in range(N)]),
        arrays={"embedding": x},
        context={f"{role}_embedding": beside for role in roles},
    )
    picks, values = plain_greedy(cosines(x, x), 30, **{role: cosines(x, beside) for role in roles})
    found = run(data, 30, kernel="embedding", neighbors="all")
    n_clear = int(np.sum(np.diff(values, prepend=0) > 1e-4))
    assert found.ranking()[:n_clear].tolist() == picks[:n_clear]
    np.testing.assert_allclose(found.objective, values, atol=1e-4)


def test_each_kernel_asks_for_its_own_features():
    for kernel in ("in_context_utility", "embedding"):
        requirements = Delift(kernel=kernel).requirements
        assert requirements.features == {kernel}
        assert requirements.side_features == {"target": {kernel}, "existing": {kernel}}
    assert Delift().requirements.feature_settings == {"n_examples": 64}
    assert create("delift", {"neighbors": "5"}).requirements.feature_settings == {"n_examples": 5}
    assert Delift(neighbors="all").requirements.feature_settings == {"n_examples": None}


@pytest.mark.parametrize("neighbors", ["0", "-1", "many", "1.5", 3.5, ""])
def test_a_number_of_neighbors_that_is_none_is_refused(neighbors):
    with pytest.raises(SettingsError, match="neighbors must be a whole number of at least 1 or 'all', got"):
        Delift(neighbors=neighbors)


def test_all_pairs_of_too_many_rows_are_refused(monkeypatch):
    monkeypatch.setattr(delift, "MAX_ALL_ROWS", 30)
    data = Features(row_id=pl.Series([str(i) for i in range(N)]), arrays={"embedding": np.ones((N, 2), np.float32)})
    with pytest.raises(InputError, match="neighbors='all' takes at most 30 rows, got 40"):
        run(data, 5, kernel="embedding", neighbors="all")


def test_cover_of_pairs_equals_plain_greedy_on_sparse_kernels():
    for seed in range(20):
        rng = np.random.default_rng(seed)
        s = np.maximum(rng.standard_normal((30, 30)), 0).round(1) * (rng.random((30, 30)) < 0.2)
        picks, values = plain_greedy(s, 30)
        row, candidate = np.nonzero(s)
        found = cover_pairs(Pairs(row, candidate, s[row, candidate]), np.arange(30), 30, 30)
        assert found.picks.tolist() == picks
        np.testing.assert_allclose(np.cumsum(found.gains), values, atol=1e-9)


ROWS = [{"prompt": f"{verb} {i}", "completion": f"{i} {verb}ed"} for i in range(6) for verb in ("add", "sort", "print")]


def select(tiny_llama, **options):
    settings = {"settings": {"neighbors": "3"}, **options}
    return th.select(ROWS, "delift", budget=5, encoder="static", model=str(tiny_llama), device="cpu", **settings)


def test_all_stages_run_from_rows_and_leave_the_reasons(tiny_llama):
    target, existing = ROWS[:2], [{"prompt": "sort 9", "completion": "9 sorted"}]
    for others, stage in (
        ({}, "instruction tuning"),
        ({"target": target}, "task-specific"),
        ({"existing": existing}, "continual"),
        ({"target": target, "existing": existing}, "task-specific and continual"),
    ):
        subset = select(tiny_llama, **others)
        assert len(subset) == 5
        assert subset.manifest.content["notes"]["stage"] == stage
        assert ("target" in subset.manifest.content) == ("target" in others)
        assert len(subset.dropped) == 13


def test_the_choice_does_not_depend_on_the_order_of_the_file(tiny_llama):
    shuffled = [ROWS[i] for i in np.random.default_rng(3).permutation(len(ROWS))]
    one = select(tiny_llama).dataset.frame["row_id"]
    options = {"encoder": "static", "model": str(tiny_llama), "device": "cpu", "settings": {"neighbors": "3"}}
    other = th.select(shuffled, "delift", budget=5, **options).dataset.frame["row_id"]
    assert set(one) == set(other)


def test_the_embedding_kernel_loads_no_language_model():
    subset = th.select(
        ROWS,
        "delift",
        budget=5,
        settings={"kernel": "embedding"},
        encoder="static",
        model="no/such-model",
        target=ROWS[:2],
    )
    assert list(subset.manifest.content["features"]) == ["embedding"]


def test_a_target_is_refused_by_methods_without_one():
    with pytest.raises(InputError, match="target: random does not use rows of a target; leave them out"):
        th.select(ROWS, "random", budget=5, target=ROWS[:2])
    with pytest.raises(InputError, match="existing: random does not use rows you already have; leave them out"):
        th.select(ROWS, "random", budget=5, existing=ROWS[:2])


def test_a_target_is_another_result(tmp_path):
    options = {"settings": {"kernel": "embedding"}, "encoder": "static", "budget": 5}
    hashes = {
        th.select(ROWS, "delift", **options, target=target).manifest.hash for target in (None, ROWS[:2], ROWS[2:4])
    }
    assert len(hashes) == 3
