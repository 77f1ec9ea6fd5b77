"""The metrics that experiments compare, and the units that their differences are told in."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import polars as pl

from thresher.errors import NotFoundError, did_you_mean
from thresher.evaluation.classification import (
    classification_report,
    linearize_balanced_accuracy,
    linearize_macro_f1,
)
from thresher.evaluation.estimate import Estimate, mean, proportion, ratio
from thresher.numeric.arrays import Float64


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One metric.

    Attributes:
        name: as users know it.
        is_higher_better: direction.
        column: of the table of outcomes that holds its value for each row; None where it is a
            function of all labels and predictions.
        weight: column of weights, where the column holds totals.
        scale: divisor of the column, so that every rate lies in 0..1 (chrF goes up to 100).
    """

    name: str
    is_higher_better: bool
    column: str | None
    weight: str | None = None
    scale: float = 1.0

    def per_row(self, outcomes: pl.DataFrame) -> Float64:
        """Return the value of each test row that has one: (n,); their mean is the metric.

        Where the metric is a function of all rows, these are its linearized values, see
        `evaluation.classification.linearize_macro_f1`.
        """
        if self.column is None:
            return LINEARIZED[self.name](outcomes["label"].to_list(), outcomes["prediction"].to_list())
        return outcomes[self.column].drop_nulls().cast(pl.Float64).to_numpy() / self.scale

    def per_row_or_nan(self, outcomes: pl.DataFrame) -> Float64:
        """Return the value of each test row, (n,), NaN where it has none; needs a column."""
        return outcomes[str(self.column)].cast(pl.Float64).fill_null(np.nan).to_numpy() / self.scale

    def weights(self, outcomes: pl.DataFrame) -> Float64 | None:
        """Return the weight of each test row: (n,), or None where all have the same."""
        return None if self.weight is None else outcomes[self.weight].cast(pl.Float64).to_numpy()

    def measure(self, outcomes: pl.DataFrame) -> Estimate:
        """Return the value over all test rows, with its standard error over rows."""
        if self.name == "macro_f1":
            return classification_report(outcomes["label"].to_list(), outcomes["prediction"].to_list()).macro_f1
        values = self.per_row(outcomes)
        if self.column is None:
            return mean(values)
        if outcomes[self.column].dtype == pl.Boolean:
            return proportion(values)
        weights = self.weights(outcomes)
        return mean(values) if weights is None else ratio(values, weights)


LINEARIZED: dict[str, Callable[[Sequence[str], Sequence[str]], Float64]] = {
    "macro_f1": linearize_macro_f1,
    "balanced_accuracy": linearize_balanced_accuracy,
}
METRICS: dict[str, dict[str, Metric]] = {  # the first of each task is its default
    "classification": {
        "accuracy": Metric(name="accuracy", is_higher_better=True, column="correct"),
        "macro_f1": Metric(name="macro_f1", is_higher_better=True, column=None),
        "balanced_accuracy": Metric(name="balanced_accuracy", is_higher_better=True, column=None),
        "loss": Metric(name="loss", is_higher_better=False, column="loss"),
    },
    "sft": {
        "loss": Metric(name="loss", is_higher_better=False, column="loss", weight="n_tokens"),
        "exact_match": Metric(name="exact_match", is_higher_better=True, column="exact_match"),
        "rouge_l": Metric(name="rouge_l", is_higher_better=True, column="rouge_l"),
        "chrf": Metric(name="chrf", is_higher_better=True, column="chrf", scale=100.0),
    },
}
METRICS["text"] = {"loss": METRICS["sft"]["loss"]}


LOSS_WORDS = frozenset(
    ("loss", "losses", "err", "error", "errors", "perplexity", "ppl", "nll", "mae", "mse", "rmse",
     "wer", "cer", "ece", "brier", "bits", "bpb", "bpc", "cost", "regret")
)  # fmt: skip


def names_loss(name: str) -> bool:
    """Tell whether lower is better by the name of a score, as of "eval_loss" or "eval/valLoss"."""
    words = re.sub(r"([a-z])([A-Z])", r"\1 \2", name).lower()
    return not LOSS_WORDS.isdisjoint(re.split(r"[^a-z]+", words))


def find_metric(name: str | None, task: str) -> Metric:
    """Return a metric of a task by name, by default the first of the task.

    Raises:
        NotFoundError: the task has no such metric.
    """
    known = METRICS[task]
    if name is None:
        return next(iter(known.values()))
    if name not in known:
        raise NotFoundError(f"metric: {task} has {', '.join(known)}, found no '{name}'{did_you_mean(name, known)}")
    return known[name]


@dataclass(frozen=True)
class Unit:
    """How the differences of a metric are written.

    Attributes:
        name: behind the number.
        factor: that a value is multiplied by.
        digits: behind the point.
    """

    name: str
    factor: float = 1.0
    digits: int = 3

    def format_number(self, value: float, *, is_signed: bool = False) -> str:
        """Return a value in this unit, without its name."""
        return f"{self.factor * value:{'+' if is_signed else ''}.{self.digits}f}"

    def format_range(self, value: float, low: float, high: float, *, is_signed: bool = False) -> str:
        """Return "1.2 points [0.4, 2.0]"."""
        value_text, low_text, high_text = (self.format_number(each, is_signed=is_signed) for each in (value, low, high))
        return f"{value_text} {self.name} [{low_text}, {high_text}]"

    def describe_detectable(self, value: float) -> str:
        """Return what difference would have been seen with a probability of 80 %, if any would."""
        if self.factor == 100 and value >= 1:  # beyond what two rates can differ by
            return "so few runs and test rows could not have shown any"
        return f"one of {self.format_number(value)} {self.name} would likely have shown"


POINTS = Unit("points", 100.0, 1)
NATS = Unit("nats")
RATES = frozenset({"accuracy", "macro_f1", "balanced_accuracy", "exact_match", "lenient_match", "rouge_l", "chrf"})


def find_unit(metric: str, *, is_higher_better: bool = False, values: Iterable[float] = ()) -> Unit:
    """Return the unit of a metric's differences.

    A metric of the user's own is a rate where higher is better and all values lie in 0..1; a score
    up to 5 has no points, and its differences stay as they are.

    Args:
        metric: its name, as files have it.
        is_higher_better: its direction.
        values: of it, as far as they are known.
    """
    known = list(values)
    if metric == "loss":
        return NATS
    if metric in RATES or (is_higher_better and known and all(0 <= value <= 1 for value in known)):
        return POINTS
    label, _, number = metric.rpartition("-")  # own metrics carry the hash of their source
    is_hash = len(number) == 8 and all(digit in "0123456789abcdef" for digit in number)
    return Unit(f"of {label if label and is_hash else metric}")
