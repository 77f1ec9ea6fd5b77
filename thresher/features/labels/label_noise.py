"""Which labels are wrong? Two estimates without truth, which err in different ways."""

from __future__ import annotations

import numpy as np

from thresher.features.labels.label_issues import confident_joint
from thresher.numeric.arrays import Bool, Float64, Int64

LEAST = 1e-6  # probability
MAX_OTHERS = 4_000  # rows of other classes that a class is compared with
FEWEST = 3  # rows of a class, to say anything of its share of wrong labels
FEWEST_LOW = 8  # rows that the share of wrong labels is read from
EDGE = 1e-3  # of a posterior
SMOOTH = 1e-3  # of all rows, spread over the cells of a joint


def estimate_wrong(p: Float64, given_class: Int64) -> Float64:
    """Return the estimated probability that each label is wrong, (n,), class by class.

    Within the column of one class, the rows that were given it are compared with those that were
    not: the share of the former that is as low as the latter bounds the share of wrong labels
    (mixture proportions, Blanchard, Lee and Scott 2010, JMLR 11), and an isotonic fit of the ratio
    of densities gives each row's probability. The classes' shares play no part.

    Args:
        p: (n, k) probabilities.
        given_class: (n,).
    """
    wrong = np.full(len(p), 0.5)
    for label in range(p.shape[1]):
        is_given = given_class == label
        if is_given.sum() >= FEWEST and not is_given.all():
            wrong[is_given] = _estimate_class(p[:, label], is_given)
    return wrong


def _estimate_class(score: Float64, is_given: Bool) -> Float64:
    """Return the probability of being wrong, of the rows of one class."""
    from sklearn.isotonic import IsotonicRegression

    own, others = score[is_given], np.sort(score[~is_given])
    others = others[:: -(-len(others) // MAX_OTHERS)]
    low, n = np.sort(own), len(own)
    # share of own rows up to each of them, with a standard error, against that of other rows
    ours = (np.arange(1, n + 1) + np.sqrt(np.arange(1, n + 1))) / n
    theirs = np.searchsorted(others, low, side="right") / len(others)
    first = min(max(FEWEST_LOW, n // 20), n) - 1
    share = min(1.0, float((ours[first:] / np.maximum(theirs[first:], LEAST)).min()))
    # how much likelier each score is among the others
    x = np.concatenate([own, others])
    y = np.repeat([0.0, 1.0], [n, len(others)])
    weight = np.repeat([1 / n, 1 / len(others)], [n, len(others)])
    fit = IsotonicRegression(increasing=False, out_of_bounds="clip").fit(x, y, sample_weight=weight)
    posterior = np.clip(fit.predict(own), EDGE, 1 - EDGE)
    wrong: Float64 = np.clip(share * posterior / (1 - posterior), 0, 1)
    return wrong


def estimate_by_joint(p: Float64, given_class: Int64) -> Float64:
    """Return the probability that each label is wrong by the confident joint, (n,).

    With the joint of given and true classes (Northcutt et al. 2021, arXiv:1911.00068) and the
    probabilities taken for those of the true class, Bayes' rule says how likely the given label is
    the true one.

    Args:
        p: (n, k) probabilities.
        given_class: (n,).
    """
    joint = confident_joint(p, given_class).T  # a line for each true class
    joint = joint + SMOOTH * joint.sum() / joint.size
    given_by_true = joint / joint.sum(axis=1, keepdims=True)
    right = p[np.arange(len(p)), given_class] * given_by_true[given_class, given_class]
    total = (p * given_by_true[:, given_class].T).sum(axis=1)
    wrong: Float64 = 1 - right / np.maximum(total, LEAST)
    return wrong
