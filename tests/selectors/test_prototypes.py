"""Prototypes against brute-force herding and a slow count of seats."""

import time

import numpy as np
import polars as pl
import pytest

from thresher.errors import SettingsError
from thresher.features.container import Features
from thresher.selectors.herding import herd_rows
from thresher.selectors.prototypes import Prototypes
from thresher.selectors.round_robin import plan_turns


def unit(x):
    x = np.asarray(x, dtype=np.float64)
    return (x / np.linalg.norm(x, axis=1, keepdims=True)).astype(np.float32)


def build(embedding, label, probability=None, ids=None):
    arrays = {"embedding": unit(embedding), "column:label": np.asarray(label, dtype=np.int64)}
    if probability is not None:
        arrays["class_probability"] = np.asarray(probability, dtype=np.float32)
    row_id = pl.Series(ids if ids is not None else [f"{i:06d}" for i in range(len(label))])
    return Features(row_id=row_id, arrays=arrays)


def rank(data, n_ranked, **settings):
    scores = Prototypes(**settings).score(data, n_ranked=n_ranked, rng=np.random.default_rng(0))
    return scores.ranking()[:n_ranked].tolist()


def herd_slowly(x):
    """Welling's update in float64, one row at a time."""
    x = x.astype(np.float64)
    state, left, order = x.mean(axis=0), list(range(len(x))), []
    while left:
        best = max(left, key=lambda i: (round(float(state @ x[i]), 9), -i))
        left.remove(best)
        order.append(best)
        state = state + x.mean(axis=0) - x[best]
    return order


@pytest.mark.parametrize("seed", range(5))
def test_one_class_is_herded_as_by_brute_force(seed):
    x = np.random.default_rng(seed).normal(size=(8, 3))
    assert rank(build(x, [0] * 8), 8, doubtful="ignore") == herd_slowly(unit(x))


def count_seats(sizes, weights, n_turns):
    """Sainte-Lague, seat by seat: the largest weight / (2 seats + 1), lowest group first."""
    seats = np.zeros(len(sizes), np.int64)
    history = []
    for _ in range(n_turns):
        quotient = np.where(seats < sizes, weights / (2 * seats + 1), -1.0)
        seats[int(np.argmax(np.round(quotient, 12)))] += 1
        history.append(seats.copy())
    return np.array(history)


@pytest.mark.parametrize(("balance", "exponent"), [("sqrt", 0.5), ("balanced", 0.0)])
@pytest.mark.parametrize("seed", range(3))
def test_every_prefix_has_the_seats_of_the_divisor_method(balance, exponent, seed):
    rng = np.random.default_rng(seed)
    sizes = np.array([60, 25, 9, 1])
    label = np.repeat(np.arange(4), sizes)
    order = rank(build(rng.normal(size=(95, 6)), label), 95, balance=balance, doubtful="ignore")
    counted = np.cumsum(np.eye(4, dtype=np.int64)[label[order]], axis=0)
    assert (counted == count_seats(sizes, sizes**exponent, 95)).all()


def test_proportional_turns_stay_within_one_row_of_the_share():
    sizes = np.array([60, 25, 9, 1])
    label = np.repeat(np.arange(4), sizes)
    data = build(np.random.default_rng(0).normal(size=(95, 6)), label)
    order = rank(data, 95, balance="proportional", doubtful="ignore")
    counted = np.cumsum(np.eye(4)[label[order]], axis=0)
    share = np.arange(1, 96)[:, None] * sizes / 95
    assert (np.abs(counted - share) < 1).all()


def planted(n=300, n_wrong=30, seed=0):
    """Two classes, some of whose rows have the other's label; probabilities that see it."""
    rng = np.random.default_rng(seed)
    truth = rng.integers(2, size=n)
    label = truth.copy()
    wrong = rng.choice(n, n_wrong, replace=False)
    label[wrong] = 1 - truth[wrong]
    x = rng.normal(size=(n, 8)) + np.where(truth[:, None] == 1, 1.0, -1.0)
    probability = np.where(truth[:, None] == np.arange(2), 0.9, 0.1)
    return build(x, label, probability), label, wrong


def test_wrong_labels_come_after_all_right_ones_of_their_class():
    data, label, wrong = planted()
    order = rank(data, len(label))
    place = np.empty(len(label), np.int64)
    place[order] = np.arange(len(label))
    is_wrong = np.isin(np.arange(len(label)), wrong)
    for code in (0, 1):
        assert place[(label == code) & ~is_wrong].max() < place[(label == code) & is_wrong].min()


def test_without_doubt_wrong_labels_come_among_the_others():
    data, label, wrong = planted()
    assert np.isin(rank(data, 100, doubtful="ignore"), wrong).any()
    assert not np.isin(rank(data, 100), wrong).any()
    assert "class_probability" not in Prototypes(doubtful="ignore").requirements.features
    assert "class_probability" not in Prototypes(by="source").requirements.features


def test_prefixes_nest_and_do_not_depend_on_the_budget():
    data, label, _ = planted()
    assert rank(data, len(label))[:40] == rank(data, 40)


def test_means_of_prefixes_are_nearer_than_those_of_random_rows():
    x = unit(np.random.default_rng(3).normal(size=(500, 16)) + 0.5)
    herded = herd_rows(x, 50, np.zeros(500))[0]
    draw = np.random.default_rng(4)
    at_random = [np.linalg.norm(x[draw.choice(500, 50, False)].mean(0) - x.mean(0)) for _ in range(50)]
    assert np.linalg.norm(x[herded].mean(0) - x.mean(0)) < 0.2 * np.median(at_random)


def test_blocks_take_each_row_once_and_keep_the_mean():
    rng = np.random.default_rng(5)
    x = unit(rng.normal(size=(1003, 16)) + 0.3)
    picks, distance = herd_rows(x, 1003, rng.random(1003), max_block=100)
    assert sorted(picks.tolist()) == list(range(1003))
    assert distance[-1] < 1e-6
    exact = herd_rows(x, 100, rng.random(1003), max_block=2000)[1]
    assert distance[99] < 2 * exact[99]
    mean_of_prefix = x[picks[:100]].astype(np.float64).mean(axis=0)
    assert distance[99] == pytest.approx(np.linalg.norm(mean_of_prefix - x.astype(np.float64).mean(axis=0)), abs=1e-9)


def test_clusters_and_other_columns_divide_too():
    x = np.repeat(np.eye(4), 10, axis=0) + 0.01
    data = Features(
        row_id=pl.Series([f"{i:03d}" for i in range(40)]),
        arrays={"embedding": unit(x), "column:source": np.arange(40) % 2},
    )
    assert set(np.array(rank(data, 4, by="cluster", n_clusters=4)) // 10) == {0, 1, 2, 3}
    assert set(np.array(rank(data, 2, by="source")) % 2) == {0, 1}
    with pytest.raises(SettingsError, match="n_clusters is for by='cluster' only"):
        Prototypes(n_clusters=3)


def test_square_root_turns_lie_between_equal_and_proportional_ones():
    sizes = np.array([900, 100])
    shares = {balance: (plan_turns(balance, sizes, 100) == 0).sum() for balance in ("balanced", "sqrt", "proportional")}
    assert shares == {"balanced": 50, "sqrt": 75, "proportional": 90}


def test_a_class_that_is_used_up_leaves_its_turns():
    assert (plan_turns("sqrt", np.array([5, 1]), 6) == 0).sum() == 5


@pytest.mark.slow
def test_ten_percent_of_two_hundred_thousand_rows_take_seconds():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(200_000, 64)).astype(np.float32)
    data = build(x, rng.integers(4, size=200_000))
    begin = time.perf_counter()
    assert len(set(rank(data, 20_000, doubtful="ignore"))) == 20_000
    assert time.perf_counter() - begin < 60
