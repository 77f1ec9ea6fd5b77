"""Trust in given labels: in which form it is measured, and how many labels seem wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.numeric.arrays import Array, Bool, Float64, Int64

Form = Literal["auto", "plain", "prior-divided"]
HALF, FULL = "half-prior", "full-prior"
SHARE_OF_PRIOR = {HALF: 0.5, FULL: 1.0}  # exponent of the class's share that is divided out
MAX_TRUST = 0.25  # another class is three times as likely
FULL_GAIN = 0.01  # area under the ROC curve that the full prior must win by
LEAST = 1e-6  # probability
MAX_OTHERS = 4_000  # rows of other classes that a class is compared with
FEWEST = 3  # rows of a class, to say anything of its share of wrong labels
FEWEST_LOW = 8  # rows that the share of wrong labels is read from
EDGE = 1e-3  # of a posterior


class LabelTrust(NamedTuple):
    """How far each given label can be trusted.

    Attributes:
        value: (n,) float64 in 0..1: below 0.5 another class is likelier; NaN for a row whose label
            no other text has.
        form: "half-prior" or "full-prior": how much of the classes' shares was divided out.
        other: (n,) the likeliest other class.
        wrong: (n,) estimated probability that the label is wrong.
    """

    value: Float64
    form: str
    other: Int64
    wrong: Float64


def measure_trust(probability: Array, given_class: Int64) -> LabelTrust:
    """Return the trust in each label, in the form that suits the labels' errors.

    With q_c = p_c / prior_c^a, the trust is q_y / (q_y + the largest other q). Plain probabilities
    (a = 0) make rows of rare classes look wrong, and hide wrong rows of frequent classes; divided
    by the prior (a = 1), wrong rows of rare classes hide. So a = 1/2, or a = 1 where that ranks the
    rows better that seem wrong by a measure without prior: within the column of one class, the rows
    that were given it against those that were not. The share of the former that is as low as the
    latter bounds the share of wrong labels (mixture proportions, Blanchard, Lee and Scott 2010,
    JMLR 11), and an isotonic fit of the ratio of densities gives each row's probability.

    Args:
        probability: (n, k) out-of-fold, rows sum to 1.
        given_class: (n,) class of each row's label.

    Raises:
        InputError: the arrays do not fit one another.
    """
    p = _check_shape(probability, given_class)
    prior = np.bincount(given_class, minlength=p.shape[1]) / max(1, len(p))
    wrong = estimate_wrong(p, given_class)
    scores = {form: compare_classes(p, given_class, prior**share) for form, share in SHARE_OF_PRIOR.items()}
    areas = {form: _expect_area(score, wrong) for form, (score, _) in scores.items()}
    form = FULL if areas[FULL] > areas[HALF] + FULL_GAIN else HALF
    margin, other = scores[form]
    is_unknown = p[np.arange(len(p)), given_class] == 0
    value = np.where(is_unknown, np.nan, 1 / (1 + np.exp(-margin)))
    return LabelTrust(value, form, other, np.where(is_unknown, 0.0, wrong))


def find_untrusted(
    probability: Array, given_class: Int64, names: Sequence[str], *, max_trust: float = MAX_TRUST
) -> pl.DataFrame:
    """Return the rows whose label has little trust, the least trusted first.

    Args:
        probability: (n, k) out-of-fold, rows sum to 1.
        given_class: (n,) class of each row's label.
        names: (k,) of the classes.
        max_trust: rows with this trust or more are not named.

    Returns:
        One line per row whose label has less trust and is not the likeliest by the plain
        probabilities either: `row` Int64 (position), `given`, `suggested`, `given_probability`,
        `suggested_probability`, `trust`, `wrong` (the estimated probability that it is), `reason`.

    Raises:
        InputError: the arrays do not fit one another.
    """
    trust = measure_trust(probability, given_class)
    p = probability.astype(np.float64)
    row = np.flatnonzero((trust.value < max_trust) & (p.argmax(axis=1) != given_class))
    row = row[np.lexsort((row, trust.value[row]))]
    given, other = given_class[row], trust.other[row]
    label = np.array(names, dtype=object)
    frame = pl.DataFrame(
        {
            "row": row,
            "given": pl.Series(label[given], dtype=pl.String),
            "suggested": pl.Series(label[other], dtype=pl.String),
            "given_probability": p[row, given],
            "suggested_probability": p[row, other],
            "trust": trust.value[row],
            "wrong": trust.wrong[row],
        },
        schema_overrides={"row": pl.Int64},
    )
    ratio = (1 / pl.col("trust") - 1).round(1)
    divided = "the root of its share" if trust.form == HALF else "its share"
    return frame.with_columns(
        reason=pl.format(
            "'{}' has probability {} by classifiers that have not seen the row, '{}' has {}: {} times as likely, each "
            f"divided by {divided} of the labels",
            "given",
            pl.col("given_probability").round(3),
            "suggested",
            pl.col("suggested_probability").round(3),
            ratio,
        )
    )


def compare_classes(p: Float64, given_class: Int64, divisor: Float64) -> tuple[Float64, Int64]:
    """Return each row's log ratio of the given class to the likeliest other one, and that class.

    Args:
        p: (n, k) probabilities.
        given_class: (n,).
        divisor: (k,) what the probability of each class is divided by.
    """
    rows = np.arange(len(p))
    logs = np.log(np.maximum(p, LEAST)) - np.log(np.maximum(divisor, LEAST))
    own = logs[rows, given_class].copy()
    logs[rows, given_class] = -np.inf
    other = logs.argmax(axis=1)
    margin: Float64 = own - logs[rows, other]
    return margin, other


def divide_by_prior(probability: Array, given_class: Int64) -> Float64:
    """Return (n, k) probabilities divided by the classes' shares of the labels, rows sum to 1."""
    p = _check_shape(probability, given_class)
    prior = np.bincount(given_class, minlength=p.shape[1]) / max(1, len(p))
    divided = p / np.maximum(prior, LEAST)
    scaled: Float64 = divided / divided.sum(axis=1, keepdims=True)
    return scaled


def estimate_wrong(p: Float64, given_class: Int64) -> Float64:
    """Return the estimated probability that each label is wrong, (n,), class by class.

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


def _expect_area(score: Float64, wrong: Float64) -> float:
    """Return the area under the ROC curve that is expected of a score, low where labels are wrong.

    Args:
        score: (n,).
        wrong: (n,) probability that each row is wrong.
    """
    order = np.argsort(score, kind="stable")
    is_wrong, is_right = wrong[order], 1 - wrong[order]
    right_above = is_right.sum() - np.cumsum(is_right)
    pairs = is_wrong.sum() * is_right.sum() - (is_wrong * is_right).sum()
    return float((is_wrong * right_above).sum() / pairs) if pairs > 0 else 0.5


def _check_shape(probability: Array, given_class: Int64) -> Float64:
    if probability.ndim != 2 or len(probability) != len(given_class) or not np.isfinite(probability).all():
        raise InputError(
            f"label trust: probabilities must be finite, one line per row ({len(given_class)}), got shape "
            f"{probability.shape}"
        )
    return probability.astype(np.float64)
