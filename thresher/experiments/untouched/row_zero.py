"""The untouched model beside an experiment: is training better, and from how many rows on?

The untouched language model is measured once for all cells; with examples in its prompts, once for
each method and size, from the rows that were trained on there, so that training and prompts have
the same rows. A classifier is held against the majority class and the probe that learned from the
same rows (`trainer/untouched/probe.py`), whichever is better at that size.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.dataset import Dataset
from thresher.evaluation.estimate import Estimate
from thresher.evaluation.gain import Gain, estimate_gain
from thresher.evaluation.metric import Metric
from thresher.experiments.experiment import Experiment
from thresher.experiments.rankings import MethodName
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.settings import BASELINE
from thresher.numeric.units import format_amount, format_count
from thresher.progress import OnProgress, Progress
from thresher.selectors import available
from thresher.trainer.settings import TrainSettings
from thresher.trainer.untouched.probe import extract_probe, predict_majority
from thresher.trainer.untouched.row_zero import measure_base
from thresher.trainer.untouched.summary import MAJORITY, PROBE, ZERO_SHOT, describe_gain, name_shots

Group = tuple[str, int]  # method, rows
Runs = Mapping[Group, Sequence[pl.DataFrame]]  # outcomes by seed


@dataclass(frozen=True)
class References:
    """What all cells of an experiment are held against.

    Attributes:
        fixed: outcomes by name: the same for every cell.
        has_probe: whether each cell is also held against its own probe.
        own: outcomes by name, of each method and size: where rows of its own stand in prompts, or
            its base model is another one.
        whose: base model of each method and size, for people; empty where there is one for all.
    """

    fixed: Mapping[str, pl.DataFrame]
    has_probe: bool
    own: Mapping[Group, Mapping[str, pl.DataFrame]] = field(default_factory=dict)
    whose: Mapping[Group, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Trained:
    """What the cells of a method and size were trained on.

    Attributes:
        rows: of the first seed.
        model: base, where it is not the experiment's.
        name: of the rows, for people.
    """

    rows: Dataset
    model: str | Path | None = None
    name: str = ""


def measure_references(
    experiment: Experiment,
    tables: Sequence[pl.DataFrame],
    on_progress: OnProgress | None = None,
    *,
    trained: Mapping[Group, Trained] | None = None,
) -> References | None:
    """Measure what the cells are held against; None where it is left out.

    Args:
        experiment: of the cells.
        tables: outcomes of the finished cells.
        on_progress: listener.
        trained: what they were trained on; None where that is the whole pool for all.
    """
    if not experiment.untouched.prompts or not tables:
        return None
    trained = trained or {}
    whose = {group: str(each.model) for group, each in trained.items() if each.model is not None}
    if experiment.labels:
        majority = predict_majority(tables[0], experiment.pool.frame["response"].to_list())
        has_probe = all(extract_probe(table) is not None for table in tables)
        return References({MAJORITY: majority}, has_probe, whose=whose)
    settings = experiment.settings
    if experiment.metric.name == "loss":  # answers say nothing of it
        settings = replace(settings, eval_generations=0)
    if not whose and (not trained or not any(experiment.untouched.prompts)):
        # without rows in the prompt, any row of the pool stands for it
        rows = experiment.pool if any(experiment.untouched.prompts) else experiment.pool.take(np.arange(1))
        fixed = _measure_shots(experiment, Trained(rows), settings)
        _report(experiment, fixed, on_progress)
        return References(fixed, has_probe=False)
    own: dict[Group, dict[str, pl.DataFrame]] = {}
    for group, each in sorted(trained.items(), key=lambda entry: entry[0]):
        own[group] = _measure_shots(experiment, each, settings)
    told = {
        f"{name}{_of_model(whose, group)}" if name == ZERO_SHOT else f"{name}, from {trained[group].name}": table
        for group, by_name in own.items()
        for name, table in by_name.items()
    }
    _report(experiment, told, on_progress)
    return References({}, has_probe=False, own=own, whose=whose)


def _measure_shots(experiment: Experiment, trained: Trained, settings: TrainSettings) -> dict[str, pl.DataFrame]:
    """Return what the untouched model does, by the name of its prompt."""
    if trained.model is not None:
        experiment = replace(experiment, model=trained.model)
    measured = measure_base(experiment.build_context(trained.rows, seed=0, settings=settings))
    return {name_shots(each.shots): each.outcomes for each in measured}


def _report(experiment: Experiment, measured: Mapping[str, pl.DataFrame], on_progress: OnProgress | None) -> None:
    for number, (name, table) in enumerate(measured.items(), 1):
        if on_progress is not None:
            note = f"{name}: {experiment.describe_score(table)}"
            on_progress(Progress(stage="untouched model", done=number, total=len(measured), note=note))


def _of_model(whose: Mapping[Group, str], group: Group) -> str:
    return f" {whose[group]}" if group in whose else ""


def _name_rows(runner: ExperimentRunner, group: Group) -> str:
    """Return the rows of a method and size, for people."""
    label, size = group
    variant = runner.variants.get(label)
    method = label if variant is None else variant.method
    unit = "rows" if runner.axis is None else runner.axis.unit
    if method == BASELINE or runner.axis is not None:
        named = format_count(size, f"random {unit.removesuffix('s')}")
    elif method in runner.rankings.selectors or MethodName.parse(method).name in available():
        named = f"{format_amount(size, unit)} chosen by {method}"
    else:  # a side that was given
        named = f"{format_amount(size, unit)} of '{method}'"
    return named if variant is None else f"{named} ({variant.factor} {variant.value})"


def describe_row_zero(runner: ExperimentRunner) -> dict[str, Any] | None:
    """Return the section `base` of an experiment: scores of the references, and gains over them.

    Returns:
        `references`: name, value and standard error; of the probe, its mean over the cells of the
        largest size, one for each base model. `strongest`: the name of the best of these.
        `methods`: per method the `gains` at each size `over` the reference that is best there, with
        95 % intervals, and `pays_from`, None where training never pays, with its `sentence`. None
        where the untouched model is left out.
    """
    runs = {group: tables for group in runner.list_groups() if (tables := runner.list_tables(*group))}
    references = measure_references(
        runner.experiment,
        [table for tables in runs.values() for table in tables],
        runner.on_progress,
        trained={group: _find_trained(runner, group) for group in runs},
    )
    unit = "rows" if runner.axis is None else runner.axis.unit
    return None if references is None else describe_gains(runner.experiment, references, runs, unit)


def _find_trained(runner: ExperimentRunner, group: Group) -> Trained:
    """Return the rows and the model of the first finished cell of a method and size."""
    name = min(name for name, each in runner.outcomes.items() if name[:2] == group and each.outcomes is not None)
    variant = runner.variants.get(group[0])
    rows = runner.experiment.pool.take(np.sort(runner.cells[name].rows))
    return Trained(rows, None if variant is None else variant.model, _name_rows(runner, group))


def describe_gains(experiment: Experiment, references: References, runs: Runs, unit: str = "rows") -> dict[str, Any]:
    """Return the section `base` from what was measured; `describe_row_zero` says what is in it."""
    metric = experiment.metric
    entries: list[dict[str, Any]] = []
    for name, table in references.fixed.items():
        score = metric.measure(table)
        entries.append({"name": name, "value": score.value, "stderr": score.stderr})
    largest = max(size for _, size in runs)
    entries += _describe_own(metric, references, largest)
    if references.has_probe:
        probes: dict[str, list[Estimate]] = {}
        for group, tables in runs.items():
            if group[1] == largest:
                name = f"{PROBE}{' on' if group in references.whose else ''}{_of_model(references.whose, group)}"
                probes.setdefault(name, []).extend(metric.measure(_require_probe(table)) for table in tables)
        entries += _average(probes)
    gains: dict[str, dict[int, Gain]] = {}
    over: dict[str, dict[int, str]] = {}
    for (method, size), tables in sorted(runs.items()):
        name, theirs = _choose_strongest(metric, references, (method, size), tables)
        gain = estimate_gain(metric, tables, theirs)
        if gain is not None:
            gains.setdefault(method, {})[size] = gain
            over.setdefault(method, {})[size] = name
    return {
        "references": [{name: _number(value) for name, value in entry.items()} for entry in entries],
        "strongest": max(entries, key=lambda entry: _rank_value(metric, float(entry["value"])))["name"],
        "methods": {
            method: {
                "gains": [{"n_rows": size, "over": over[method][size], **g.to_json()} for size, g in by_size.items()],
                "pays_from": find_paying_size(by_size),
                "sentence": describe_paying_size(by_size, over[method], metric, unit),
            }
            for method, by_size in gains.items()
        },
    }


def _describe_own(metric: Metric, references: References, largest: int) -> list[dict[str, Any]]:
    """Return name, value and standard error of what only some cells are held against.

    Of several methods, the mean at the largest size.
    """
    scores: dict[str, list[Estimate]] = {}
    for group, by_name in references.own.items():
        if group[1] == largest:
            for name, table in by_name.items():
                scores.setdefault(f"{name}{_of_model(references.whose, group)}", []).append(metric.measure(table))
    return _average(scores)


def _average(scores: Mapping[str, Sequence[Estimate]]) -> list[dict[str, Any]]:
    """Return name, mean value and mean standard error of each reference."""
    return [
        {
            "name": name,
            "value": float(np.mean([score.value for score in own])),
            "stderr": float(np.mean([score.stderr for score in own])),
        }
        for name, own in scores.items()
    ]


def _choose_strongest(
    metric: Metric, references: References, group: Group, tables: Sequence[pl.DataFrame]
) -> tuple[str, list[pl.DataFrame]]:
    """Return the reference with the best mean over the runs of one size: name, outcomes per run.

    A probe learned from the rows of its run, so that at one size it may be the best reference, and
    at another the majority class.
    """
    by_name = {**references.fixed, **references.own.get(group, {})}
    known = {name: [table] * len(tables) for name, table in by_name.items()}
    if references.has_probe:
        known[PROBE] = [_require_probe(table) for table in tables]

    def rank(name: str) -> float:
        return _rank_value(metric, float(np.mean([metric.measure(table).value for table in known[name]])))

    name = max(known, key=rank)
    return name, known[name]


def _rank_value(metric: Metric, value: float) -> float:
    """Return a number that is higher for a better value; the lowest where there is no value."""
    return -np.inf if np.isnan(value) else value if metric.is_higher_better else -value


def find_paying_size(gains: Mapping[int, Gain]) -> dict[str, Any] | None:
    """Return from which measured size on training is better than the untouched model.

    It is the smallest size whose interval, and that of every larger one, is above zero. One run at
    a size shows no spread between seeds, so such sizes do not decide where others have more.

    Returns:
        `n_rows`, `not_at`: the largest smaller size where it is not so, or None, and the `gain` at
        `n_rows`; None where training pays at no such size.
    """
    has_repeats = any(gain.n_seeds >= 2 for gain in gains.values())
    known = {size: gain for size, gain in sorted(gains.items()) if gain.n_seeds >= 2 or not has_repeats}
    paying: list[int] = []
    for size in reversed(known):
        if known[size].direction <= 0:
            break
        paying.append(size)
    if not paying:
        return None
    first = paying[-1]
    smaller = [size for size in known if size < first]
    return {"n_rows": first, "not_at": smaller[-1] if smaller else None, "gain": known[first].to_json()}


def describe_paying_size(gains: Mapping[int, Gain], over: Mapping[int, str], metric: Metric, unit: str = "rows") -> str:
    """Return in one sentence whether training pays, and from how many rows on.

    Args:
        gains: by size.
        over: name of the reference of each.
        metric: that is compared.
        unit: what sizes count.
    """
    pays = find_paying_size(gains)
    if pays is not None:
        sentence = describe_gain(gains[pays["n_rows"]], over[pays["n_rows"]], metric)
        below = "" if pays["not_at"] is None else f"; not clearly so at {format_amount(pays['not_at'], unit)}"
        at = format_amount(pays["n_rows"], unit)
        answer = f"pays with {at}" if len(gains) == 1 else f"pays from {at} on"
        return f"{answer}: {sentence.removeprefix('training pays: ')}{below}"
    largest = max(gains)
    sentence = describe_gain(gains[largest], over[largest], metric)
    n_worse = sum(gain.direction < 0 for gain in gains.values())
    if gains[largest].direction > 0:  # in a single run, where other sizes have more
        better = sentence.removeprefix("training pays: ")
        return (
            f"may pay: with {format_amount(largest, unit)}, {better}, but in a single run; more seeds would settle it"
        )
    worse = f"; clearly worse at {n_worse} of {len(gains)} sizes" if n_worse and len(gains) > 1 else ""
    answer = "never pays here" if gains[largest].direction < 0 else "not shown to pay"
    return f"{answer}: with {format_amount(largest, unit)}, {sentence.removeprefix('training hurts: ')}{worse}"


def format_row_zero(base: Mapping[str, Any] | None, metric: str) -> list[str]:
    """Return the section `base` in lines for a summary: references, and the answer per method."""
    if not base:
        return []
    scores = [
        f"{entry['name']} "
        + ("not a number" if entry["value"] is None else f"{entry['value']:.4f} ± {entry['stderr']:.4f}")
        for entry in base["references"]
    ]
    lines = [f"without training, {metric}: {', '.join(scores)}"]
    return lines + [f"{method}: {entry['sentence']}" for method, entry in base["methods"].items()]


def _require_probe(table: pl.DataFrame) -> pl.DataFrame:
    probe = extract_probe(table)
    if probe is None:
        raise AssertionError("checked by `measure_references`")
    return probe


def _number(value: Any) -> Any:
    return None if isinstance(value, float) and not np.isfinite(value) else value
