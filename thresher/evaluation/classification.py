"""Metrics of a classifier, as functions of true and predicted labels."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from thresher.dataset.values.labels import fold_label
from thresher.errors import InputError, first_three
from thresher.evaluation.estimate import Estimate, proportion
from thresher.numeric.arrays import Bool, Float64, Int64

N_RESAMPLES = 500
SEED = 20_260_101  # of the bootstrap: one fixed number, so that equal predictions have equal errors
_SHOWN_LABELS = 8  # in a sentence
COMMON = 0.9  # share of the rows with one label, from which accuracy hardly shows the others
CHUNK = 64  # resamples at a time, to bound memory


@dataclass(frozen=True, kw_only=True)
class ClassReport:
    """Scores of one class.

    Attributes:
        label: the class.
        precision: share of the rows predicted as this class that belong to it; NaN and n = 0 when
            there are none.
        recall: share of the rows of this class that are predicted as such.
        f1: harmonic mean of the two, with a bootstrap standard error over rows.
    """

    label: str
    precision: Estimate
    recall: Estimate
    f1: Estimate


@dataclass(frozen=True, kw_only=True)
class ClassificationReport:
    """Accuracy, macro-F1 and the classes, in order of label."""

    accuracy: Estimate
    macro_f1: Estimate
    classes: tuple[ClassReport, ...]


def classification_report(truth: Sequence[str], predicted: Sequence[str]) -> ClassificationReport:
    """Compare predictions with the truth.

    Macro-F1 is the unweighted mean of F1 = 2 tp / (n_true + n_predicted) over the labels that occur
    in either, as in scikit-learn with zero_division=0. Its standard error, and that of each F1, is
    the standard deviation over 500 resamples of the rows (Efron 1979, doi:10.1214/aos/1176344552);
    a class that a resample misses counts as 0 there, so the error of rare classes comes out too
    large rather than too small. Accuracy, precision and recall have the binomial one. O(500 n).

    Args:
        truth: (n,) labels.
        predicted: (n,) labels.

    Raises:
        InputError: the lengths differ, or there is no row.
    """
    if len(truth) != len(predicted) or not len(truth):
        raise InputError(
            f"classification report: needs as many labels as predictions, got {len(truth)} and {len(predicted)}"
        )
    labels, true, guess = _encode(truth, predicted)
    is_hit = true == guess
    f1 = _f1(true, guess, np.ones((1, len(true))), len(labels))[0]  # (k,)
    resampled = _resampled_f1(true, guess, len(labels))  # (500, k)
    if len(true) == 1:
        resampled[:] = math.nan  # one row says nothing about the spread
    classes = tuple(
        ClassReport(
            label=str(label),
            precision=_share(is_hit[guess == code]),
            recall=_share(is_hit[true == code]),
            f1=Estimate(float(f1[code]), float(resampled[:, code].std(ddof=1)), int((true == code).sum())),
        )
        for code, label in enumerate(labels)
    )
    macro = Estimate(float(f1.mean()), float(resampled.mean(axis=1).std(ddof=1)), len(true))
    return ClassificationReport(accuracy=proportion(is_hit), macro_f1=macro, classes=classes)


def _share(hits: Bool) -> Estimate:
    return proportion(hits) if len(hits) else Estimate(math.nan, math.nan, 0)


def _f1(true: Int64, guess: Int64, weights: Float64, n_labels: int) -> Float64:
    """Return the F1 of k classes under each weighting: (resamples, n) weights -> (resamples, k)."""

    def total(codes: Int64, w: Float64) -> Float64:
        one_hot = np.zeros((len(codes), n_labels))
        one_hot[np.arange(len(codes)), codes] = 1.0
        product: Float64 = w @ one_hot
        return product

    hits = total(true, weights * (true == guess))
    size = total(true, weights) + total(guess, weights)
    return np.divide(2 * hits, size, out=np.zeros_like(hits), where=size > 0)


def _resampled_f1(true: Int64, guess: Int64, n_labels: int) -> Float64:
    rng = np.random.default_rng(SEED)
    n = len(true)
    parts = []
    for start in range(0, N_RESAMPLES, CHUNK):
        rows = min(CHUNK, N_RESAMPLES - start)
        weights = rng.multinomial(n, np.full(n, 1 / n), size=rows).astype(np.float64)
        parts.append(_f1(true, guess, weights, n_labels))
    return np.concatenate(parts)


def linearize_macro_f1(truth: Sequence[str], predicted: Sequence[str]) -> Float64:
    """Return (n,) values whose mean is the macro-F1, and that vary as it does to first order.

    They are the macro-F1 plus each row's influence on it (the infinitesimal jackknife; Jaeckel
    1972), which sum to 0. F1 of class c is 2 tp / (n_true + n_predicted), so a row moves it by (2
    [both are c] - f1 ([truth is c] + [prediction is c])) / (n_true + n_predicted).

    Args:
        truth: (n,) labels.
        predicted: (n,) labels.
    """
    labels, true, guess = _encode(truth, predicted)
    n_true, n_guessed = (np.bincount(codes, minlength=len(labels)) for codes in (true, guess))
    size = n_true + n_guessed  # every label occurs in one of them
    f1 = 2 * np.bincount(true[true == guess], minlength=len(labels)) / size
    moved = 2 * (true == guess) / size[true] - f1[true] / size[true] - f1[guess] / size[guess]
    values: Float64 = f1.mean() + len(true) * moved / len(labels)
    return values


def linearize_balanced_accuracy(truth: Sequence[str], predicted: Sequence[str]) -> Float64:
    """Return (n,) values whose mean is the balanced accuracy, linearized as for macro-F1.

    It is the mean over the classes that rows have of the share of their rows that is predicted
    right (Brodersen et al. 2010, doi:10.1109/ICPR.2010.764).

    Args:
        truth: (n,) labels.
        predicted: (n,) labels.
    """
    labels, true, guess = _encode(truth, predicted)
    n_true = np.bincount(true, minlength=len(labels))
    recall = np.bincount(true[true == guess], minlength=len(labels)) / np.maximum(n_true, 1)
    n_classes = int((n_true > 0).sum())
    values: Float64 = recall.sum() / n_classes + len(true) * ((true == guess) - recall[true]) / n_true[true] / n_classes
    return values


def describe_common_label(labels: Sequence[str], metric: str) -> str:
    """Return that accuracy hardly shows the other labels where nine in ten rows have one; else "".

    Args:
        labels: (n,) of the held-out rows.
        metric: that is asked for.
    """
    names, counts = np.unique(np.asarray(labels, dtype=object).astype(str), return_counts=True)
    if metric != "accuracy" or len(names) < 2 or counts.max() < COMMON * len(labels):
        return ""
    n_others = int(counts.sum() - counts.max())
    return (
        f"{counts.max() / counts.sum():.1%} of the {len(labels):,} test rows have the label "
        f"'{names[counts.argmax()]}', so accuracy says little about the {n_others:,} others; "
        f"--metric macro_f1 counts every label alike."
    )


def _encode(truth: Sequence[str], predicted: Sequence[str]) -> tuple[list[str], Int64, Int64]:
    """Return the labels that occur, and the code of each row's true and predicted one."""
    labels, codes = np.unique(np.array([*truth, *predicted], dtype=object).astype(str), return_inverse=True)
    return labels.tolist(), codes[: len(truth)], codes[len(truth) :]


def count_unknown_labels(labels: pl.Series, known: Sequence[str]) -> dict[str, int]:
    """Return how many rows have each label that training does not know, the most frequent first.

    Args:
        labels: (n,) of held-out rows.
        known: all classes of the model; empty for models without classes.
    """
    if not known:
        return {}
    counts = labels.filter(~labels.is_in(list(known))).value_counts(name="n").rows()
    return dict(sorted(counts, key=lambda pair: (-pair[1], pair[0])))


def describe_unknown_labels(unknown: Mapping[str, int], n_rows: int, known: Sequence[str]) -> str:
    """Return a sentence about rows of unknown labels, and what becomes of them; "" for none.

    Args:
        unknown: label -> rows.
        n_rows: held-out rows in all.
        known: the classes of the model.
    """
    if not unknown:
        return ""
    shown = ", ".join(f"'{label}' ({n:,})" for label, n in list(unknown.items())[:_SHOWN_LABELS])
    more = f" and {len(unknown) - _SHOWN_LABELS} more" if len(unknown) > _SHOWN_LABELS else ""
    by_form = {fold_label(label): label for label in known}
    similar = [f"'{label}' looks like '{by_form[form]}'" for label in unknown if (form := fold_label(label)) in by_form]
    return (
        f"{sum(unknown.values()):,} of {n_rows:,} held-out rows have labels that no training row has, and count as "
        f"wrong (their loss is left out): {shown}{more}" + (f"; {first_three(similar)}" if similar else "")
    )
