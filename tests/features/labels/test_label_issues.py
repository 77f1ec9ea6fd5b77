"""The confident joint against a count by hand and a slow loop."""

import numpy as np
import pytest

from thresher.errors import InputError
from thresher.features.labels.label_issues import confident_joint, find_label_issues, join_similar_classes


def slow(p, given):
    """Return the confident class of each row by the paper's definition, row by row; -1 for none."""
    k = p.shape[1]
    t = [np.mean([p[i, j] for i in range(len(p)) if given[i] == j]) for j in range(k)]
    found = []
    for row in p:
        cleared = [j for j in range(k) if row[j] >= t[j]]
        found.append(max(cleared, key=lambda j: row[j]) if cleared else -1)
    return np.array(found)


def random_case(seed, n=60, k=4):
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.full(k, 0.5), n)
    given = np.concatenate([np.arange(k), rng.integers(0, k, n - k)])
    return p, given


@pytest.mark.parametrize("seed", range(5))
def test_issues_are_the_rows_off_the_diagonal_of_the_confident_joint(seed):
    p, given = random_case(seed)
    sure = slow(p, given)
    issues = find_label_issues(p, given, list("abcd"))
    wanted = [i for i in range(60) if sure[i] not in (-1, given[i]) and p[i, sure[i]] > p[i, given[i]]]
    assert sorted(issues["row"]) == wanted
    assert issues["given_probability"].is_sorted()
    for row, name, suggested in issues.select("row", "given", "suggested").iter_rows():
        assert name == "abcd"[given[row]]
        assert suggested == "abcd"[sure[row]]
    counts = np.zeros((4, 4))
    for i in range(60):
        if sure[i] >= 0:
            counts[given[i], sure[i]] += 1
    joint = confident_joint(p, given)
    np.testing.assert_allclose(joint, counts / counts.sum(1, keepdims=True) * np.bincount(given)[:, None])


def test_the_reason_tells_both_probabilities_and_the_average():
    p = np.array([[0.9, 0.1], [0.8, 0.2], [0.05, 0.95], [0.1, 0.9], [0.02, 0.98]])
    issues = find_label_issues(p, np.array([0, 0, 1, 1, 0]), ["cat", "dog"])
    assert issues["row"].to_list() == [4]
    assert issues["reason"][0] == (
        "'cat' has probability 0.020 by classifiers that have not seen the row; 'dog' has 0.980, no less than rows of "
        "that label have on average (0.925)"
    )


def test_a_class_that_is_known_nowhere_else_is_neither_suggested_nor_named():
    p = np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0], [0.3, 0.7, 0.0]])
    assert find_label_issues(p, np.array([0, 1, 2]), ["a", "b", "once"]).height == 0
    assert confident_joint(p, np.array([0, 1, 2]))[2].tolist() == [0, 0, 1]


def test_a_row_whose_given_label_is_the_likeliest_is_not_named():
    # row 1: below 0.75, and 0.3 above 0.2
    p = np.array([[0.8, 0.2], [0.7, 0.3], [0.75, 0.25], [0.85, 0.15]])
    given = np.array([0, 0, 1, 1])
    assert slow(p, given)[1] == 1
    assert 1 not in find_label_issues(p, given, ["frequent", "rare"])["row"].to_list()


def test_right_labels_give_no_line_and_the_columns_stay():
    p = np.array([[0.9, 0.1], [0.1, 0.9]])
    found = find_label_issues(p, np.array([0, 1]), ["a", "b"])
    assert found.height == 0
    assert found.columns == ["row", "given", "suggested", "given_probability", "suggested_probability", "reason"]


def test_arrays_that_do_not_fit_are_refused():
    p = np.array([[0.9, 0.1], [0.1, 0.9]])
    with pytest.raises(InputError, match=r"one line per row and one column per class \(3, 2\), got shape \(2, 2\)"):
        find_label_issues(p, np.array([0, 1, 1]), ["a", "b"])
    with pytest.raises(InputError, match=r"given must be in 0\.\.1, got 0\.\.2"):
        find_label_issues(p, np.array([0, 2]), ["a", "b"])


def test_labels_that_differ_in_case_alone_are_no_issue_of_one_another():
    rng = np.random.default_rng(0)
    names = ["Pos", "neg", "pos", "not spam", "not_spam"]
    p, given = random_case(1, k=5)
    joined, given_class, left = join_similar_classes(p, given, names)
    first = max((0, 2), key=lambda i: (np.sum(given == i), -i))
    assert len(left) == 3
    assert np.allclose(joined[:, left.index("neg")], p[:, 1])
    assert np.allclose(joined[:, left.index(names[first])], p[:, 0] + p[:, 2])
    assert [left[i].casefold().replace("_", " ") for i in given_class] == [
        names[i].casefold().replace("_", " ") for i in given
    ]
    shuffled = rng.permutation(given % 2 * 2)  # Pos and pos at random
    halves = np.stack([np.full(60, 0.5), np.zeros(60), np.full(60, 0.5), np.zeros(60), np.zeros(60)], axis=1)
    assert find_label_issues(*join_similar_classes(halves, shuffled, names)).height == 0
