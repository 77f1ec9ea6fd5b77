"""The pilot that trains: short trainings say which method is better than random rows here.

`auto` judges methods by a cheap student of the labels; rows without labels have none. Here each
method chooses a tenth of the rows, or as many as the budget, the user's own model learns them for a
few steps, and rows that no method could choose judge it, beside random rows (`compare`).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np

from thresher.dataset import Dataset
from thresher.errors import InputError
from thresher.evaluation.effect import is_clear
from thresher.experiments.comparison import Comparison, PairwiseResult, compare
from thresher.experiments.experiment import Experiment
from thresher.experiments.settings import BASELINE
from thresher.progress import OnProgress
from thresher.trainer.settings import TrainSettings
from thresher.trainer.split import sample_by_hash

STEPS, SEEDS = 30, 3
MOST_ROWS = 4_000  # of the pool, that the methods choose from
SHARE = 0.1  # of them, that each method chooses
MOST_JUDGES, JUDGES_SHARE = 300, 0.2
FEWEST_TARGET_ROWS, FEWEST_ROWS = 20, 50
_JUDGES_SEED, _ROWS_SEED = 11, 12

FOR_LABELS = ("prototypes", "stratified balance=sqrt", "facility-location quota=label=sqrt")
FOR_A_TARGET = ("target-similarity kernel=embedding", "target-similarity kernel=bm25", "facility-location")
FOR_ANSWERS = ("facility-location", "k-center")


class Pilot(NamedTuple):
    """What is trained, to choose a method.

    Attributes:
        rows: that the methods choose from.
        judges: rows that judge what was learned.
        target: rows of the task that the methods look at, or None.
        methods: that race, besides random rows and the longest ones.
        n_rows: that each method chooses.
        settings: of the trainings.
    """

    rows: Dataset
    judges: Dataset
    target: Dataset | None
    methods: tuple[str, ...]
    n_rows: int
    settings: TrainSettings

    @property
    def n_runs(self) -> int:
        """Trainings: of the methods, of `random` and of `length`."""
        return SEEDS * (len(self.methods) + 2)


def plan_pilot(rows: Dataset, experiment: Experiment, *, target: Dataset | None, most: int | None) -> Pilot:
    """Return what a pilot on these rows trains.

    Args:
        rows: the clean pool.
        experiment: what the final training is of.
        target: rows of the task: one half of them is looked at, the other one judges; None for
            rows of the pool as judges.
        most: rows that the user would train on, or None.

    Raises:
        InputError: too few rows of the task, or of the pool.
    """
    judged = rows if target is None else target
    fewest, whose = (FEWEST_ROWS, "the pool") if target is None else (FEWEST_TARGET_ROWS, "the target")
    if len(judged) < fewest:
        raise InputError(
            f"pilot: {whose} must have at least {fewest} rows, so that some of them can judge, found {len(judged)}; "
            f"leave --pilot out"
        )
    share = min(JUDGES_SHARE, MOST_JUDGES / len(judged)) if target is None else 0.5
    is_judge = sample_by_hash(judged.frame["row_id"], share, seed=_JUDGES_SEED)
    judges, others = judged.take(np.flatnonzero(is_judge)), judged.take(np.flatnonzero(~is_judge))
    candidates = others if target is None else rows
    if len(candidates) > MOST_ROWS:
        share = MOST_ROWS / len(candidates)
        candidates = candidates.take(np.flatnonzero(sample_by_hash(candidates.frame["row_id"], share, seed=_ROWS_SEED)))
    # the same share of fewer rows, and never more than the user would train on
    n_rows = max(2, round(SHARE * len(candidates) if most is None else most / len(rows) * len(candidates)))
    settings = experiment.settings
    n_steps = STEPS if settings.max_steps is None else min(STEPS, settings.max_steps)
    names = FOR_A_TARGET if target is not None else FOR_LABELS if experiment.labels else FOR_ANSWERS
    return Pilot(
        rows=candidates,
        judges=judges,
        target=None if target is None else others,
        methods=names,
        n_rows=min(n_rows, len(candidates)),
        settings=replace(settings, epochs=None, min_steps=None, max_steps=n_steps),
    )


def run_pilot(
    pilot: Pilot,
    experiment: Experiment,
    folder: Path,
    *,
    workers: Any,
    on_progress: OnProgress | None,
    encoder: str | None = None,
    device: str | None = None,
    engine: Literal["local", "ray"] = "local",
) -> Comparison:
    """Train what a pilot plans; cells are kept, so that a killed one goes on.

    Args:
        pilot: the plan.
        experiment: what the final training is of.
        folder: for the comparison.
        workers: runs at once.
        on_progress: listener.
        encoder: that the methods choose by.
        device: of all models.
        engine: "local" or "ray".
    """
    run = partial(compare, pilot.rows, eval=pilot.judges, on_progress=on_progress, out=folder, force=True)
    return run(
        methods=pilot.methods,
        budget=pilot.n_rows,
        seeds=SEEDS,
        target_rows=pilot.target,
        model=experiment.model,
        metric=experiment.metric.name,
        settings=pilot.settings,
        overlap="drop",
        base="none",
        workers=workers,
        engine=engine,
        encoder=encoder,
        device=device,
    )


def decide(comparison: Comparison, pilot: Pilot, *, otherwise: str) -> dict[str, Any]:
    """Return the method to use, why, and the difference of each to random rows.

    Args:
        comparison: of the pilot.
        pilot: that was planned.
        otherwise: method that is used where none was better beyond doubt: few short trainings that
            cannot tell are no reason against what would be used without them.
    """
    # the longest rows are a control here: a method that wins by reading more should not be taken
    verdicts = [verdict for verdict in comparison.verdicts if verdict.method in pilot.methods]
    better = [each for each in verdicts if each.effect.value > 0 and is_clear(each.effect, each.p_holm)]
    about = (
        f"in {pilot.n_runs} short trainings ({pilot.n_rows:,} of {len(pilot.rows):,} rows, "
        f"{pilot.settings.max_steps} steps, {SEEDS} draws, {len(pilot.judges):,} rows to judge)"
    )
    if better:
        winner = max(better, key=_get_low)
        chosen, why = winner.method, f"{winner.method}: {winner.sentence} {about}"
    else:
        chosen = otherwise
        names = {BASELINE: "random rows", "auto": "auto, as without a pilot"}
        why = f"{names.get(otherwise, otherwise)}: no method was better than random rows beyond doubt {about}"
        if verdicts:
            best = max(verdicts, key=lambda each: each.effect.value)
            why += f"; {best.method} came first, {best.sentence}"
    arms = [
        {
            "method": v.method,
            "value": v.effect.value,
            "low": v.effect.low,
            "high": v.effect.high,
            "sentence": v.sentence,
        }
        for v in comparison.verdicts
    ]
    return {"chosen": chosen, "why": why, "n_rows": pilot.n_rows, "seeds": SEEDS, "arms": arms}


def _get_low(verdict: PairwiseResult) -> float:
    return verdict.effect.low
