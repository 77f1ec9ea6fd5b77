"""The trials of a search for training settings: optuna proposes, cells answer, early."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from thresher.artifacts.manifest import digest
from thresher.errors import IncompleteError
from thresher.experiments.cells.cell import Cell, Outcome
from thresher.experiments.cells.retries import describe_unfinished
from thresher.experiments.cells.tracking import CellTracking, measure_score
from thresher.experiments.cells.worker_pool import WorkerPool
from thresher.experiments.design.rough_estimate import describe_rough_time
from thresher.experiments.experiment import Experiment
from thresher.experiments.settings import TuneSettings
from thresher.experiments.tables import describe_experiment
from thresher.progress import OnProgress, Progress
from thresher.trainer.context import NOTHING
from thresher.trainer.engine.adapters.kinds import fit_settings
from thresher.trainer.settings import TrainSettings

if TYPE_CHECKING:
    from optuna import Study, Trial

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
        settings: what is asked.
        worker_pool: that runs cells.
        on_progress: listener.
        tracking: tells trackers of the runs, or None.
        unfinished: `run`, `seed` and `reason` of each run that the machine ended, after the trials.
    """

    dev: Experiment
    test: Experiment
    settings: TuneSettings
    worker_pool: WorkerPool
    on_progress: OnProgress | None
    unfinished: list[dict[str, Any]] = field(default_factory=list)
    tracking: CellTracking | None = None

    @property
    def seeds(self) -> list[int]:
        """Seeds of the runs on the test set."""
        return list(range(self.settings.seed, self.settings.seed + self.settings.seeds))

    def require_finished(self) -> None:
        """Stop a search that cannot go on because the machine ended runs of it.

        Raises:
            IncompleteError: it ended some.
        """
        if self.unfinished:
            raise IncompleteError(f"tune: {describe_unfinished(self.unfinished)}")

    @property
    def n_finalists(self) -> int:
        """Trials that run to the end as the best ones."""
        return min(self.settings.finalists, self.settings.trials)

    def compute_identity(self) -> str:
        """Return what determines the search, under the keys of earlier versions."""
        asked = {
            "n_trials": self.settings.trials,
            "n_finalists": self.n_finalists,
            "n_seeds": self.settings.seeds,
            "n_averaged": self.settings.average,
            "sampler": self.settings.sampler,
            "seed": self.settings.seed,
            "n_checks": self.settings.checks,
        }
        return digest({"dev": describe_experiment(self.dev), "test": describe_experiment(self.test), "asked": asked})

    def report(self, stage: str, done: int, total: int, note: str | None = None) -> None:
        """Tell the listener how far a stage is, and what its last run showed."""
        if self.on_progress is not None:
            self.on_progress(Progress(stage=stage, done=done, total=total, note=note))


@dataclass(frozen=True, kw_only=True)
class TrialResult:
    """One trial: its settings, its early value and error over held-out rows, or why none."""

    settings: TrainSettings
    early: float | None
    reason: str | None
    early_stderr: float | None = None


def run_trials(search: Search) -> list[TrialResult]:
    """Run the trials to 20 % of their steps; what a killed call has finished is among the cells.

    Which settings a trial proposes follows from the trials before it, so that the same call asks
    for the same cells again.

    Raises:
        IncompleteError: the machine ended a trial; which ones come next depends on it.
    """
    study = _create_study(search)
    n_trials, seed = search.settings.trials, search.settings.seed
    base = search.dev.resolve_settings(seed=seed)
    early_dev = replace(search.dev, untouched=NOTHING)  # what is forgotten is asked at the end
    n_rows = [len(search.dev.pool)] * n_trials
    rough = describe_rough_time(early_dev, n_rows, search.worker_pool.n_workers)
    note = f"plan: {n_trials} trials on {n_rows[0]:,} rows, judged at {EARLY:.0%} of their steps; to the end, {rough}"
    search.report("trials", len(_list_finished(study)), n_trials, note)
    while (n_done := len(_list_finished(study))) < n_trials:
        # a fresh sampler for each batch: what it proposes depends on the finished trials only
        study.sampler = _create_sampler(search.settings.sampler, np.random.SeedSequence([seed, n_done]))
        n_batch = min(TRIALS_AT_ONCE, n_trials - n_done)
        proposed = [_propose(study, search, base, is_first=not n_done and not i) for i in range(n_batch)]
        early = [replace(settings, stop_at=EARLY) for _, settings in proposed]
        outcomes = run_settings(search, early_dev, early, [seed] * len(early))
        unfinished = [{"reason": outcome.reason} for outcome in outcomes if outcome.is_unfinished]
        if unfinished:
            raise IncompleteError(f"tune: {n_done} of {n_trials} trials are done; {describe_unfinished(unfinished)}")
        _record_batch(study, proposed, outcomes, search)
    return [
        TrialResult(
            settings=replace(TrainSettings.read(trial.user_attrs["settings"]), device=search.settings.device),
            early=trial.user_attrs["value"],
            reason=trial.user_attrs["reason"],
            early_stderr=trial.user_attrs["stderr"],
        )
        for trial in _list_finished(study)
    ]


def _create_study(search: Search) -> Study:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(direction="maximize" if search.dev.metric.is_higher_better else "minimize")


def _close_trial(study: Study, trial: Trial, value: float | None) -> None:
    import optuna

    if value is None:
        study.tell(trial, state=optuna.trial.TrialState.FAIL)
    else:
        study.tell(trial, value)


def _list_finished(study: Study) -> list[Any]:
    return [trial for trial in study.get_trials(deepcopy=False) if "value" in trial.user_attrs]


def _create_sampler(name: str, sequence: np.random.SeedSequence) -> Any:
    import optuna

    seed = int(sequence.generate_state(1)[0])
    if name == "tpe":
        return optuna.samplers.TPESampler(seed=seed, n_startup_trials=8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        return optuna.samplers.GPSampler(seed=seed, n_startup_trials=8)


def _propose(study: Study, search: Search, base: TrainSettings, *, is_first: bool) -> tuple[Trial, TrainSettings]:
    """Return the next trial and its settings; what the user has set is the same in all trials.

    Args:
        study: of the search.
        search: whose space it is.
        base: default settings of the task, with what the user has set.
        is_first: the default settings are tried first, whatever the space.
    """
    trial = study.ask()
    if is_first:
        return trial, base
    is_set, given_kinds = list_set_fields(search.settings.settings), list(dict.fromkeys(search.settings.adapters))
    values: dict[str, Any] = {}
    if "learning_rate" not in is_set:
        values["learning_rate"] = trial.suggest_float("learning_rate", *LEARNING_RATES, log=True)
    rank = int(base.lora_rank or 0)
    if "lora_rank" not in is_set:
        rank = values["lora_rank"] = trial.suggest_categorical("lora_rank", RANKS)
    if "lora_alpha" not in is_set:
        values["lora_alpha"] = float(rank) * trial.suggest_categorical("alpha_over_rank", ALPHAS)
    if "lora_dropout" not in is_set:
        values["lora_dropout"] = trial.suggest_float("lora_dropout", *DROPOUTS)
    if "batch_size" not in is_set:
        values["batch_size"] = trial.suggest_categorical("batch_size", BATCHES)
    if given_kinds:
        values["adapter"] = trial.suggest_categorical("adapter", given_kinds)
    if not is_set & {"epochs", "max_steps"}:
        values["epochs"] = float(trial.suggest_int("epochs", *EPOCHS))
        if "min_steps" not in is_set:
            values["min_steps"] = 1  # else equal steps would hide what the epochs do
    return trial, fit_settings(replace(base, **values), search.dev.pool.kind)


def list_set_fields(given: TrainSettings) -> set[str]:
    """Return the names of the settings that differ from their defaults."""
    return {field.name for field in fields(given) if getattr(given, field.name) != field.default}


def _record_batch(
    study: Study, proposed: Sequence[tuple[Trial, TrainSettings]], outcomes: Sequence[Outcome], search: Search
) -> None:
    """Record the trials of a batch as finished together: a call that is killed repeats all of them.

    What comes next depends on whole batches only, and a repeated trial finds its cell in the cache.
    """
    values, n_done = [], len(_list_finished(study))
    for (trial, settings), outcome in zip(proposed, outcomes, strict=True):
        estimate = None if outcome.outcomes is None else search.dev.metric.measure(outcome.outcomes)
        values.append(None if estimate is None else estimate.value)
        trial.set_user_attr("settings", settings.to_json())
        trial.set_user_attr("reason", outcome.reason)
        trial.set_user_attr("stderr", None if estimate is None else estimate.stderr)
        trial.set_user_attr("value", values[-1])
    for (trial, _), value in zip(proposed, values, strict=True):
        _close_trial(study, trial, value)
    for number, ((_, settings), outcome) in enumerate(zip(proposed, outcomes, strict=True), start=n_done):
        shown = outcome.reason if outcome.outcomes is None else search.dev.describe_score(outcome.outcomes)
        note = f"trial {number}, at {EARLY:.0%}: {shown} ({_describe_settings(settings)})"
        search.report("trials", number + 1, search.settings.trials, note)
        _track(search, search.dev, f"trial {number}", settings, outcome)


def run_settings(
    search: Search,
    experiment: Experiment,
    settings: Sequence[TrainSettings],
    seeds: Sequence[int],
    names: Sequence[str] = (),
    *,
    stage: str = "",
) -> list[Outcome]:
    """Train on all rows of an experiment with several settings and seeds, which go in pairs.

    Args:
        search: whose worker pool runs them.
        experiment: rows to train and to measure on.
        settings: (k,) of the training.
        seeds: (k,) of the training.
        names: (k,) what each is called in the progress and among the unfinished ones; none where
            nothing is reported.
        stage: of the progress.
    """
    rows = np.arange(len(experiment.pool))
    cells = [
        Cell(method="all", n_rows=len(rows), seed=seed, rows=rows, settings=each)
        for each, seed in zip(settings, seeds, strict=True)
    ]
    if names:
        search.report(stage, 0, len(cells))
    outcomes: dict[int, Outcome] = {}
    for index, outcome in search.worker_pool.run(experiment, cells):
        outcomes[index] = outcome
        for note in search.worker_pool.cache.take_notes():
            search.report(stage or "trials", len(outcomes), len(cells), note)
        if names:
            if outcome.is_unfinished:
                search.unfinished.append({"run": names[index], "seed": seeds[index], "reason": outcome.reason})
            table = outcome.outcomes
            shown = f"failed: {outcome.reason}" if table is None else experiment.describe_score(table)
            search.report(stage, len(outcomes), len(cells), f"{names[index]}: {shown}")
            name = f"{names[index]} seed {seeds[index]}"
            _track(search, experiment, name, settings[index], outcome)
    return [outcomes[index] for index in range(len(cells))]


def _track(search: Search, experiment: Experiment, name: str, settings: TrainSettings, outcome: Outcome) -> None:
    if search.tracking is None:
        return
    where = "dev" if experiment.test is search.dev.test else "test"
    score = measure_score(outcome, experiment, where)
    search.tracking.record_run(name, {"measured_on": where, **settings.to_json()}, outcome, score)


def describe_length(settings: TrainSettings, sign: str = " ", prefix: str = "") -> str:
    """Return how long settings train: their epochs, or their steps where those are given."""
    if settings.epochs is None:
        return f"{prefix}{'max-steps' if prefix else 'steps'}{sign}{settings.max_steps}"
    return f"{prefix}epochs{sign}{settings.epochs:g}"


def _describe_settings(settings: TrainSettings) -> str:
    kind = "" if settings.adapter == "lora" else f"{settings.adapter}, "
    return (
        f"{kind}rate {settings.learning_rate:.2g}, rank {settings.lora_rank}, alpha {settings.lora_alpha:g}, "
        f"batch {settings.batch_size}, {describe_length(settings)}"
    )
