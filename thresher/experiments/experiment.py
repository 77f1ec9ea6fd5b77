"""What all cells of an experiment share, checked before the first one runs."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.dataset import Dataset
from thresher.dataset.own_text.matching import describe_matches, match_rows
from thresher.errors import InputError, SettingsError
from thresher.evaluation.classification import count_unknown_labels, describe_unknown_labels
from thresher.evaluation.lm_eval_task import LmEvalMetric, find_lm_eval_metric
from thresher.evaluation.metric import Metric, find_metric
from thresher.evaluation.own_metric import OwnMetric, find_own_metric
from thresher.evaluation.task_name import names_lm_eval_task
from thresher.experiments.design.hold_out import hold_out
from thresher.experiments.own.trainer import OwnTrainer, find_trainer_metric
from thresher.experiments.settings import ExperimentSettings, MethodExperimentSettings, Overlap
from thresher.models.causal_lm.default_model import choose_model
from thresher.numeric.units import format_count
from thresher.progress import OnProgress, Progress
from thresher.trainer.context import NOTHING, RunContext, load_rows, resolve_run
from thresher.trainer.settings import TrainSettings
from thresher.trainer.split import parse_share, sort_by_id
from thresher.trainer.untouched.settings import UntouchedSettings

NAMED_GROUPS = 5  # of those that are held out, in the progress


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """What all cells of an experiment share.

    Attributes:
        pool: rows to choose from, sorted by id, none of them in the test set.
        test: rows to measure on, sorted by id.
        model: Hub id, folder or name of the base model, or None for MiniLM, which learns labels.
        settings: of the training.
        metric: that is compared.
        labels: of the pool, so that every cell has the same head; empty for language models.
        n_equal_steps: steps of every cell, or None for equal epochs.
        eval_name: where the test rows came from, for people: a path, or a share of the pool.
        overlap: what became of rows of the pool that were in the test set.
        untouched: how the base is measured before training.
        trainer: of the user's own, or None for ours.
        held_out_groups: groups that the test rows are of, where whole groups are held out.
    """

    pool: Dataset
    test: Dataset
    model: str | Path | None
    settings: TrainSettings
    metric: Metric
    labels: tuple[str, ...]
    n_equal_steps: int | None = None
    eval_name: str = ""
    overlap: Overlap = "refuse"
    untouched: UntouchedSettings = NOTHING
    held_out_groups: tuple[str, ...] = ()
    trainer: OwnTrainer | None = None

    @property
    def unknown_labels(self) -> dict[str, int]:
        """How many test rows have each label that the pool lacks, the most frequent first."""
        return count_unknown_labels(self.test.frame["response"], self.labels)

    def find_problem(self, outcomes: pl.DataFrame) -> str | None:
        """Say why outcomes cannot be compared, as a metric that is not a number; else None."""
        name = self.metric.column
        if name is None or isinstance(self.metric, OwnMetric):
            return None
        n_bad = 0
        if name == "loss" and self.labels:  # a label that the pool lacks rightly has no loss
            outcomes = outcomes.filter(pl.col("label").is_in(list(self.labels)))
            n_bad = outcomes[name].null_count()
        values = outcomes[name].drop_nulls()
        if values.dtype.is_float():
            n_bad += int((~values.is_finite()).sum())
        return (
            None if not n_bad else f"{self.metric.name} is not a finite number for {n_bad} of {len(outcomes)} test rows"
        )

    def describe_score(self, outcomes: pl.DataFrame) -> str:
        """Return the metric with its error over test rows, for people."""
        score = self.metric.measure(outcomes)
        return f"{self.metric.name} {score.value:.4f} ± {score.stderr:.4f}"

    def build_context(
        self, rows: Dataset, *, seed: int, settings: TrainSettings | None = None, start_from: Path | None = None
    ) -> RunContext:
        """Return what training on rows that ask no test row takes, fresh or from an adapter."""
        settings = self.settings if settings is None else settings
        if self.n_equal_steps is not None:
            settings = replace(settings, epochs=None, min_steps=None, max_steps=self.n_equal_steps)
        return resolve_run(
            rows,
            model=self.model,
            eval=self.test,
            settings=settings,
            seed=seed,
            labels=self.labels,
            is_apart=True,
            untouched=self.untouched,
            start_from=start_from,
        )

    def resolve_settings(self, *, seed: int = 0) -> TrainSettings:
        """Return the settings with every choice by task made."""
        return self.build_context(self.pool.take(np.arange(1)), seed=seed).settings


def load_experiment(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    settings: ExperimentSettings,
    on_progress: OnProgress | None = None,
) -> Experiment:
    """Load and check what an experiment was given, as its options say.

    Args:
        pool: rows to choose from, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out.
        settings: of the experiment.
        on_progress: told which rows are dropped, and which groups are held out.

    Raises:
        InputError: pool and test set do not fit each other.
        NotFoundError: there is no such metric or model.
        SettingsError: the settings let the training look at the test rows.
    """
    if names_lm_eval_task(settings.metric) and settings.command not in ("curve", "compare"):
        raise SettingsError(
            f"{settings.command}: {settings.metric} is a metric of train, curve and compare alone; give another one"
        )
    trainer = None
    if isinstance(settings, MethodExperimentSettings) and settings.trainer is not None:
        trainer = OwnTrainer.parse(settings.trainer, settings.trainer_time)
    return prepare_experiment(
        pool,
        eval=eval,
        model=settings.model,
        settings=settings.settings,
        metric=settings.metric,
        overlap=settings.overlap,
        untouched=UntouchedSettings.take(settings),
        eval_by=settings.eval_by,
        trainer=trainer,
        on_progress=on_progress,
    )


def prepare_experiment(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    model: str | Path | None,
    settings: TrainSettings,
    metric: Any,
    overlap: Overlap = "refuse",
    untouched: UntouchedSettings = NOTHING,
    eval_by: str | None = None,
    trainer: OwnTrainer | None = None,
    on_progress: OnProgress | None = None,
) -> Experiment:
    """Load and check what an experiment was given.

    Args:
        pool: rows to choose from, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out.
        model: Hub id, folder or name, or None for MiniLM or what `choose_model` finds.
        settings: of the training.
        metric: name, a metric of the user's own (`find_own_metric`), or None for the task's
            default.
        overlap: what happens when a test row is also in the pool: "refuse", or "drop" it from the
            pool.
        untouched: how the base is measured before training.
        eval_by: column of which whole groups are held out, where `eval` is a share; None for rows.
        trainer: of the user's own, which also measures.
        on_progress: told which rows are dropped, and which groups are held out.

    Raises:
        InputError: pool and test set do not fit each other.
        NotFoundError: there is no such metric or model.
        SettingsError: the settings let the training look at the test rows.
    """
    if settings.early_stopping_patience is not None:
        raise SettingsError(
            "train: early_stopping_patience chooses weights by the held-out rows, which are the test rows of an "
            "experiment, so every score would be too good; leave it out"
        )
    rows, test, groups = _split_rows(pool, eval, eval_by)
    rows = _remove_test_rows(rows, test, overlap, on_progress)
    if not len(rows) or not len(test):
        raise InputError(f"experiment: needs rows to choose from and to measure on, got {len(rows)} and {len(test)}")
    if len(test) < 2:
        raise InputError("eval: at least 2 test rows are needed, as their spread is the error bar, got 1; add some")
    untouched.check_rows(rows.kind, has_held_out=True)
    if names_lm_eval_task(metric) and any(untouched.prompts):
        raise SettingsError(
            f"shots: no rows can be put before the documents of {metric}, got {list(untouched.shots)}; leave shots "
            f"out, or set num_fewshot in the task's file"
        )
    compared = _find_any_metric(metric, rows.kind) if trainer is None else find_trainer_metric(metric, rows.kind)
    settings = _check_answers(compared, settings, rows.kind, metric) if trainer is None else settings
    needs_model = model is None and rows.kind != "classification" and trainer is None
    experiment = Experiment(
        pool=rows,
        test=test,
        model=_choose_model(on_progress) if needs_model else model,
        settings=settings,
        metric=compared,
        labels=tuple(sorted(rows.frame["response"].unique())) if rows.kind == "classification" else (),
        held_out_groups=tuple(groups),
        eval_name=str(eval) if parse_share(eval) is not None else ", ".join(source.path for source in test.sources),
        overlap=overlap,
        untouched=untouched if trainer is None else NOTHING,
        trainer=trainer,
    )
    _report_test_rows(experiment, eval_by, on_progress)
    return experiment


def _find_any_metric(metric: Any, kind: str) -> Metric:
    if names_lm_eval_task(metric):
        if kind == "classification":
            raise SettingsError(f"metric: {metric} asks a language model, got rows with labels; give another metric")
        return find_lm_eval_metric(metric)
    own = metric if isinstance(metric, Metric) else find_own_metric(metric)
    return own or find_metric(metric, kind)


def _check_answers(metric: Metric, settings: TrainSettings, kind: str, name: Any) -> TrainSettings:
    """Return settings that measure the metric, and write no answers where it needs none.

    Raises:
        InputError: they forbid answers that the metric needs.
    """
    if metric.column in ("exact_match", "rouge_l", "chrf") and settings.eval_generations < 2:
        raise InputError(f"metric: {metric.name} needs generated answers; set eval_generations to 2 or more")
    if isinstance(metric, LmEvalMetric):
        if settings.metric not in (None, name):
            raise SettingsError(f"metric: must be one lm-eval task, got {name}, and {settings.metric} in --train")
        return replace(settings, eval_generations=0, metric=name)
    has_no_reader = kind != "classification" and metric.column == "loss"
    return replace(settings, eval_generations=0) if has_no_reader else settings


def _report_test_rows(experiment: Experiment, eval_by: str | None, on_progress: OnProgress | None) -> None:
    """Tell which groups are held out, and which labels of the test rows no pool row has."""
    if on_progress is None:
        return
    groups, n = experiment.held_out_groups, len(experiment.test)
    notes = [describe_unknown_labels(experiment.unknown_labels, n, experiment.labels)]
    if groups:
        named = ", ".join(groups[:NAMED_GROUPS]) + (", ..." if len(groups) > NAMED_GROUPS else "")
        were = "group of {} is" if len(groups) == 1 else "groups of {} are"
        notes.append(f"{len(groups):,} {were.format(eval_by)} held out, with {n:,} rows: {named}")
    for note in filter(None, notes):
        on_progress(Progress(stage="eval", done=n, total=n, note=note))


def _split_rows(pool: Any, source: Any, eval_by: str | None) -> tuple[Dataset, Dataset, list[str]]:
    """Return rows to choose from, rows to measure on, and the groups that these are of, if any."""
    rows = sort_by_id(load_rows(pool))
    share = parse_share(source)
    groups: list[str] = []
    if share is None and eval_by is not None:
        raise InputError(
            "eval_by: holds out groups of the pool where eval is a share of it, as 10%, got rows of their own; "
            "leave eval_by out, or give a share"
        )
    if share is not None:
        is_test, groups = hold_out(rows, share, by=eval_by)
        test, rows = rows.take(np.flatnonzero(is_test)), rows.take(np.flatnonzero(~is_test))
        # repeats of a test row are no choice of anybody's
        rows = rows.take(np.flatnonzero(match_rows(rows, test) < 0))
    else:
        test = sort_by_id(load_rows(source, None if isinstance(source, Dataset) else rows.schema))
    if test.kind != rows.kind:
        raise InputError(
            f"eval: its rows must be of the pool's kind ({rows.kind}), got {test.kind}; name its columns "
            f"(--eval-map ROLE=COLUMN,..., or th.load with a schema)"
        )
    return rows, test, groups


def _choose_model(on_progress: OnProgress | None) -> str:
    """Return the language model that runs where none is named: once, for all cells."""

    def tell(note: str) -> None:
        if on_progress is not None:
            on_progress(Progress(stage="model", done=1, total=1, note=note))

    return choose_model(tell)


def _remove_test_rows(pool: Dataset, test: Dataset, overlap: Overlap, on_progress: OnProgress | None) -> Dataset:
    """Return the rows of the pool that are not in the test set; refuse or drop any that are."""
    match = match_rows(pool, test)
    if (match < 0).all():
        return pool
    places, n_shared = describe_matches(pool, test, match), int((match >= 0).sum())
    if overlap == "refuse":
        n_test = int((match_rows(test, pool) >= 0).sum())
        raise InputError(
            f"eval: no test row may be in the pool, because every score would be too good; found {n_test} of "
            f"{len(test)} there ({places}); take them out, or leave them out with --overlap drop"
        )
    if on_progress is not None:
        note = f"{format_count(n_shared, 'row')} of the pool left out, as a test row asks the same ({places})"
        on_progress(Progress(stage="eval", done=n_shared, total=n_shared, note=note))
    return pool.take(np.flatnonzero(match < 0))
