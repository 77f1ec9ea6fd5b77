"""The student of a pilot: logistic regression on embeddings, judged on held-out rows."""

from __future__ import annotations

import warnings
from typing import Any, Literal, NamedTuple

import numpy as np

from thresher.numeric.arrays import Float32, Float64, Int64
from thresher.numeric.threads import limit_blas

PENALTY = 10.0  # C: unit embeddings are small numbers
MAX_ITERATIONS = 100

Metric = Literal["accuracy", "macro-f1"]


class Grade(NamedTuple):
    """What each held-out row says of a student; the mean over the rows is the metric.

    Attributes:
        accuracy: (h,) 1 where the prediction is right, else 0.
        macro_f1: (h,) the macro-F1 plus the row's influence on it, whose sum over the rows is 0.
    """

    accuracy: Float64
    macro_f1: Float64

    def values(self, metric: Metric) -> Float64:
        """Return (h,) what the rows say in one metric."""
        return self.accuracy if metric == "accuracy" else self.macro_f1


def fit_student(x: Float32, y: Int64) -> Any:
    """Return a logistic regression that learned some rows; None if all have one class.

    Args:
        x: (m, d) unit embeddings.
        y: (m,) their classes.
    """
    if len(np.unique(y)) < 2:
        return None
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=PENALTY, max_iter=MAX_ITERATIONS, tol=1e-3)
    with limit_blas(), warnings.catch_warnings():
        # a judge needs no third digit, and few rows of many classes are what is asked about
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", UserWarning)
        return model.fit(x, y)


def grade_student(x: Float32, y: Int64, test_x: Float32, test_y: Int64) -> Grade:
    """Train a student on some rows and judge it on others.

    Args:
        x: (m, d) unit embeddings to learn from.
        y: (m,) their classes.
        test_x: (h, d) of the held-out rows.
        test_y: (h,) their classes.
    """
    model = fit_student(x, y)
    predicted = np.full(len(test_y), y[0]) if model is None else model.predict(test_x)
    return rate_predictions(predicted, test_y)


def rate_predictions(predicted: Int64, truth: Int64) -> Grade:
    """Return what each row says of predictions, both (h,) classes."""
    return Grade((predicted == truth).astype(np.float64), _macro_f1(predicted, truth))


def _macro_f1(predicted: Int64, truth: Int64) -> Float64:
    """Return (h,) the mean F1 of the classes that the rows have, plus each row's influence.

    F1 of class c is 2 TP / (T + P), so a row moves it by (2 [both are c] - F1 ([truth is c] +
    [prediction is c])) / (T + P).
    """
    k = int(max(predicted.max(), truth.max())) + 1
    n_true = np.bincount(truth, minlength=k)
    n_predicted = np.bincount(predicted, minlength=k)
    n_right = np.bincount(truth[predicted == truth], minlength=k)
    is_present = n_true > 0
    total = np.maximum(n_true + n_predicted, 1)
    f1 = np.where(is_present, 2 * n_right / total, 0.0)
    # a predicted class that no row has is not counted
    per_row = np.where(is_present, 1 / total, 0.0)
    moved = 2 * per_row[truth] * (predicted == truth) - f1[truth] * per_row[truth] - f1[predicted] * per_row[predicted]
    n_classes = int(is_present.sum())
    values: Float64 = f1.sum() / n_classes + len(truth) * moved / n_classes
    return values
