"""Trust in given labels: in which form it is measured, and how many labels seem wrong."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.features.labels.label_noise import FEWEST, estimate_by_joint, estimate_wrong
from thresher.numeric.arrays import Array, Float64, Int64

Form = Literal["auto", "plain", "prior-divided"]
PLAIN, HALF, FULL = "no-prior", "half-prior", "full-prior"
SHARE_OF_PRIOR = {PLAIN: 0.0, HALF: 0.5, FULL: 1.0}  # exponent of the class's share divided out
DIVIDED_BY = {PLAIN: "", HALF: ", each divided by the root of its share of the labels"}
DIVIDED_BY[FULL] = ", each divided by its share of the labels"
MAX_TRUST = 0.25  # another class is three times as likely
# what the share of wrong rows was less its estimate, in nine of ten sets with planted errors
ESTIMATE_ERROR = (-0.44, 0.54)
MAX_JUDGED = 5_000  # rows by which the form is chosen
LEAST = 1e-6  # probability


class LabelTrust(NamedTuple):
    """How far each given label can be trusted.

    Attributes:
        value: (n,) float64 in 0..1, by which rows are ranked: odds / (1 + odds), the odds the
            geometric mean of those of the given class against the likeliest other, and against all
            others; NaN for a row whose label no other text has.
        form: "no-prior", "half-prior" or "full-prior": how much of the classes' shares was divided
            out.
        share: (n,) of the given class, of it and the likeliest other: below 0.5 that is likelier.
        other: (n,) the likeliest other class.
        wrong: (n,) estimated probability that the label is wrong.
    """

    value: Float64
    form: str
    share: Float64
    other: Int64
    wrong: Float64


def measure_trust(probability: Array, given_class: Int64) -> LabelTrust:
    """Return the trust in each label, in the form that suits the labels' errors.

    With q_c = p_c / prior_c^a, rows are ranked by the mean of log(q_y / the largest other q) and
    log(q_y / the sum of all other q). Plain probabilities (a = 0) make rows of rare classes look
    wrong, and hide wrong rows of frequent classes; divided by the prior (a = 1), wrong rows of rare
    classes hide. No truth says which error the labels have. So two estimates of what is wrong,
    which err in different ways (`label_noise`), each foretell the area under the ROC curve of a =
    0, 1/2 and 1, and the largest mean decides (`benchmarks/label_issues.py` tells how often it is
    right).

    Args:
        probability: (n, k) out-of-fold, rows sum to 1.
        given_class: (n,) class of each row's label.

    Raises:
        InputError: the arrays do not fit one another.
    """
    p = _check_shape(probability, given_class)
    form = _choose_form(p, given_class)
    margin, other = compare_classes(p, given_class, _find_divisor(given_class, p.shape[1], form))
    value = _rank_trust(p, given_class, form)
    is_unknown = p[np.arange(len(p)), given_class] == 0
    return LabelTrust(
        np.where(is_unknown, np.nan, value),
        form,
        np.where(is_unknown, np.nan, 1 / (1 + np.exp(-margin))),
        other,
        np.where(is_unknown, 0.0, estimate_wrong(p, given_class)),
    )


def _choose_form(p: Float64, given_class: Int64) -> str:
    """Return the form whose ranking two estimates of what is wrong foretell to be the best."""
    if len(p) < FEWEST or len(np.unique(given_class)) < 2:
        return HALF
    # rows of all classes and of all trust, whatever the order of the rows
    rows = np.lexsort((p[np.arange(len(p)), given_class], given_class))[:: -(-len(p) // MAX_JUDGED)]
    # classes without a row are left out, where they would be components of nothing
    left, codes = np.unique(given_class[rows], return_inverse=True)
    if len(left) < 2:
        return HALF
    kept = np.maximum(p[np.ix_(rows, left)], LEAST)
    kept /= kept.sum(axis=1, keepdims=True)
    estimates = [estimate(kept, codes) for estimate in (estimate_wrong, estimate_by_joint)]
    scores = {form: _rank_trust(kept, codes, form) for form in SHARE_OF_PRIOR}
    areas = {form: sum(_expect_area(score, wrong) for wrong in estimates) for form, score in scores.items()}
    return max(areas, key=lambda form: areas[form])


def _find_divisor(given_class: Int64, n_classes: int, form: str) -> Float64:
    """Return what the probability of each class is divided by, (k,)."""
    prior = np.bincount(given_class, minlength=n_classes) / max(1, len(given_class))
    divisor: Float64 = prior ** SHARE_OF_PRIOR[form]
    return divisor


def _rank_trust(p: Float64, given_class: Int64, form: str) -> Float64:
    """Return the trust by which rows are ranked, (n,) in 0..1."""
    divisor = _find_divisor(given_class, p.shape[1], form)
    margin, _ = compare_classes(p, given_class, divisor)
    q = np.maximum(p, LEAST) / np.maximum(divisor, LEAST)
    own = q[np.arange(len(p)), given_class]
    others = np.maximum(q.sum(axis=1) - own, LEAST)
    value: Float64 = 1 / (1 + np.exp(-(margin + np.log(own / others)) / 2))
    return value


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
    row = np.flatnonzero((trust.share < max_trust) & (p.argmax(axis=1) != given_class))
    row = row[np.lexsort((row, trust.share[row]))]
    given, other = given_class[row], trust.other[row]
    label = np.array(names, dtype=object)
    frame = pl.DataFrame(
        {
            "row": row,
            "given": pl.Series(label[given], dtype=pl.String),
            "suggested": pl.Series(label[other], dtype=pl.String),
            "given_probability": p[row, given],
            "suggested_probability": p[row, other],
            "trust": trust.share[row],
            "wrong": trust.wrong[row],
        },
        schema_overrides={"row": pl.Int64},
    )
    ratio = (1 / pl.col("trust") - 1).round(1)
    return frame.with_columns(
        reason=pl.format(
            "'{}' has probability {} by classifiers that have not seen the row, '{}' has {}: {} times as likely"
            + DIVIDED_BY[trust.form],
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


def _expect_area(score: Float64, wrong: Float64) -> float:
    """Return the area under the ROC curve that is expected of a score, low where labels are wrong.

    Args:
        score: (n,).
        wrong: (n,) probability that each row is wrong.
    """
    _, place = np.unique(score, return_inverse=True)
    right = np.bincount(place, weights=1 - wrong)  # of each distinct score
    above = right.sum() - np.cumsum(right)
    # a pair of equal scores counts half, and no row is a pair with itself
    won = wrong * (above[place] + (right[place] - (1 - wrong)) / 2)
    pairs = wrong.sum() * (1 - wrong).sum() - (wrong * (1 - wrong)).sum()
    return float(won.sum() / pairs) if pairs > 0 else 0.5


def _check_shape(probability: Array, given_class: Int64) -> Float64:
    if probability.ndim != 2 or len(probability) != len(given_class) or not np.isfinite(probability).all():
        raise InputError(
            f"label trust: probabilities must be finite, one line per row ({len(given_class)}), got shape "
            f"{probability.shape}"
        )
    return probability.astype(np.float64)
