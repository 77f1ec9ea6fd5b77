"""The label model of Dawid and Skene: how often each annotator says what of each class, by EM."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Float64, Int64

NO_VOTE = -1
SMOOTHING = 0.1  # votes of each kind that an annotator is credited with
MAX_ITERATIONS = 200
TOLERANCE = 1e-6  # largest change of a probability at which EM ends


class LabelModel(NamedTuple):
    """What votes say of rows and of annotators.

    Attributes:
        probability: (n, k) of each class of each row, rows sum to 1; of rows without a vote, the
            shares of the classes.
        share: (k,) of the classes.
        confusion: (m, k, k) probability that annotator j says l of a row of class k; rows sum to 1.
        n_iterations: of EM.
    """

    probability: Float64
    share: Float64
    confusion: Float64
    n_iterations: int


def count_votes(votes: Int64, n_classes: int) -> Float64:
    """Return how many annotators named each class of each row, (n, k)."""
    counts = np.zeros((len(votes), n_classes))
    for column in votes.T:
        said = np.flatnonzero(column != NO_VOTE)
        counts[said, column[said]] += 1
    return counts


def fit_label_model(votes: Int64, n_classes: int) -> LabelModel:
    """Estimate classes and annotators together, from the majority on.

    Each annotator errs in its own way, independently of the others given the class; where it is
    silent says nothing. E step: p(k | votes of i) ~ share_k prod_j confusion_j[k, v_ij]. M step:
    shares and confusions are the expected frequencies, with `SMOOTHING` votes of each kind added.

    Source: Dawid and Skene 1979, doi:10.2307/2346806. Cost: O(n m k) an iteration. Fails: rules
    that are wrong together, as copies of one another, are believed; with one or two annotators a
    row the majority is all there is.

    Args:
        votes: (n, m) class that each annotator says of each row, NO_VOTE for none.
        n_classes: k.
    """
    n, m = votes.shape
    counts = count_votes(votes, n_classes)
    has_vote = counts.sum(axis=1) > 0
    probability = np.full((n, n_classes), 1.0 / n_classes)
    probability[has_vote] = counts[has_vote] / counts[has_vote].sum(axis=1, keepdims=True)
    said = [np.flatnonzero(column != NO_VOTE) for column in votes.T]
    share, confusion, iteration = np.full(n_classes, 1.0 / n_classes), np.zeros((m, n_classes, n_classes)), 0
    for iteration in range(1, MAX_ITERATIONS + 1):  # noqa: B007 - told
        voted = probability[has_vote]
        share = (voted.sum(axis=0) + SMOOTHING) / (len(voted) + SMOOTHING * n_classes)
        for j, rows in enumerate(said):
            table = np.full((n_classes, n_classes), SMOOTHING)
            np.add.at(table.T, votes[rows, j], probability[rows])
            confusion[j] = table / table.sum(axis=1, keepdims=True)
        logs = np.tile(np.log(share), (n, 1))
        for j, rows in enumerate(said):
            logs[rows] += np.log(confusion[j]).T[votes[rows, j]]
        updated = np.exp(logs - logs.max(axis=1, keepdims=True))
        updated /= updated.sum(axis=1, keepdims=True)
        change = float(np.abs(updated - probability)[has_vote].max(initial=0.0))
        probability = updated
        if change < TOLERANCE:
            break
    return LabelModel(probability, share, confusion, iteration)
