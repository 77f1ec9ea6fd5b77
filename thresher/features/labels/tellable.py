"""Can wrong labels be told? Not by two classifiers that do not bear each other out."""

from __future__ import annotations

import numpy as np

from thresher.numeric.arrays import Array, Int64

LEAST_SKILL = 0.65  # of the held-out labels beyond the most frequent one, predicted right
LEAST_CORRELATION = 0.67  # of the ranks of the rows by the two classifiers
LEAST_AGREEMENT = 0.61  # of the labels that one contradicts, those that the other does, too
FEWEST_ROWS = 50


def explain_cannot_tell(probability: Array, given_class: Int64, votes: Array, voted_class: Int64) -> str | None:
    """Return why wrong labels cannot be told from right ones, or None where they can.

    Labels that are wrong at random are contradicted by classifiers of any kind. Where a rule made
    them, each classifier learns it as far as it sees it, and what they contradict are the rows that
    are hard for it alone. So nothing can be told where all of these hold: held-out labels are
    predicted badly, the two classifiers rank the rows differently, and where one contradicts a
    label, the other seldom names the same class. The bounds were found on planted noise of 20 kinds
    on six sets (`benchmarks/label_issues.py`).

    Args:
        probability: (n, k) out-of-fold, rows sum to 1.
        given_class: (n,) class of each row's label.
        votes: (n, 4) of the feature `class_votes`; NaN where there is one classifier alone.
        voted_class: (n,) class of each row's label, as numbered in the votes.
    """
    if len(given_class) < FEWEST_ROWS or not np.isfinite(votes).all():
        return None
    share = np.bincount(given_class).max() / len(given_class)
    accuracy = float((probability.argmax(axis=1) == given_class).mean())
    skill = (accuracy - share) / max(1 - share, 1e-9)
    first, second = votes[:, 0], votes[:, 1]
    is_first, is_second = first != voted_class, second != voted_class
    n_both = int((is_first & is_second & (first == second)).sum())
    agreement = n_both / max(1, min(int(is_first.sum()), int(is_second.sum())))
    correlation = _correlate_ranks(votes[:, 2], votes[:, 3])
    if skill >= LEAST_SKILL or correlation >= LEAST_CORRELATION or agreement >= LEAST_AGREEMENT:
        return None
    return (
        f"cannot tell which labels are wrong: of held-out labels {accuracy:.0%} are predicted right, where the most "
        f"frequent label is {share:.0%}, and of the labels that a classifier on embeddings or one on words contradicts "
        f"the other contradicts only {agreement:.0%} in the same way"
    )


def _correlate_ranks(first: Array, second: Array) -> float:
    from scipy.stats import rankdata

    ranks = np.stack([rankdata(first), rankdata(second)])
    spread = ranks.std(axis=1)
    return float(np.corrcoef(ranks)[0, 1]) if (spread > 0).all() else 0.0
