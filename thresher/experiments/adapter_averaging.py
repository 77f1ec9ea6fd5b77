"""Do the finalists of a search, averaged into one adapter, beat its winner?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.folder import write_atomic
from thresher.errors import InputError
from thresher.evaluation.effect import estimate_effect
from thresher.experiments.comparison import sentence
from thresher.experiments.search import Search, Tried, run_settings
from thresher.trainer.settings import TrainSettings

AVERAGED = "averaged"  # folder of the adapter
RUNS = ".averaging"


def average_finalists(
    search: Search, tried: Sequence[Tried], finals: Mapping[int, float], best: int, n_averaged: int, work: Path
) -> dict[str, Any]:
    """Train the best finalists on all rows, average their adapters, and compare the mean with the winner.

    One mean for each seed, of adapters of that seed, so that mean and winner are paired over seeds
    and test rows.

    Args:
        search: with its test experiment.
        tried: all trials.
        finals: value at the end by trial, higher being better.
        best: number of the winner.
        n_averaged: finalists to average, the best ones.
        work: folder that survives a kill; the adapter of the first seed is left in it, in
            `averaged`.

    Returns:
        For `tune.json`: `trials`, `average` and `winner` (mean values over the seeds),
        `difference`, `verdict`.

    Raises:
        InputError: fewer than two finalists ran to the end, or the winner failed on the test rows.
    """
    chosen = sorted(finals, key=lambda number: (-finals[number], number))[:n_averaged]
    if len(chosen) < 2:
        raise InputError(f"tune: average needs two finalists that ran to the end, found {len(chosen)}; leave it out")
    metric, seeds = search.test.metric, list(range(search.seed, search.seed + search.n_seeds))
    names = [] if best else [f"winner on the test rows, seed {seed}" for seed in seeds]  # others were run and told
    runs = run_settings(search, search.test, [tried[best].settings] * len(seeds), seeds, names, stage="winner")
    winner = [run.outcomes for run in runs]
    averaged = []
    for seed in seeds:
        averaged.append(_averaged(search, [tried[number].settings for number in chosen], seed, work))
        measured = metric.measure(averaged[-1])
        shown = f"{metric.name} {measured.value:.4f} ± {measured.stderr:.4f}"
        search.tell("averages", len(averaged), len(seeds), f"average of {len(chosen)} adapters, seed {seed}: {shown}")
    pairs = [(ours, theirs) for ours, theirs in zip(averaged, winner, strict=True) if theirs is not None]
    if len(pairs) < 2:
        raise InputError("tune: the winner could not be measured on the test rows with two seeds; leave average out")
    kept = work / AVERAGED
    rmtree(kept, ignore_errors=True)
    copytree(work / RUNS / f"mean-{seeds[0]}", kept)
    rmtree(work / RUNS)
    ours, theirs = (np.stack([metric.per_row(run) for run in side]) for side in zip(*pairs, strict=True))
    found = estimate_effect(ours, theirs, metric.weights(pairs[0][0]), is_higher_better=metric.is_higher_better)
    return {
        "trials": chosen,
        "average": float(np.mean([metric.measure(run).value for run, _ in pairs])),
        "winner": float(np.mean([metric.measure(run).value for _, run in pairs])),
        "difference": asdict(found),
        "verdict": sentence(found, found.p, is_rate=metric.name != "loss"),
    }


def _averaged(search: Search, settings: Sequence[TrainSettings], seed: int, work: Path) -> pl.DataFrame:
    """Return what the mean of one adapter per settings does on the test rows; what a killed call did is found again."""
    from thresher.trainer.engine.average_adapters import average_adapters
    from thresher.trainer.runs import ADAPTER, measure_adapter, run_all

    done = work / RUNS / f"mean-{seed}.parquet"
    if done.is_file():
        return pl.read_parquet(done)
    folders = []
    for number, each in enumerate(settings):
        context = search.test.request(search.test.pool, seed=seed, settings=each)
        (finished,) = run_all(context, work / RUNS / f"{number}-{seed}")
        folders.append(finished.folder / ADAPTER)
    mean = work / RUNS / f"mean-{seed}"
    rmtree(mean, ignore_errors=True)  # of a killed call
    average_adapters(folders, mean)
    outcomes = measure_adapter(context, mean)
    write_atomic(done, _parquet(outcomes))
    return outcomes


def _parquet(table: pl.DataFrame) -> bytes:
    from io import BytesIO

    buffer = BytesIO()
    table.write_parquet(buffer)
    return buffer.getvalue()
