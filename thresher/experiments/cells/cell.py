"""One cell: rows chosen by a method, trained once, measured on the test set."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.artifacts.manifest import digest
from thresher.experiments.experiment import Experiment
from thresher.experiments.own.trainer import OwnRun
from thresher.trainer.context import RunContext
from thresher.trainer.settings import TrainSettings

# of a training's identity, what its outcomes do not depend on
SAYS_NOTHING = ("data", "sources", "subset", "shots", "forget")
Job = RunContext | OwnRun
FORMAT = 2  # raise it when cells of earlier versions of the code must not be used again


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What is trained and measured once.

    Attributes:
        method: name of the selector.
        n_rows: rows to train on, the first ones of its ranking.
        seed: of the ranking and of the training.
        rows: (n_rows,) positions in the experiment's pool.
        settings: of the training, where they differ from the experiment's.
        model: base model, where it differs from the experiment's.
        start_from: folder of the adapter that training goes on from; None for a fresh one.
        select_seconds: what choosing the rows took.
    """

    method: str
    n_rows: int
    seed: int
    rows: NDArray[np.int64]
    settings: TrainSettings | None = None
    model: str | Path | None = None
    start_from: Path | None = None
    select_seconds: float = 0.0

    def build_job(self, experiment: Experiment) -> Job:
        """Return what the cell asks of the trainer, ours or the user's."""
        if experiment.trainer is None:
            return self.build_context(experiment)
        return OwnRun(
            trainer=experiment.trainer,
            # in the order of the pool: the same rows are the same file, whoever chose them
            rows=experiment.pool.take(np.sort(self.rows)),
            test=experiment.test,
            seed=self.seed,
            metric=experiment.metric,
        )

    def build_context(self, experiment: Experiment) -> RunContext:
        """Return what the cell asks of the trainer."""
        if self.model is not None:
            experiment = replace(experiment, model=self.model)
        rows = experiment.pool.take(self.rows)
        return experiment.build_context(rows, seed=self.seed, settings=self.settings, start_from=self.start_from)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a cell showed, why it failed, or why it could not be finished.

    Attributes:
        key: content address: equal for all cells that train on the same rows in the same way.
        outcomes: one row per test row, or None when the cell failed or was not finished.
        facts: `steps`, `train_seconds`, `rows_learned`, `tokens_learned`, and `general_loss`: of
            each row that is not of the task, in nats, where these are measured.
        reason: why there are none, or None.
        is_reused: it had been done by an earlier command.
        is_unfinished: the machine ended it, as when memory runs out, each time that it was tried.
            That says nothing of its rows: it is no result, and the next call tries again.
    """

    key: str
    outcomes: pl.DataFrame | None
    facts: Mapping[str, Any]
    reason: str | None = None
    is_reused: bool = False
    is_unfinished: bool = False


def compute_cell_key(job: Job) -> str:
    """Return the content address of a training: which rows, however chosen, trained how."""
    if isinstance(job, OwnRun):
        return job.compute_key()
    # the file that the rows were read from says nothing beyond the rows, `subset` says how they
    # were chosen, and what the untouched model is asked says nothing of the trained one
    identity = {k: v for k, v in job.identity().items() if k not in SAYS_NOTHING}
    return digest({**identity, "format": FORMAT})


def train_and_measure(job: Job, work: Path) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Train and measure once; a killed call continues in the same folder.

    Args:
        job: of a cell.
        work: folder for checkpoints, which survives a kill.

    Returns:
        One row per test row, and facts of the training.
    """
    if isinstance(job, OwnRun):
        return job.run(work)
    from thresher.trainer.runs import run_all

    started = time.monotonic()
    (finished,) = run_all(job, work)
    if finished.outcomes is None:
        raise AssertionError("a cell has a test set")
    facts = {
        "steps": finished.history.step,
        "rows_learned": finished.counts["rows"],
        "tokens_learned": finished.counts.get("tokens_learned"),
        "train_seconds": round(time.monotonic() - started, 3),
    }
    if finished.general is not None:
        facts["general_loss"] = finished.general.losses["loss"].to_list()
    return finished.outcomes, facts
