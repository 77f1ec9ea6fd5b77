"""Held-out metrics as functions of the table of outcomes that `predictions.parquet` stores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from thresher.evaluation.classification import classification_report
from thresher.evaluation.estimate import Estimate, exp, mean, mean_over_seeds, paired_difference, proportion, ratio
from thresher.evaluation.gain import Gain, estimate_gain
from thresher.evaluation.lm_eval_task import list_columns
from thresher.evaluation.metric import METRICS
from thresher.numeric.arrays import Float64


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Two ways to choose rows, evaluated on the same held-out rows with the same seeds.

    Attributes:
        metric: "accuracy" or "loss" (nats per token).
        is_higher_better: direction of the metric.
        ours: over all seeds.
        theirs: over all seeds.
        difference: ours - theirs, paired over rows and seeds.
        gain: the same with its 95 % interval, positive where ours is better; None where no row has
            a value.
    """

    metric: str
    is_higher_better: bool
    ours: Estimate
    theirs: Estimate
    difference: Estimate
    gain: Gain | None


def classification_metrics(outcomes: pl.DataFrame) -> dict[str, Any]:
    """Return accuracy, macro-F1, mean loss and the classes, as JSON values.

    Args:
        outcomes: `label`, `prediction`, `loss` (null where the model does not know the label).
    """
    report = classification_report(outcomes["label"].to_list(), outcomes["prediction"].to_list())
    losses = outcomes["loss"].drop_nulls()
    metrics: dict[str, Any] = {"accuracy": report.accuracy.to_json(), "macro_f1": report.macro_f1.to_json()}
    if len(losses):
        metrics["loss"] = mean(losses.to_numpy()).to_json()
    metrics["classes"] = {
        entry.label: {
            "precision": entry.precision.to_json(),
            "recall": entry.recall.to_json(),
            "f1": entry.f1.to_json(),
        }
        for entry in report.classes
    }
    return metrics


def language_metrics(outcomes: pl.DataFrame) -> dict[str, Any]:
    """Return loss per token, perplexity, and scores of generated answers if any, as JSON values.

    Args:
        outcomes: `loss` (summed over the row), `n_tokens`, and for rows with an answer
            `exact_match`, `rouge_l`, `chrf` (null elsewhere); of an lm-eval task, the values of its
            documents (`lm_eval_task.put_values`).
    """
    loss = ratio(outcomes["loss"].to_numpy(), outcomes["n_tokens"].to_numpy())
    metrics = {"loss": loss, "perplexity": exp(loss)}
    answered = outcomes.filter(pl.col("exact_match").is_not_null())
    if len(answered):
        metrics["exact_match"] = proportion(answered["exact_match"].to_numpy())
        metrics |= {name: mean(answered[name].to_numpy()) for name in ("rouge_l", "chrf")}
    for name in list_columns(outcomes):
        metrics[name] = mean(outcomes[name].drop_nulls().explode().to_numpy())
    return {name: estimate.to_json() for name, estimate in metrics.items()}


def compare(ours: Sequence[pl.DataFrame], theirs: Sequence[pl.DataFrame]) -> Comparison:
    """Compare two sets of runs, one table of outcomes per seed and side, over the same rows."""
    is_classification = "correct" in ours[0].columns
    column = "correct" if is_classification else "loss"
    weights = None if is_classification else ours[0]["n_tokens"].to_numpy()
    a, b = _stacked(ours, column), _stacked(theirs, column)
    return Comparison(
        metric="accuracy" if is_classification else "loss",
        is_higher_better=is_classification,
        ours=mean_over_seeds(a, weights),
        theirs=mean_over_seeds(b, weights),
        difference=paired_difference(a, b, weights),
        gain=estimate_gain(
            next(iter(METRICS["classification" if is_classification else "sft"].values())), ours, theirs
        ),
    )


def _stacked(tables: Sequence[pl.DataFrame], column: str) -> Float64:
    """Return one column of each table: (seeds, n)."""
    return np.stack([table[column].cast(pl.Float64).to_numpy() for table in tables])


def name_control(metrics: Mapping[str, Any]) -> str:
    """Return what the control was trained on, in two words, for columns and legends."""
    return "plain training" if (metrics["control"] or {}).get("is_same") else "random rows"


def describe_control(metrics: Mapping[str, Any]) -> str:
    """Return what the control was trained on, in a sentence about training on it."""
    is_same = (metrics["control"] or {}).get("is_same")
    return "the same rows, each learned alike" if is_same else "the same number of random rows"
