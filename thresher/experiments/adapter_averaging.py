"""Do the finalists of a search, averaged into one adapter, beat its winner?"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import polars as pl

from thresher.artifacts.folder import atomic_file, copy_folder, write_atomic, write_parquet
from thresher.artifacts.seal import encode_record, find_damage, hash_file, hash_files, seal_record
from thresher.artifacts.stored import read_table
from thresher.errors import InputError
from thresher.evaluation.effect import describe_effect
from thresher.experiments.cells.cell import Outcome
from thresher.experiments.experiment import Experiment
from thresher.experiments.paired_runs import PairedRuns
from thresher.experiments.search import Search, TrialResult, run_settings
from thresher.trainer.settings import TrainSettings

AVERAGED = "averaged"  # folder of the adapter
RUNS = ".averaging"
DEV = ".averaging-dev"  # of adapters that did not see the dev rows


def average_finalists(
    search: Search, trials: Sequence[TrialResult], finals: Mapping[int, float], best: int, work: Path
) -> dict[str, Any]:
    """Train the best finalists on all rows, and compare the mean of their adapters with the winner.

    One mean for each seed, of adapters of that seed, so that mean and winner are paired over seeds
    and test rows.

    Args:
        search: with its test experiment.
        trials: all trials.
        finals: value at the end by trial, higher being better.
        best: number of the winner.
        work: folder that survives a kill; the adapter of the first seed is left in it, in
            `averaged`.

    Returns:
        For `tune.json`: `trials`, `average` and `winner` (mean values over the seeds),
        `difference`, `verdict`; under `greedy` the same of a greedy soup of the finalists, chosen
        on the dev rows, without values where that is the best finalist alone.

    Raises:
        IncompleteError: the machine ended runs of the winner.
        InputError: fewer than two finalists ran to the end, or the winner failed on the test rows.
    """
    chosen = sorted(finals, key=lambda number: (-finals[number], number))[: search.settings.average]
    if len(chosen) < 2:
        search.require_finished()
        raise InputError(f"tune: average needs two finalists that ran to the end, found {len(chosen)}; leave it out")
    seeds = search.seeds
    # a winner other than the default was run on the test rows before, and reported
    names = [] if best else [f"winner on the test rows, seed {seed}" for seed in seeds]
    winners = run_settings(search, search.test, [trials[best].settings] * len(seeds), seeds, names, stage="winner")
    settings = {number: trials[number].settings for number in chosen}
    uniform = _compare_average(search, settings, winners, work)
    rmtree(work / AVERAGED, ignore_errors=True)
    copy_folder(work / RUNS / f"{_name_mean(chosen)}-{seeds[0]}", work / AVERAGED)
    greedy = choose_greedily(chosen, lambda members: _measure_on_dev(search, settings, members, work))
    entry = {"trials": chosen, **uniform, "greedy": {"trials": greedy}}
    if len(greedy) == len(chosen):
        entry["greedy"] |= uniform
    elif len(greedy) > 1:
        entry["greedy"] |= _compare_average(search, {number: settings[number] for number in greedy}, winners, work)
    return entry


def choose_greedily(order: Sequence[int], measure: Callable[[Sequence[int]], float]) -> list[int]:
    """Return the members of a greedy soup (Wortsman et al. 2022, arXiv:2203.05482, algorithm 1).

    Each is added where the mean with it is no worse on the dev rows, so the soup is never worse
    there than the first alone.

    Args:
        order: of the adapters, the best first.
        measure: value of the mean of some of them on the dev rows, higher being better.
    """
    members = [order[0]]
    value = measure(members)
    for number in order[1:]:
        with_it = measure([*members, number])
        if with_it >= value:
            members, value = [*members, number], with_it
    return members


def _compare_average(
    search: Search, settings: Mapping[int, TrainSettings], winners: Sequence[Outcome], work: Path
) -> dict[str, Any]:
    """Measure the mean of adapters on the test rows for each seed, beside the winner."""
    metric, seeds, averages = search.test.metric, search.seeds, []
    for seed in seeds:
        averages.append(_measure_average(search.test, settings, seed, work, _name_mean(list(settings))))
        note = f"average of {len(settings)} adapters, seed {seed}: {search.test.describe_score(averages[-1])}"
        search.report("averages", len(averages), len(seeds), note)
    pairs = PairedRuns.match(metric, averages, [outcome.outcomes for outcome in winners])
    if len(pairs) < 2:
        search.require_finished()
        raise InputError("tune: the winner could not be measured on the test rows with two seeds; leave average out")
    effect, (average, winner) = pairs.estimate_effect(), pairs.compute_means()
    return {
        "average": average,
        "winner": winner,
        "difference": asdict(effect),
        "verdict": describe_effect(effect, effect.p, pairs.unit),
    }


def _measure_on_dev(search: Search, settings: Mapping[int, TrainSettings], members: Sequence[int], work: Path) -> float:
    """Return the value on the dev rows of the mean of adapters that did not see them."""
    sign, seed = 1.0 if search.dev.metric.is_higher_better else -1.0, search.seeds[0]
    chosen = {number: settings[number] for number in members}
    table = _measure_average(search.dev, chosen, seed, work / DEV, _name_mean(members))
    return sign * search.dev.metric.measure(table).value


def _name_mean(members: Sequence[int]) -> str:
    return "-".join(["mean", *map(str, members)])


def _measure_average(
    experiment: Experiment, settings: Mapping[int, TrainSettings], seed: int, work: Path, name: str
) -> pl.DataFrame:
    """Return the outcomes of the mean of one adapter per trial, saved for a next call."""
    from thresher.trainer.engine.average_adapters import average_adapters
    from thresher.trainer.runs import ADAPTER, measure_adapter, run_all

    mean = work / RUNS / f"{name}-{seed}"
    measured, done = mean.with_suffix(".parquet"), mean.with_suffix(".json")
    if done.is_file() and find_damage(work / RUNS, done.name) is None:
        return read_table(measured)
    folders = []
    for number, each in settings.items():
        context = experiment.build_context(experiment.pool, seed=seed, settings=each)
        (run,) = run_all(context, work / RUNS / f"{number}-{seed}")
        folders.append(run.folder / ADAPTER)
    rmtree(mean, ignore_errors=True)  # of a killed call
    average_adapters(folders, mean)
    outcomes = measure_adapter(context, mean)
    with atomic_file(measured) as part:
        write_parquet(outcomes, part)
    files = {f"{mean.name}/{name}": checksum for name, checksum in hash_files(mean).items()}
    write_atomic(done, encode_record(seal_record({}, {**files, measured.name: hash_file(measured)})))
    return outcomes


def describe_greedy(average: Mapping[str, Any], metric: str) -> str:
    """Return in words what a greedy soup of the finalists is, and how it does."""
    greedy = average.get("greedy")
    if greedy is None:
        return "not measured"
    trials = ", ".join(map(str, greedy["trials"]))
    if len(greedy["trials"]) == 1:
        return f"trial {trials} alone; no other finalist makes the mean better on the dev rows"
    if greedy["trials"] == average["trials"]:
        return "all of them"
    return f"trials {trials}: {metric} {greedy['average']:.4f}; against the winner: {greedy['verdict']}"
