"""Do the finalists of a search, averaged into one adapter, beat its winner?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import rmtree
from typing import Any

import polars as pl

from thresher.artifacts.folder import atomic_file, copy_folder, write_atomic, write_parquet
from thresher.artifacts.seal import encode_record, find_damage, hash_file, hash_files, seal_record
from thresher.artifacts.stored import read_table
from thresher.errors import InputError
from thresher.experiments.comparison import describe_effect
from thresher.experiments.paired_runs import PairedRuns
from thresher.experiments.search import Search, TrialResult, run_settings
from thresher.trainer.settings import TrainSettings

AVERAGED = "averaged"  # folder of the adapter
RUNS = ".averaging"


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
        `difference`, `verdict`.

    Raises:
        IncompleteError: the machine ended runs of the winner.
        InputError: fewer than two finalists ran to the end, or the winner failed on the test rows.
    """
    chosen = sorted(finals, key=lambda number: (-finals[number], number))[: search.settings.average]
    if len(chosen) < 2:
        search.require_finished()
        raise InputError(f"tune: average needs two finalists that ran to the end, found {len(chosen)}; leave it out")
    metric, seeds = search.test.metric, search.seeds
    # a winner other than the default was run on the test rows before, and reported
    names = [] if best else [f"winner on the test rows, seed {seed}" for seed in seeds]
    winners = run_settings(search, search.test, [trials[best].settings] * len(seeds), seeds, names, stage="winner")
    averages = []
    for seed in seeds:
        averages.append(_measure_average(search, [trials[number].settings for number in chosen], seed, work))
        note = f"average of {len(chosen)} adapters, seed {seed}: {search.test.describe_score(averages[-1])}"
        search.report("averages", len(averages), len(seeds), note)
    pairs = PairedRuns.match(metric, averages, [outcome.outcomes for outcome in winners])
    if len(pairs) < 2:
        search.require_finished()
        raise InputError("tune: the winner could not be measured on the test rows with two seeds; leave average out")
    rmtree(work / AVERAGED, ignore_errors=True)
    copy_folder(work / RUNS / f"mean-{seeds[0]}", work / AVERAGED)
    effect, (average, winner) = pairs.estimate_effect(), pairs.compute_means()
    return {
        "trials": chosen,
        "average": average,
        "winner": winner,
        "difference": asdict(effect),
        "verdict": describe_effect(effect, effect.p, is_rate=metric.name != "loss"),
    }


def _measure_average(search: Search, settings: Sequence[TrainSettings], seed: int, work: Path) -> pl.DataFrame:
    """Return the outcomes of the mean of one adapter per settings, saved for a next call."""
    from thresher.trainer.engine.average_adapters import average_adapters
    from thresher.trainer.runs import ADAPTER, measure_adapter, run_all

    measured, done = work / RUNS / f"mean-{seed}.parquet", work / RUNS / f"mean-{seed}.json"
    if done.is_file() and find_damage(work / RUNS, done.name) is None:
        return read_table(measured)
    folders = []
    for number, each in enumerate(settings):
        context = search.test.build_context(search.test.pool, seed=seed, settings=each)
        (run,) = run_all(context, work / RUNS / f"{number}-{seed}")
        folders.append(run.folder / ADAPTER)
    mean = work / RUNS / f"mean-{seed}"
    rmtree(mean, ignore_errors=True)  # of a killed call
    average_adapters(folders, mean)
    outcomes = measure_adapter(context, mean)
    with atomic_file(measured) as part:
        write_parquet(outcomes, part)
    files = {f"{mean.name}/{name}": checksum for name, checksum in hash_files(mean).items()}
    write_atomic(done, encode_record(seal_record({}, {**files, measured.name: hash_file(measured)})))
    return outcomes
