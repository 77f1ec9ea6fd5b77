"""What an experiment will take, from a few measured steps: `--dry-run` of its commands."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import numpy as np

from thresher.experiments.experiment import Experiment
from thresher.trainer.estimate import PlannedRuns, RunCost, measure_run, plan_untouched
from thresher.trainer.settings import TrainSettings


def measure_experiment(experiment: Experiment, *, n_workers: int = 1) -> RunCost:
    """Take a few steps on rows of the pool, as a cell would.

    Args:
        experiment: of the cells.
        n_workers: cells that run at once, of which each has its share of the cores.
    """
    import torch

    n_threads = torch.get_num_threads()
    torch.set_num_threads(max(1, n_threads // n_workers))
    try:
        return measure_run(experiment.build_context(experiment.pool, seed=0))
    finally:
        torch.set_num_threads(n_threads)


def plan_runs(
    name: str, experiment: Experiment, cost: RunCost, sizes: Iterable[int], settings: TrainSettings | None = None
) -> PlannedRuns:
    """Return what cells of these sizes take.

    Args:
        name: of the part.
        experiment: of the cells.
        cost: measured.
        sizes: rows of each cell.
        settings: of the training, where they differ from the experiment's.
    """
    resolved = experiment.build_context(experiment.pool.take(np.arange(1)), seed=0, settings=settings).settings
    each = [cost.estimate(size, resolved, len(experiment.test)) for size in sizes]
    return PlannedRuns(
        name=name,
        n=len(each),
        seconds=sum(seconds for seconds, _ in each),
        tokens=sum(tokens for _, tokens in each),
    )


def plan_base(experiment: Experiment, cost: RunCost, *, n_subsets: int = 1) -> PlannedRuns:
    """Return what measuring the untouched model takes, once for all cells.

    Args:
        experiment: of the cells.
        cost: measured.
        n_subsets: whose rows stand in prompts, where `--shots` asks for some.
    """
    context = experiment.build_context(experiment.pool.take(np.arange(1)), seed=0)
    return plan_untouched(context, cost, n_prompts=n_subsets)


def with_stop(settings: TrainSettings, share: float) -> TrainSettings:
    """Return settings that stop at a share of the steps."""
    return replace(settings, stop_at=share)
