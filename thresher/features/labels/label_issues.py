"""Wrong labels, named by confident learning: which rows, what they should be, and why."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.dataset.values.labels import find_similar_labels
from thresher.errors import InputError

NONE = -1  # a row that is sure of no class


def find_label_issues(
    probabilities: NDArray[np.floating], given_class: NDArray[np.int64], names: Sequence[str]
) -> pl.DataFrame:
    """Return the rows whose label is probably wrong, the surest first.

    A row is named when it is counted off the diagonal of the confident joint: some other class is
    at least as likely for it as for the average row that was given that class, and no class that
    clears its own average is likelier; and when that class is likelier than the given one. A row
    whose own class the classifiers do not know (probability 0) says nothing and is never named.

    Source: Northcutt et al. 2021, arXiv:1911.00068 (its method "C confusion"). Cost: O(n k) time.
    Differs: the paper names rows whose given label is the likeliest all the same, where unsure
    classifiers give it a little less than its average; as in cleanlab, these stay. Fails: where
    labels are wrong by a rule that classifiers can learn, the rule is reproduced and hides them;
    where most rows of a class are wrong, its average means nothing.

    Args:
        probabilities: (n, k) out-of-fold, rows sum to 1, as `class_probability` gives them.
        given_class: (n,) class of each row's label.
        names: (k,) of the classes.

    Returns:
        One line per issue, by the probability of the given label, then by row: `row` Int64
        (position), `given`, `suggested`, `given_probability`, `suggested_probability`, `reason`.

    Raises:
        InputError: the arrays do not fit one another.
    """
    p = _checked(probabilities, given_class, len(names))
    sure = confident_classes(p, given_class)
    own = p[np.arange(len(given_class)), given_class]
    row = np.flatnonzero(is_label_contradicted(p, given_class))
    row = row[np.lexsort((row, own[row]))]
    threshold = class_thresholds(p, given_class)
    reasons = [
        f"'{names[given_class[i]]}' has probability {own[i]:.3f} by classifiers that have not seen the row; "
        f"'{names[sure[i]]}' has {p[i, sure[i]]:.3f}, no less than rows of that label have on average "
        f"({threshold[sure[i]]:.3f})"
        for i in row
    ]
    label = np.array(names, dtype=object)
    return pl.DataFrame(
        {
            "row": row,
            "given": label[given_class[row]],
            "suggested": label[sure[row]],
            "given_probability": own[row],
            "suggested_probability": p[row, sure[row]],
            "reason": reasons,
        },
        schema={
            "row": pl.Int64,
            "given": pl.String,
            "suggested": pl.String,
            "given_probability": pl.Float64,
            "suggested_probability": pl.Float64,
            "reason": pl.String,
        },
    )


def is_label_contradicted(probabilities: NDArray[np.floating], given_class: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return (n,): whether another class is sure and likelier than the given one.

    These are the rows that `find_label_issues` names. A row whose own class has probability 0 is
    not known outside its own rows, and says nothing.

    Args:
        probabilities: (n, k) out-of-fold, rows sum to 1.
        given_class: (n,) class of each row's label.

    Raises:
        InputError: the arrays do not fit one another.
    """
    p = _checked(probabilities, given_class, probabilities.shape[1])
    sure = confident_classes(p, given_class)
    own = p[np.arange(len(given_class)), given_class]
    # where no class is sure, that of the last one, which is not used
    likelier = p[np.arange(len(given_class)), sure] > own
    is_contradicted: NDArray[np.bool_] = (sure != NONE) & (sure != given_class) & likelier & (own > 0)
    return is_contradicted


def join_similar_classes(
    probabilities: NDArray[np.floating], given_class: NDArray[np.int64], names: Sequence[str]
) -> tuple[NDArray[np.floating], NDArray[np.int64], list[str]]:
    """Return probabilities, classes and names with classes joined that differ in case or the like.

    No row is wrong for being labeled 'Pos' where others of its class are 'pos'. A joined class has
    the name that most of its rows have.

    Args:
        probabilities: (n, k) of each class.
        given_class: (n,) of each row.
        names: (k,) of the classes.
    """
    counts = dict(zip(names, np.bincount(given_class, minlength=len(names)).tolist(), strict=True))
    joined = {name: name for name in names}
    for first, *others in find_similar_labels(counts):
        joined |= dict.fromkeys(others, first)
    if all(name == other for name, other in joined.items()):
        return probabilities, given_class, list(names)
    left = [name for name in names if joined[name] == name]
    to_class = np.array([left.index(joined[name]) for name in names])
    total = np.zeros((len(probabilities), len(left)), probabilities.dtype)
    np.add.at(total.T, to_class, probabilities.T)
    return total, to_class[given_class], left


def confident_joint(probabilities: NDArray[np.floating], given_class: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (k, k): estimated number of rows given class i whose true class is j.

    Rows that are sure of a class are counted, and each line is scaled to the number of rows given
    its class; a line without a sure row has them all on the diagonal (arXiv:1911.00068, section
    3.1).

    Raises:
        InputError: the arrays do not fit one another.
    """
    p = _checked(probabilities, given_class, probabilities.shape[1])
    k = p.shape[1]
    sure = confident_classes(p, given_class)
    is_sure = sure != NONE
    counts = np.bincount(given_class[is_sure] * k + sure[is_sure], minlength=k * k).reshape(k, k).astype(np.float64)
    n_given = np.bincount(given_class, minlength=k)
    total = counts.sum(axis=1)
    empty = total == 0
    counts[empty, empty], total[empty] = 1.0, 1.0
    scaled: NDArray[np.float64] = counts * (n_given / total)[:, None]
    return scaled


def confident_classes(p: NDArray[np.float64], given_class: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n,) the likeliest class of each row at or above its average, NONE where none is.

    The average of a class is the mean probability of it over the rows that were given it.
    """
    threshold = class_thresholds(p, given_class)
    threshold[threshold == 0] = np.inf  # a class that is not known outside its own rows
    cleared = np.where(p >= threshold, p, -1.0)
    best = cleared.argmax(axis=1)
    return np.where(cleared[np.arange(len(p)), best] >= 0, best, NONE)


def class_thresholds(probability: NDArray[np.float64], given_class: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return (k,): mean probability of a class over the rows that were given it, or 0."""
    k = probability.shape[1]
    own = probability[np.arange(len(given_class)), given_class]
    total = np.bincount(given_class, weights=own, minlength=k)
    mean: NDArray[np.float64] = total / np.maximum(np.bincount(given_class, minlength=k), 1)
    return mean


def _checked(probabilities: NDArray[np.floating], given_class: NDArray[np.int64], n_names: int) -> NDArray[np.float64]:
    is_fitting = probabilities.ndim == 2 and probabilities.shape == (len(given_class), n_names)
    if not is_fitting or not np.isfinite(probabilities).all():
        raise InputError(
            f"label issues: probabilities must be finite, one line per row and one column per class "
            f"({len(given_class)}, {n_names}), got shape {probabilities.shape}"
        )
    if len(given_class) and not 0 <= given_class.min() <= given_class.max() < n_names:
        raise InputError(
            f"label issues: given must be in 0..{n_names - 1}, got {given_class.min()}..{given_class.max()}"
        )
    return probabilities.astype(np.float64)
