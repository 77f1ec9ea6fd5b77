"""The untouched model beside the trained one: section `base` of `metrics.json`, and in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import polars as pl

from thresher.evaluation.gain import NORMAL_95, Gain, estimate_gain, format_gain
from thresher.evaluation.generation import find_lenient_hits, score_leniently
from thresher.evaluation.held_out import classification_metrics, describe_control, language_metrics
from thresher.evaluation.lm_eval_task import LmEvalMetric
from thresher.evaluation.metric import METRICS, POINTS, Metric, find_unit
from thresher.numeric.units import format_count

MAJORITY, PROBE, ZERO_SHOT, START = "majority class", "probe", "untouched", "the adapter before"
# whether the answer holds what was expected, whatever its form: no metric to train or choose by
LENIENT = Metric(name="lenient_match", is_higher_better=True, column="lenient")


@dataclass(frozen=True)
class Reference:
    """What the trained model is held against.

    Attributes:
        name: for people.
        outcomes: on the held-out rows, for each seed of ours: the same table, or the seed's own.
        shots: training rows in the prompt of a language model, as asked for.
        mean_shots: after cutting to fit.
    """

    name: str
    outcomes: Sequence[pl.DataFrame]
    shots: int = 0
    mean_shots: float = 0.0


def name_shots(shots: int) -> str:
    """Return the name of the untouched model with so many rows in its prompt."""
    return f"{shots} in the prompt" if shots else ZERO_SHOT


def describe_base(ours: Sequence[pl.DataFrame], references: Sequence[Reference], task: str) -> dict[str, Any] | None:
    """Return the section `base` of `metrics.json`; None without references.

    Args:
        ours: outcomes of the trained model, by seed.
        references: measured on the same held-out rows.
        task: of the training.

    Returns:
        `references`: per reference its `scores` and the `gains` of training over it, by metric,
        positive where training is better, with 95 % intervals; `strongest`: the name of the one
        with the best score by `metric`; `verdict`: "better", "worse" or "no difference" than it;
        `sentence`; `contrary`: metrics by which training is clearly worse than the strongest.
    """
    if not references or not ours:
        return None
    if task == "sft":
        ours = [_add_lenient(table) for table in ours]
        references = [replace(each, outcomes=[_add_lenient(table) for table in each.outcomes]) for each in references]
    known: dict[str, Metric] = dict(METRICS[task])
    if task == "sft":
        known[LENIENT.name] = LENIENT
    metrics = {name: metric for name, metric in known.items() if _is_measured(metric, ours[0])}
    main = next(iter(metrics.values()))
    gains = {
        reference.name: {name: estimate_gain(metric, ours, reference.outcomes) for name, metric in metrics.items()}
        for reference in references
    }
    sign = 1 if main.is_higher_better else -1
    strongest = max(references, key=lambda each: sign * main.measure(each.outcomes[0]).value)
    gain, tail = gains[strongest.name][main.name], _describe_others(gains[strongest.name], main.name)
    contrary = [name for name in _list_directions(gains[strongest.name], -1) if name != main.name]
    return {
        "metric": main.name,
        "is_higher_better": main.is_higher_better,
        "references": [_describe_reference(each, gains[each.name], task) for each in references],
        **({} if task != "sft" else {"lenient_match": _score_leniently(ours[0])}),
        "strongest": strongest.name,
        "verdict": None if gain is None else name_verdict(gain),
        "sentence": None if gain is None else f"{describe_gain(gain, strongest.name, main)}{tail}",
        "contrary": contrary,
    }


def _list_directions(gains: Mapping[str, Gain | None], direction: int) -> list[str]:
    """Return the metrics by which training is clearly better (1) or worse (-1)."""
    return [name for name, gain in gains.items() if gain is not None and gain.direction == direction]


def _describe_others(gains: Mapping[str, Gain | None], main: str) -> str:
    """Return what the other metrics say that the main one does not; empty where they agree."""
    own = gains[main]
    better, worse = _list_directions(gains, 1), _list_directions(gains, -1)
    parts = []
    if own is not None and own.direction >= 0 and worse:
        parts.append(f", but by {', '.join(worse)} training is clearly worse")
    if own is not None and own.direction <= 0 and better:
        parts.append(f"; by {', '.join(better)} training is clearly better")
    if own is not None and own.direction > 0 and not worse and _is_about_form(gains):
        parts.append("; its answers are not clearly right more often, so it may have learned only their form")
    return "".join(parts)


def _is_about_form(gains: Mapping[str, Gain | None]) -> bool:
    """Tell whether answers were written, and are right no more often, by any way to compare."""
    hits = [gain for name in ("exact_match", LENIENT.name) if (gain := gains.get(name)) is not None]
    return bool(hits) and all(gain.direction <= 0 for gain in hits)


def name_verdict(gain: Gain) -> str:
    """Return whether training is better or worse than a reference, or neither."""
    return {1: "better", -1: "worse", 0: "no difference"}[gain.direction]


def describe_gain(gain: Gain, name: str, metric: Metric) -> str:
    """Return the verdict in one sentence: the answer first, then its size."""
    whose = _describe_reference_model(name)
    is_lm_eval = isinstance(metric, LmEvalMetric) and metric.is_higher_better
    unit = POINTS if is_lm_eval else find_unit(metric.name)
    if gain.direction:
        answer = "training pays: better" if gain.direction > 0 else "training hurts: worse"
        return f"{answer} than {whose} by {format_gain(gain, unit)} (n = {gain.n:,})"
    # what would have been found with a probability of 80 %: 1.96 + 0.84 standard errors
    detectable = (gain.high - gain.low) / 2 * (1 + 0.8416 / NORMAL_95)
    return f"no clear difference from {whose} (n = {gain.n:,}); {unit.describe_detectable(detectable)}"


def _describe_reference_model(name: str) -> str:
    """Return what a reference is, in a sentence, by its name: "4 in the prompt"."""
    if name == MAJORITY:
        return "always naming the most frequent label"
    if name == PROBE:
        return "a probe on the untouched encoder"
    if name == START:
        return "the adapter before it"
    shots = name.partition(" ")[0]
    is_shown = name == name_shots(int(shots)) if shots.isdigit() else False
    more = f" with {format_count(int(shots), 'training row')} in its prompt" if is_shown else ""
    return f"the untouched model{more}"


def _add_lenient(outcomes: pl.DataFrame) -> pl.DataFrame:
    hits = find_lenient_hits(outcomes["prediction"].to_list(), outcomes["response"].to_list())
    return outcomes.with_columns(pl.Series("lenient", hits, dtype=pl.Boolean))


def _is_measured(metric: Metric, outcomes: pl.DataFrame) -> bool:
    return metric.column is not None and outcomes[metric.column].null_count() < len(outcomes)


def _describe_reference(reference: Reference, gains: Mapping[str, Gain | None], task: str) -> dict[str, Any]:
    table = reference.outcomes[0]
    scores = classification_metrics(table) if task == "classification" else language_metrics(table)
    return {
        "name": reference.name,
        **({"shots": reference.shots, "mean_shots": reference.mean_shots} if task != "classification" else {}),
        "scores": {name: value for name, value in scores.items() if name != "classes"},
        **({} if task != "sft" else {"lenient_match": _score_leniently(table)}),
        "gains": {name: gain.to_json() for name, gain in gains.items() if gain is not None},
    }


def _score_leniently(outcomes: pl.DataFrame) -> dict[str, Any] | None:
    """Return the share of answers that hold the expected number or words, however they say it."""
    estimate = score_leniently(outcomes["prediction"].to_list(), outcomes["response"].to_list())
    return None if estimate is None else estimate.to_json()


def describe_verdict(metrics: Mapping[str, Any]) -> str | None:
    """Return what training brought over the untouched model, and these rows over the control.

    None where neither was measured.
    """
    text = "; ".join(list_verdicts(metrics))
    return f"{text[0].upper()}{text[1:]}" if text else None


def list_verdicts(metrics: Mapping[str, Any]) -> list[str]:
    """Return what training brought over the untouched model, then these rows over the control."""
    base, compared = metrics.get("base") or {}, metrics["comparison"]
    gain = describe_difference(compared, describe_control(metrics)) if compared is not None else None
    return [sentence for sentence in (base.get("sentence"), gain) if sentence]


def describe_difference(compared: Mapping[str, Any], control: str) -> str | None:
    """Return how much better these rows are than the control; None where the error is unknown.

    One run each shows nothing of the luck of training, so that the rows are then not called better,
    only what came of them.

    Args:
        compared: section `comparison` of `metrics.json`.
        control: what the control learned.
    """
    stored = compared.get("gain")
    if stored is None or None in stored.values():
        return None
    gain = Gain(**stored)
    unit = find_unit(compared["metric"])
    if gain.direction == 0:
        low, high = (unit.format_number(abs(end)) for end in (gain.low, gain.high))
        return f"no clear difference from {control} (from {low} {unit.name} worse to {high} better)"
    if gain.n_seeds == 1:
        order = "ahead of" if gain.direction > 0 else "behind"
        return (
            f"{order} {control} by {format_gain(gain, unit)} in one run each; thresher train --seeds 3 "
            f"would show how much training runs vary"
        )
    return f"{name_verdict(gain)} than {control} by {format_gain(gain, unit)}"


def format_untouched(metrics: Mapping[str, Any]) -> list[str]:
    """Return the scores without training in one or two lines, for the summary."""
    base = metrics.get("base")
    if not base or metrics["held_out"] is None:
        return []
    name = base["metric"]
    parts = [f"{each['name']} {_format_score(each['scores'][name])}" for each in base["references"]]
    lines = [f"{name} without training: {', '.join(parts)}"]
    lenient = base.get("lenient_match")
    if lenient:
        shown = [f"{each['name']} {_format_score(each['lenient_match'])}" for each in base["references"]]
        lines.append(
            f"expected number or words anywhere in the answer: {', '.join(shown)}, trained {_format_score(lenient)}"
        )
    return lines


def format_scores(metrics: Mapping[str, Any]) -> str:
    """Return the scores with and without training in one line."""
    base = metrics["base"]
    name = base["metric"]
    parts = [f"{each['name']} {_format_score(each['scores'][name])}" for each in base["references"]]
    rows = metrics["counts"]["train"]["rows"]
    parts.append(f"trained on {format_count(rows, 'row')} {_format_score(metrics['held_out'][name])}")
    control = metrics["control"]
    if control is not None and control["held_out"]:
        is_same, n_random = control.get("is_same"), control["train"]["rows"]
        what = "the same rows, plainly," if is_same else format_count(n_random, "random row")
        parts.append(f"on {what} {_format_score(control['held_out'][name])}")
    return f"{name}: {', '.join(parts)}"


def _format_score(estimate: Mapping[str, Any]) -> str:
    if estimate["value"] is None:
        return "not a number"
    return f"{estimate['value']:.3f}" + ("" if estimate["stderr"] is None else f" ± {estimate['stderr']:.3f}")
