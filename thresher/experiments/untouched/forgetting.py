"""Forgetting in experiments: what each method loses on general rows, at every number of rows.

Each cell keeps the loss of every general row; the untouched model is measured once for all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from thresher.evaluation.forgetting import describe_loss, estimate_forgetting, measure_bits, name_loss
from thresher.evaluation.gain import Gain
from thresher.experiments.experiment import Experiment
from thresher.experiments.runner import ExperimentRunner
from thresher.numeric.units import format_amount
from thresher.trainer.untouched.forgetting import measure_general_base
from thresher.trainer.untouched.general import prepare_general

# method, rows -> nats of each general row, by seed
Losses = Mapping[tuple[str, int], Sequence[Sequence[float]]]


def describe_forgetting(runner: ExperimentRunner) -> dict[str, Any] | None:
    """Return the section `general` of an experiment; None where nothing is measured.

    Returns:
        `before`: bits per byte of the untouched model, `allowed`, and per method its `points`
        (`n_rows`, `lost` with its 95 % interval, `verdict`) with `passes_at`: the first size at
        which it clearly forgets more than is allowed, or None (larger sizes may forget less), and a
        `sentence`.
    """
    losses: dict[tuple[str, int], list[Sequence[float]]] = {}
    for (method, size, _), outcome in sorted(runner.outcomes.items(), key=lambda entry: entry[0]):
        if outcome.outcomes is not None and "general_loss" in outcome.facts:
            losses.setdefault((method, size), []).append(outcome.facts["general_loss"])
    before = measure_untouched_losses(runner.experiment)
    if before is None or not losses:
        return None
    unit = "rows" if runner.axis is None else runner.axis.unit
    return describe_losses(before, losses, runner.experiment.untouched.forget, unit)


def measure_untouched_losses(experiment: Experiment) -> pl.DataFrame | None:
    """Return what the untouched model loses on each general row; None where none are given."""
    if not experiment.untouched.general_files:
        return None
    context = experiment.build_context(experiment.pool.take(np.arange(1)), seed=0)
    general = prepare_general(context, has_answers=False)
    return None if general is None else measure_general_base(context, general).losses


def describe_losses(before: pl.DataFrame, losses: Losses, allowed: float, unit: str = "rows") -> dict[str, Any]:
    """Return the section `general` from what was measured, as `describe_forgetting` does."""
    gains: dict[str, dict[int, Gain]] = {}
    for (method, size), by_seed in sorted(losses.items()):
        lost = estimate_lost(before, by_seed)
        if lost is not None:
            gains.setdefault(method, {})[size] = lost
    return {
        "rows": len(before),
        "unit": "bits per byte",
        "before": measure_bits(before).to_json(),
        "allowed": allowed,
        "methods": {method: _describe_method(by_size, allowed, unit) for method, by_size in gains.items()},
    }


def estimate_lost(before: pl.DataFrame, by_seed: Sequence[Sequence[float]]) -> Gain | None:
    """Return the rise in bits per byte over the seeds of a cell."""
    after = [before.with_columns(pl.Series("loss", list(losses), dtype=pl.Float64)) for losses in by_seed]
    return estimate_forgetting(after, before)


def describe_finalists(
    finals: Mapping[int, float], lost: Mapping[int, Gain], best: int, allowed: float
) -> dict[str, Any]:
    """Return the section `general` of a search for settings.

    Args:
        finals: value at the end by trial, higher being better.
        lost: on general rows, by trial.
        best: the winner.
        allowed: in bits per byte.

    Returns:
        `allowed`, `unit`, `trials` (what each forgets), `is_within` (the winner keeps to it), its
        `sentence`, and `excluded`: trials with a better value that forget more than is allowed.
    """
    is_better = {number for number, value in finals.items() if value > finals[best]}
    return {
        "allowed": allowed,
        "unit": "bits per byte",
        "trials": {str(number): each.to_json() for number, each in lost.items()},
        "is_within": lost[best].value <= allowed,
        "excluded": sorted(number for number in is_better if lost[number].value > allowed),
        "sentence": f"the winner {describe_loss(lost[best], allowed)}",
    }


def _describe_method(by_size: Mapping[int, Gain], allowed: float, unit: str) -> dict[str, Any]:
    beyond = [size for size, lost in by_size.items() if name_loss(lost, allowed) == "lost"]
    largest = max(by_size)
    sentence = f"with {format_amount(largest, unit)} it {describe_loss(by_size[largest], allowed)}"
    if beyond and any(size > beyond[0] and size not in beyond for size in by_size):
        # few rows in many epochs may cost more than many rows: then no size is a limit
        worst = max(beyond, key=lambda size: by_size[size].value)
        sentence = f"with {format_amount(worst, unit)} it {describe_loss(by_size[worst], allowed)}; {sentence}"
    elif beyond:
        sentence = f"from {format_amount(beyond[0], unit)} on it {describe_loss(by_size[beyond[0]], allowed)}"
    return {
        "points": [
            {"n_rows": size, "lost": lost.to_json(), "verdict": name_loss(lost, allowed)}
            for size, lost in by_size.items()
        ],
        "passes_at": beyond[0] if beyond else None,
        "sentence": sentence,
    }


def format_forgetting(section: Mapping[str, Any] | None) -> list[str]:
    """Return the section `general` in lines for a summary."""
    return [] if not section else [f"{method}: {entry['sentence']}" for method, entry in section["methods"].items()]
