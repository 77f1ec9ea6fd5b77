"""The trials of a search for training settings: optuna asks, cells answer, early."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from thresher.artifacts.manifest import digest
from thresher.experiments.cells.cell import Cell, Outcome
from thresher.experiments.cells.worker_pool import WorkerPool
from thresher.experiments.experiment import Experiment
from thresher.experiments.tables import describe_experiment
from thresher.trainer.settings import TrainSettings

if TYPE_CHECKING:
    from optuna import Study, Trial

    from thresher.features import Progress

EARLY = 0.2
TRIALS_AT_ONCE = 2  # not the number of workers, on which no result may depend
RANKS, ALPHAS, BATCHES = (4, 8, 16, 32, 64), (1.0, 2.0, 4.0), (8, 16, 32, 64)
LEARNING_RATES = (2e-5, 1e-2)
DROPOUTS, EPOCHS = (0.0, 0.2), (1, 6)


@dataclass(frozen=True, kw_only=True)
class Search:
    """A search, checked.

    Attributes:
        dev: experiment whose test set is held out of the data, to judge trials.
        test: experiment with the user's test set, which judges the winner only.
        n_trials: settings to try.
        n_finalists: trials that run to the end.
        n_seeds: runs of winner and default on the test set.
        n_averaged: finalists whose adapters are averaged, or 0.
        sampler: of optuna.
        seed: of the search.
        n_checks: further trials, drawn at random, that run to the end to see whether early values
            can be trusted.
        worker_pool: that runs cells.
        on_progress: listener.
    """

    dev: Experiment
    test: Experiment
    n_trials: int
    n_finalists: int
    n_seeds: int
    n_averaged: int
    sampler: str
    seed: int
    n_checks: int
    worker_pool: WorkerPool
    on_progress: Callable[[Progress], None] | None

    def identity(self) -> str:
        """Return what determines the search."""
        asked = {k: v for k, v in vars(self).items() if k not in ("dev", "test", "worker_pool", "on_progress")}
        return digest({"dev": describe_experiment(self.dev), "test": describe_experiment(self.test), "asked": asked})

    def tell(self, stage: str, done: int, total: int, note: str | None = None) -> None:
        """Tell the listener how far a stage is, and what has come of its last run."""
        from thresher.features import Progress

        if self.on_progress is not None:
            self.on_progress(Progress(stage=stage, done=done, total=total, note=note))


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One trial: its settings and its early value with its error over the held-out rows, or why it has none."""

    settings: TrainSettings
    early: float | None
    reason: str | None
    early_stderr: float | None = None


def run_trials(search: Search, database: Path | None) -> list[Tried]:
    """Run the trials to 20 % of their steps; those that a killed call has finished are in the study already."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    higher = search.dev.metric.is_higher_better
    study = optuna.create_study(
        storage=None if database is None else f"sqlite:///{database}",
        study_name="tune",
        direction="maximize" if higher else "minimize",
        load_if_exists=True,
    )
    for left in study.get_trials(states=[optuna.trial.TrialState.RUNNING]):  # by a killed call
        value = left.user_attrs.get("value")
        if value is None:
            study.tell(left.number, state=optuna.trial.TrialState.FAIL)
        else:
            study.tell(left.number, value)
    base = search.dev.request(search.dev.pool.take(np.arange(1)), seed=search.seed).settings
    search.tell("trials", len(_finished(study)), search.n_trials)
    while (n_done := len(_finished(study))) < search.n_trials:
        # a fresh sampler for each batch: what it proposes depends on the finished trials only, not
        # on kills
        study.sampler = _sampler(search.sampler, np.random.SeedSequence([search.seed, n_done]))
        asked = [_ask(study, base, is_first=not n_done and not i) for i in range(_batch(search, n_done))]
        early = [replace(settings, stop_at=EARLY) for _, settings in asked]
        runs = run_settings(search, search.dev, early, [search.seed] * len(early))
        for (trial, settings), outcome in zip(asked, runs, strict=True):
            _tell(study, trial, settings, outcome, search)
    return [
        Tried(
            settings=TrainSettings(**trial.user_attrs["settings"]),
            early=trial.user_attrs["value"],
            reason=trial.user_attrs["reason"],
            early_stderr=trial.user_attrs.get("stderr"),  # none where an earlier version began the search
        )
        for trial in _finished(study)
    ]


def _batch(search: Search, n_done: int) -> int:
    return min(TRIALS_AT_ONCE, search.n_trials - n_done)


def _finished(study: Study) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if "value" in trial.user_attrs]


def _sampler(name: str, sequence: np.random.SeedSequence) -> Any:
    import optuna

    seed = int(sequence.generate_state(1)[0])
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=8)


def _ask(study: Study, base: TrainSettings, *, is_first: bool) -> tuple[Trial, TrainSettings]:
    trial = study.ask()
    if is_first:  # the default settings, whatever the space
        return trial, base
    rank = trial.suggest_categorical("lora_rank", RANKS)
    return trial, replace(
        base,
        learning_rate=trial.suggest_float("learning_rate", *LEARNING_RATES, log=True),
        lora_rank=rank,
        lora_alpha=float(rank) * trial.suggest_categorical("alpha_over_rank", ALPHAS),
        lora_dropout=trial.suggest_float("lora_dropout", *DROPOUTS),
        batch_size=trial.suggest_categorical("batch_size", BATCHES),
        epochs=float(trial.suggest_int("epochs", *EPOCHS)),
        max_steps=None,
    )


def _tell(study: Study, trial: Trial, settings: TrainSettings, outcome: Outcome, search: Search) -> None:
    import optuna

    made = None if outcome.outcomes is None else search.dev.metric.measure(outcome.outcomes)
    found = None if made is None else made.value
    trial.set_user_attr("settings", settings.to_json())
    trial.set_user_attr("reason", outcome.reason)
    trial.set_user_attr("stderr", None if made is None else made.stderr)
    trial.set_user_attr("value", found)  # the last one: with it, the trial counts as finished
    if found is None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, found)
    done = len(_finished(study))
    shown = outcome.reason if made is None else f"{search.dev.metric.name} {made.value:.4f} ± {made.stderr:.4f}"
    note = f"trial {done - 1}, at {EARLY:.0%}: {shown} ({_short(settings)})"
    search.tell("trials", done, search.n_trials, note)


def run_settings(
    search: Search,
    experiment: Experiment,
    wanted: Sequence[TrainSettings],
    seeds: Sequence[int],
    names: Sequence[str] = (),
    *,
    stage: str = "",
) -> list[Outcome]:
    """Train on all rows of an experiment with each of several settings and seeds, which go in pairs.

    Args:
        search: whose worker_pool runs them.
        experiment: rows to train and to measure on.
        wanted: (k,) settings.
        seeds: (k,) of the training.
        names: (k,) what each is called in the progress; none where nothing is told.
        stage: of the progress.
    """
    rows = np.arange(len(experiment.pool))
    cells = [
        Cell(method="all", n_rows=len(rows), seed=seed, rows=rows, settings=settings)
        for settings, seed in zip(wanted, seeds, strict=True)
    ]
    if names:
        search.tell(stage, 0, len(cells))
    outcomes: dict[int, Outcome] = {}
    for index, outcome in search.worker_pool.run(experiment, cells):
        outcomes[index] = outcome
        if names:
            shown = f"failed: {outcome.reason}"
            if outcome.outcomes is not None:
                found = experiment.metric.measure(outcome.outcomes)
                shown = f"{experiment.metric.name} {found.value:.4f} ± {found.stderr:.4f}"
            search.tell(stage, len(outcomes), len(cells), f"{names[index]}: {shown}")
    return [outcomes[index] for index in range(len(cells))]


def _short(settings: TrainSettings) -> str:
    return (
        f"rate {settings.learning_rate:.2g}, rank {settings.lora_rank}, alpha {settings.lora_alpha:g}, "
        f"batch {settings.batch_size}, epochs {settings.epochs:g}"
    )
