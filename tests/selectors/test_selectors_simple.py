"""Random, length, stratified, deft-ucs and herding against closed forms and slow references."""

import time

import numpy as np
import polars as pl
import pytest

from thresher.errors import SettingsError
from thresher.features.container import Features
from thresher.selectors.deft_ucs import DeftUcs, alternate_ends
from thresher.selectors.herding import Herding
from thresher.selectors.length import Length
from thresher.selectors.round_robin import plan_equal_turns, plan_proportional_turns, take_turns
from thresher.selectors.stratified import Stratified
from thresher.selectors.uniform import Uniform


def build(n, **arrays):
    return Features(row_id=pl.Series([f"{i:06d}" for i in range(n)]), arrays=arrays)


def ranking(selector, data, n_ranked, seed=0):
    return selector.score(data, n_ranked=n_ranked, rng=np.random.default_rng(seed)).ranking()[:n_ranked]


# ---------------------------------------------------------------- random


def test_random_values_are_uniform():
    value = Uniform().score(build(20_000), n_ranked=1, rng=np.random.default_rng(0)).value
    assert ((value >= 0) & (value < 1)).all()
    counts = np.histogram(value, bins=20, range=(0, 1))[0]
    chi2 = ((counts - 1000) ** 2 / 1000).sum()
    assert chi2 < 43.8  # 99.9 % point of chi-square with 19 degrees of freedom


def test_random_seeds_give_independent_samples():
    data = build(10_000)
    a, b = (set(ranking(Uniform(), data, 1000, seed=s).tolist()) for s in (1, 2))
    assert 60 < len(a & b) < 140  # 100 expected, standard deviation 9


def test_random_keeps_its_picks_when_one_percent_new_rows_arrive():
    before = build(10_000)
    after = Features(
        row_id=pl.concat([before.row_id, pl.Series([f"new-{i}" for i in range(100)])]),
        arrays={},
    )
    old = set(before.row_id.gather(ranking(Uniform(), before, 1000)).to_list())
    new = set(after.row_id.gather(ranking(Uniform(), after, 1000)).to_list())
    assert len(old & new) > 970


def test_random_value_of_a_known_id_is_stable_across_versions():
    data = Features(row_id=pl.Series(["a", "b"]), arrays={})
    value = Uniform().score(data, n_ranked=1, rng=np.random.default_rng(0)).value
    import xxhash

    salt = int(np.random.default_rng(0).integers(1 << 62))
    assert value.tolist() == [(xxhash.xxh3_64(t.encode(), seed=salt).intdigest() >> 11) / 2**53 for t in "ab"]


@pytest.mark.slow
def test_random_takes_about_a_second_for_a_million_rows():
    data = build(1_000_000)
    begin = time.perf_counter()
    Uniform().score(data, n_ranked=10, rng=np.random.default_rng(0))
    assert time.perf_counter() - begin < 3


# ---------------------------------------------------------------- length


@pytest.mark.parametrize(
    ("order", "expected"), [("longest", [3, 0, 4, 1, 2]), ("shortest", [2, 1, 4, 0, 3]), ("middle", [4, 1, 2, 0, 3])]
)
def test_length_orders_rows(order, expected):
    data = build(5, length=np.array([50, 20, 10, 99, 21]))
    assert ranking(Length(order=order), data, 5).tolist() == expected


# ---------------------------------------------------------------- turns and stratified


@pytest.mark.parametrize(
    "sizes", [[1], [5, 5], [1, 2, 97], [3, 3, 1, 40], [7, 11, 13, 17, 19], [1] * 12, [1, 99, 99, 1]]
)
def test_proportional_prefixes_stay_within_one_row_of_each_exact_share(sizes):
    sizes = np.array(sizes)
    n = sizes.sum()
    turns = plan_proportional_turns(sizes, n)
    assert np.bincount(turns).tolist() == sizes.tolist()
    for k in range(1, n + 1):
        assert (np.abs(np.bincount(turns[:k], minlength=len(sizes)) * n - k * sizes) < n).all()


def test_proportional_shares_hold_for_random_sizes():
    rng = np.random.default_rng(5)
    for _ in range(50):
        sizes = rng.integers(1, 40, rng.integers(1, 15))
        turns = plan_proportional_turns(sizes, sizes.sum())
        count = np.cumsum(turns[:, None] == np.arange(len(sizes)), axis=0)
        exact = np.arange(1, sizes.sum() + 1)[:, None] * sizes / sizes.sum()
        assert np.abs(count - exact).max() < 1


def test_equal_turns_are_round_robin_until_a_group_is_used_up():
    assert plan_equal_turns(np.array([1, 3, 2]), 6).tolist() == [0, 1, 2, 1, 2, 1]


def test_take_turns_gives_the_next_row_of_each_group():
    group = np.array([0, 1, 0, 1, 1])
    order = np.array([4, 2, 0, 3, 1])
    assert take_turns(order, group, np.array([1, 0, 1, 0, 1])).tolist() == [4, 2, 3, 0, 1]


@pytest.mark.parametrize("balance", ["balanced", "proportional"])
def test_stratified_gives_groups_their_turns_in_random_order(balance):
    label = np.repeat([4, 7, 9], [10, 30, 60])
    data = build(100, **{"column:label": label})
    picked = ranking(Stratified(balance=balance), data, 20)
    expected = {"balanced": [7, 7, 6], "proportional": [2, 6, 12]}[balance]
    assert [int((label[picked] == g).sum()) for g in (4, 7, 9)] == expected
    assert picked.tolist() != ranking(Stratified(balance=balance), data, 20, seed=1).tolist()


def test_stratified_needs_the_column_it_groups_by():
    assert Stratified(by="source").requirements.features == {"column:source"}
    assert Stratified(by="cluster").requirements.features == {"embedding"}


def test_stratified_by_cluster_finds_separate_groups():
    rng = np.random.default_rng(0)
    centers = np.eye(8, dtype=np.float32)[:4] * 10
    truth = np.repeat(np.arange(4), [10, 20, 30, 40])
    x = centers[truth] + 0.1 * rng.standard_normal((100, 8)).astype(np.float32)
    picked = ranking(Stratified(by="cluster", n_clusters=4), build(100, embedding=x), 12)
    assert np.bincount(truth[picked]).tolist() == [3, 3, 3, 3]


def test_number_of_clusters_without_clusters_is_refused():
    with pytest.raises(SettingsError, match="n_clusters is for by='cluster' only"):
        Stratified(by="label", n_clusters=3)


# ---------------------------------------------------------------- deft-ucs


@pytest.mark.parametrize(
    ("share", "expected"),
    [(0.5, [0, 5, 1, 4, 2, 3]), (1.0, [0, 1, 2, 3, 4, 5]), (0.0, [5, 4, 3, 2, 1, 0]), (0.25, [5, 0, 4, 3, 2, 1])],
)
def test_easy_and_hard_alternate_by_share(share, expected):
    order = alternate_ends(6, share)
    assert sorted(order.tolist()) == list(range(6))
    assert order.tolist() == expected


def test_deft_takes_nearest_and_farthest_of_each_cluster_by_hand():
    # two directions, rows at growing angles from each; the numbers are row positions, not places in
    # a cluster
    angles = np.concatenate([np.radians([0, 1, 2, 3, 20]), np.radians([90, 91, 92, 93, 110])])
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    shuffle = np.random.default_rng(2).permutation(10)
    data = build(10, embedding=x[shuffle])
    picked = shuffle[ranking(DeftUcs(n_clusters=2), data, 4)]
    # the centroids lie at about 5.2 and 95.2 degrees: nearest are 3 and 93 degrees, farthest 20 and
    # 110
    assert sorted(picked[:2].tolist()) == [3, 8]
    assert sorted(picked[2:].tolist()) == [4, 9]


def test_deft_equal_and_proportional_shares():
    rng = np.random.default_rng(0)
    truth = np.repeat([0, 1], [20, 80])
    x = np.eye(4, dtype=np.float32)[truth] * 10 + 0.1 * rng.standard_normal((100, 4)).astype(np.float32)
    data = build(100, embedding=x)
    equal = truth[ranking(DeftUcs(n_clusters=2), data, 10)]
    proportional = truth[ranking(DeftUcs(n_clusters=2, balance="proportional"), data, 10)]
    assert np.bincount(equal).tolist() == [5, 5]
    assert np.bincount(proportional).tolist() == [2, 8]


# ---------------------------------------------------------------- herding


def test_herding_equals_a_slow_reference():
    x = np.random.default_rng(1).standard_normal((40, 6))
    unit = (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32).astype(np.float64)
    mean, picks = unit.mean(axis=0), []
    # minimize the distance of the prefix's mean to `mean`, in the form of Chen et al.:
    # maximize mean . x - mean of k
    for t in range(40):
        gain = [mean @ v - sum(v @ unit[s] for s in picks) / (t + 1) for v in unit]
        picks.append(max(set(range(40)) - set(picks), key=lambda i: gain[i]))
    data = build(40, embedding=x.astype(np.float32))
    scores = Herding().score(data, n_ranked=40, rng=np.random.default_rng(0))
    assert scores.ranking().tolist() == picks
    distances = [np.linalg.norm(unit[picks[: k + 1]].mean(axis=0) - mean) for k in range(40)]
    np.testing.assert_allclose(scores.objective, distances, atol=1e-6)


def test_herding_matches_the_mean_better_than_random():
    x = np.random.default_rng(1).standard_normal((500, 8)).astype(np.float32) + 0.3
    unit = x / np.linalg.norm(x, axis=1, keepdims=True)
    data = build(500, embedding=x)
    herd, random = (
        np.linalg.norm(unit[ranking(s, data, 20)].mean(axis=0) - unit.mean(axis=0)) for s in (Herding(), Uniform())
    )
    assert herd < random / 5
