"""Scores of one number each are known in steps: equal differences are no proof of equal seeds."""

import numpy as np
import pytest

from thresher.evaluation.effect import estimate_effect


def test_equal_differences_of_one_step_are_not_certain():
    ours, theirs = np.full((2, 40), 0.525), np.full((2, 40), 0.5)
    certain = estimate_effect(ours, theirs, is_higher_better=True)
    assert certain.p == 0.0
    effect = estimate_effect(ours, theirs, is_higher_better=True, resolution=1 / 40)
    # one step on either side, rounded: a variance of 2/12 steps for each of two seeds, one freedom
    assert effect.stderr == pytest.approx(np.sqrt(2 / 12 / 2) / 40)
    assert effect.dof == pytest.approx(1.0)
    assert effect.p > 0.05
    assert effect.low < 0 < effect.high


def test_a_wide_spread_of_seeds_is_not_changed():
    ours, theirs = np.repeat([[0.7], [0.5], [0.6]], 40, axis=1), np.full((3, 40), 0.5)
    plain = estimate_effect(ours, theirs, is_higher_better=True)
    effect = estimate_effect(ours, theirs, is_higher_better=True, resolution=1 / 40)
    assert effect == plain
    assert effect.stderr == pytest.approx(0.1 / np.sqrt(3))
