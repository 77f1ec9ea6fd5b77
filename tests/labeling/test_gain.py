"""What the next labels are expected to bring: much where classes are unclear, else nothing."""

import numpy as np
import pytest

from thresher.labeling.gain import estimate_gain


def draw(n, noise, *, seed=0, k=4, d=16):
    rng = np.random.default_rng(seed)
    center = np.random.default_rng(7).normal(size=(k, d))
    label = np.arange(n) % k
    return (center[label] + noise * rng.normal(size=(n, d))).astype(np.float32), label


def test_classes_that_are_told_apart_need_no_more_labels():
    x, label = draw(160, 0.1)
    gain = estimate_gain(x, label, batch=40, delta=0.01, test=draw(200, 0.1, seed=1))
    assert gain.says_stop
    assert str(gain).startswith("stop: the next 40 labels are expected to raise the accuracy by 0.0 points")
    assert "(80 % interval)" in str(gain)
    assert gain.accuracy.median > 0.97


def test_the_expected_gain_is_about_what_the_labels_then_bring():
    """Against the truth: learners of 48 labels and of a batch more, on 4,000 test rows."""
    from thresher.numeric.vectors import unit_rows
    from thresher.selectors.pilot.student import fit_student

    test_x, test_y = draw(4000, 2.2, seed=99)
    expected, true = [], []
    for seed in range(4):
        x, label = draw(128, 2.2, seed=seed)
        gain = estimate_gain(x[:48], label[:48], batch=80, delta=0.01, seed=seed)
        assert gain.accuracy is None  # no test rows
        expected.append(gain.gain.median)
        scores = [fit_student(unit_rows(x[:n]), label[:n]).score(unit_rows(test_x), test_y) for n in (48, 128)]
        true.append(scores[1] - scores[0])
    assert np.mean(expected) == pytest.approx(np.mean(true), abs=0.04)
    assert np.mean(true) > 0.03
    assert not gain.says_stop
    assert gain.stop_at is None or gain.stop_at > 48


def test_a_labeled_row_counts_as_often_as_rows_are_nearest_to_it():
    x, label = draw(60, 1.0)
    hard = np.arange(60) >= 40
    label = np.where(hard, np.random.default_rng(0).permutation(label), label)
    alike = estimate_gain(x, label, batch=20, delta=0.01)
    weighed = estimate_gain(x, label, batch=20, delta=0.01, stands_for=np.where(hard, 1e-6, 1.0))
    assert alike.gain != weighed.gain


@pytest.mark.parametrize(("n", "k"), [(39, 4), (60, 1)])
def test_too_few_labels_or_one_class_tell_nothing(n, k):
    x, label = draw(n, 1.0, k=k)
    assert estimate_gain(x, label, batch=10, delta=0.01) is None
