"""Greedy soups: an adapter is added where the mean does not get worse on the dev rows."""

from itertools import combinations

import numpy as np
import pytest

from thresher.experiments.adapter_averaging import choose_greedily, describe_greedy


@pytest.mark.parametrize("seed", range(20))
def test_it_is_never_below_the_best_adapter_nor_above_the_best_of_all_subsets(seed):
    """Against brute force over all subsets of six, whose values are any at all."""
    rng = np.random.default_rng(seed)
    values = {members: float(rng.normal()) for size in range(1, 7) for members in combinations(range(6), size)}

    def measure(members):
        return values[tuple(sorted(members))]

    order = sorted(range(6), key=lambda number: -values[number,])
    soup = choose_greedily(order, measure)
    assert values[order[0],] <= measure(soup) <= max(values.values())
    assert soup[0] == order[0]
    # no member that was passed over makes it better at its turn
    for place, number in enumerate(order[1:], 1):
        before = [member for member in soup if order.index(member) < place]
        is_better = measure([*before, number]) >= measure(before)
        assert is_better == (number in soup)


def test_what_is_as_good_is_added():
    assert choose_greedily([3, 1, 2], lambda members: 0.5) == [3, 1, 2]


@pytest.mark.parametrize(
    ("trials", "words"),
    [([2], "trial 2 alone"), ([2, 5], "trials 2, 5: accuracy 0.9000; against"), ([2, 3, 5], "all of them")],
)
def test_it_is_told_what_the_soup_is(trials, words):
    greedy = {"trials": trials, "average": 0.9, "verdict": "no difference seen"}
    assert describe_greedy({"trials": [2, 3, 5], "greedy": greedy}, "accuracy").startswith(words)
    assert describe_greedy({"trials": [2]}, "accuracy") == "not measured"
