"""Which training settings are best? Bayesian search, judged early; the best few run to the end.

Oliver and Wang 2024 (arXiv:2407.13906) saw four of the five best trials at 20 % of the training
time among the five best at its end. Every trial is a cell that stops at that share; how well the
early order held is reported, not assumed.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Unpack

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_csv
from thresher.artifacts.manifest import FORMAT, Manifest
from thresher.artifacts.result import Result
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import read_table
from thresher.errors import InputError, MissingExtraError
from thresher.evaluation.effect import Effect, describe_effect
from thresher.evaluation.estimate import Estimate
from thresher.evaluation.gain import Gain
from thresher.evaluation.metric import Metric
from thresher.experiments.adapter_averaging import average_finalists
from thresher.experiments.cells.open_pool import open_worker_pool
from thresher.experiments.cells.tracking import CellTracking
from thresher.experiments.experiment import load_experiment
from thresher.experiments.paired_runs import PairedRuns
from thresher.experiments.result_folder import RunClock, read_result, run_in_folder
from thresher.experiments.search import EARLY, Search, TrialResult, run_settings, run_trials
from thresher.experiments.settings import TuneOptions, TuneSettings
from thresher.experiments.tables import describe_experiment, describe_inputs, describe_places
from thresher.experiments.untouched.forgetting import describe_finalists, estimate_lost, measure_untouched_losses
from thresher.experiments.untouched.row_zero import describe_gains, measure_references
from thresher.progress import OnProgress
from thresher.trainer.settings import COMMON, TrainSettings
from thresher.validation import build_settings, document_options

KIND = "tuning"
TRIALS, RESULT = "trials.csv", "tune.json"
TRIAL_SCHEMA: dict[str, Any] = {  # columns of the table of trials that may be empty at its start
    "epochs": pl.Float64,
    "early": pl.Float64,
    "early_stderr": pl.Float64,
    "final": pl.Float64,
    "final_stderr": pl.Float64,
    "reason": pl.String,
}
TOP = 5


@dataclass(frozen=True, kw_only=True, repr=False)
class Tuning(Result):
    """What a search found.

    Attributes:
        trials: one row per trial: its settings, `early` (value at 20 % of the steps, on rows held
            out of the data), `final` (at the end; null for trials that did not go so far), their
            standard errors over those rows (`early_stderr`, `final_stderr`), `status`, `reason`.
        best: settings of the winner.
        against_default: the winner against the default settings on the test set, which the search
            has not seen.
        content: of `tune.json`.
        path: of the folder, or None when none was asked for.
        manifest: what ran.
    """

    trials: pl.DataFrame
    best: TrainSettings
    against_default: Effect | None
    content: Mapping[str, Any]
    path: Path | None
    manifest: Manifest

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the number of trials, what the winner changes, and how it did on the test rows."""
        default = {**vars(TrainSettings()), **COMMON}
        changes = [f"{name}={value}" for name, value in vars(self.best).items() if value != default[name]]
        best = ", ".join(changes) or "the default settings"
        return [("trials", str(len(self.trials))), ("best", best), ("against default", self.content["verdict"])]


@document_options(TuneSettings)
def tune(
    data: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[TuneOptions],
) -> Tuning:
    """Search for learning rate, rank, alpha, dropout, batch size and epochs.

    What `settings` sets is the same in all trials, such as `max_steps` in place of epochs.

    Runs after the trials that the machine ended however often they were tried, as when memory runs
    out, are listed in `content["unfinished"]`; the same call completes the result.

    Args:
        data: rows to train on, anything `load` accepts.
        eval: test rows; the search does not see them, they judge the winner against the default.
        on_progress: listener.
        options: fields of `TuneSettings`; with `average`, the mean adapter is left in `out`, in
            `averaged`.

    Raises:
        IncompleteError: the machine ended a trial, or every finalist; the same call goes on.
        InputError: the rows do not fit.
        SettingsError: a setting has an illegal value.
        MissingExtraError: optuna is not installed.
        OutputError: `out` holds something else.
    """
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtraError("optuna", "tune", "tune")
    settings: TuneSettings = build_settings(TuneSettings, "tune", options)
    test = load_experiment(data, eval=eval, settings=settings, on_progress=on_progress)
    dev = load_experiment(test.pool, eval=settings.dev, settings=replace(settings, model=test.model))
    if test.metric.column is None:
        raise InputError(f"tune: {test.metric.name} has no value per row to pair; choose accuracy or loss")
    with open_worker_pool(settings, on_progress) as worker_pool:
        search = Search(dev=dev, test=test, settings=settings, worker_pool=worker_pool, on_progress=on_progress)
        search = replace(search, tracking=CellTracking.open(settings, on_progress))
        return _write_tuning(search)


def _write_tuning(search: Search) -> Tuning:
    clock, identity = RunClock(), search.compute_identity()

    def run(work: Path | None) -> Tuning:
        with nullcontext(work) if work is not None else TemporaryDirectory() as scratch:
            return _search(search, identity, clock, Path(scratch))

    def write(tuning: Tuning, folder: Path) -> None:
        write_csv(tuning.trials, folder / TRIALS)
        write_atomic(folder / RESULT, encode_record(tuning.content))
        write_atomic(folder / MANIFEST, tuning.manifest.to_json())

    return run_in_folder(identity, search.settings, run=run, write=write, read=read_tuning)


def _search(search: Search, identity: str, clock: RunClock, work: Path) -> Tuning:
    trials = run_trials(search)
    outcomes = _run_finalists(search, trials)
    estimates = {number: search.dev.metric.measure(table) for number, (table, _) in outcomes.items()}
    sign = 1.0 if search.dev.metric.is_higher_better else -1.0
    # higher is better
    finals = {number: sign * estimate.value for number, estimate in estimates.items()}
    lost = _measure_lost(search, {number: facts for number, (_, facts) in outcomes.items()})
    best = choose_best(finals, lost, search.settings.forget)
    on_test = _run_on_test_rows(search, trials[best].settings, is_default=not best)
    pairs = None if on_test.default is None else on_test.pair(search.test.metric)
    content = _build_content(search, trials, finals, best, pairs)
    content["base"] = _describe_base(search, on_test)
    if lost:
        content["general"] = describe_finalists(finals, lost, best, search.settings.forget)
    if search.settings.average:
        content["average"] = average_finalists(search, trials, finals, best, work)
    return Tuning(
        trials=_build_trial_table(trials, estimates),
        best=trials[best].settings,
        against_default=None if pairs is None else pairs.estimate_effect(),
        content=content,
        path=None,
        manifest=_build_manifest(search, identity, clock),
    )


def _build_manifest(search: Search, identity: str, clock: RunClock) -> Manifest:
    settings = search.settings
    return Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": identity,
            "is_complete": not search.unfinished,
            **describe_experiment(search.test),
            **describe_inputs(search.test),
            "dev": {"rows": len(search.dev.test), "fingerprint": search.dev.test.fingerprint},
            "asked": {
                "trials": settings.trials,
                "finalists": search.n_finalists,
                "checks": settings.checks,
                "seeds": settings.seeds,
                "average": settings.average,
                "dev": search.dev.eval_name,
                "sampler": settings.sampler,
                "seed": settings.seed,
            },
            "run": {**clock.to_json(), **describe_places(search.test)},
        }
    )


def _measure_lost(search: Search, facts: Mapping[int, Mapping[str, Any]]) -> dict[int, Gain]:
    """Return what each finalist forgets of the general rows; empty where none are given."""
    before = measure_untouched_losses(search.dev)
    if before is None:
        return {}
    lost = {number: estimate_lost(before, [each["general_loss"]]) for number, each in facts.items()}
    return {number: each for number, each in lost.items() if each is not None}


def choose_best(finals: Mapping[int, float], lost: Mapping[int, Gain], allowed: float) -> int:
    """Return the winner: the best final value among those that forget no more than is allowed.

    Where all forget more, it is the one that forgets least.

    Args:
        finals: value at the end by trial, higher being better.
        lost: on general rows, by trial; empty where that was not measured.
        allowed: in bits per byte.
    """
    fitting = [number for number in finals if not lost or lost[number].value <= allowed]
    if not fitting:
        return min(finals, key=lambda number: (lost[number].value, number))
    return max(fitting, key=lambda number: (finals[number], -number))


def _run_finalists(search: Search, trials: Sequence[TrialResult]) -> dict[int, tuple[pl.DataFrame, Mapping[str, Any]]]:
    """Run the best trials and the default to the end; return outcomes and facts of each."""
    sign, seed = 1.0 if search.dev.metric.is_higher_better else -1.0, search.settings.seed
    early = {number: sign * trial.early for number, trial in enumerate(trials) if trial.early is not None}
    if not early:
        raise InputError(f"tune: all {len(trials)} trials failed; the first one by {trials[0].reason}")
    order = sorted(early, key=lambda number: (-early[number], number))
    best, others = order[: search.n_finalists], order[search.n_finalists :]
    checks = np.random.default_rng(seed).permutation(others)[: search.settings.checks]
    chosen = sorted({*best, *map(int, checks), *([0] if 0 in early else [])})
    settings = [trials[number].settings for number in chosen]
    names = [f"trial {number}, to the end" for number in chosen]
    outcomes = run_settings(search, search.dev, settings, [seed] * len(settings), names, stage="trials to the end")
    finished = {
        number: (outcome.outcomes, outcome.facts)
        for number, outcome in zip(chosen, outcomes, strict=True)
        if outcome.outcomes is not None
    }
    if not finished:
        search.require_finished()
        raise InputError(f"tune: no finalist ran to the end; the first one failed by {outcomes[0].reason}")
    return finished


@dataclass(frozen=True)
class _TestRuns:
    """Outcomes on the test rows by seed, None where a run failed.

    Attributes:
        winner: of the winning settings.
        default: of the default settings; None where these are the winner.
    """

    winner: list[pl.DataFrame | None]
    default: list[pl.DataFrame | None] | None

    def pair(self, metric: Metric) -> PairedRuns | None:
        """Return the runs of both with the same seeds; None below two pairs."""
        pairs = PairedRuns.match(metric, self.winner, self.default or [])
        return pairs if len(pairs) >= 2 else None

    def list_tables(self) -> dict[str, list[pl.DataFrame]]:
        """Return the outcomes of the runs that finished, by side; no side without any."""
        sides = {"winner": self.winner, "default": self.default or []}
        finished = {side: [table for table in tables if table is not None] for side, tables in sides.items()}
        return {side: tables for side, tables in finished.items() if tables}


def _run_on_test_rows(search: Search, chosen: TrainSettings, *, is_default: bool) -> _TestRuns:
    """Run the winner and, unless it is the winner, the default on the test rows, same seeds."""
    seeds = search.seeds
    sides = ("winner",) if is_default else ("winner", "default")
    names = [f"{side} on the test rows, seed {seed}" for side in sides for seed in seeds]
    settings = [chosen] * len(seeds)
    if not is_default:
        settings += [search.test.resolve_settings(seed=search.settings.seed)] * len(seeds)
    outcomes = run_settings(search, search.test, settings, seeds * len(sides), names, stage=" and ".join(sides))
    tables = [outcome.outcomes for outcome in outcomes]
    return _TestRuns(tables[: len(seeds)], None if is_default else tables[len(seeds) :])


def _build_content(
    search: Search,
    trials: Sequence[TrialResult],
    finals: Mapping[int, float],
    best: int,
    pairs: PairedRuns | None,
) -> dict[str, Any]:
    """Return the content of `tune.json`."""
    metric, test = search.test.metric, None
    verdict = "the winner could not be compared on the test set" if best else "the default settings won the search"
    if pairs is not None:
        effect, (winner, default) = pairs.estimate_effect(), pairs.compute_means()
        test = {"winner": winner, "default": default, "difference": asdict(effect)}
        verdict = describe_effect(effect, effect.p, pairs.unit)
    return {
        "metric": metric.name,
        "is_higher_better": metric.is_higher_better,
        "best_trial": best,
        "best_settings": trials[best].settings.to_json(),
        "early_share": EARLY,
        "dev_rows": len(search.dev.test),
        "unknown_labels": search.test.unknown_labels,
        "unfinished": search.unfinished,
        "agreement": measure_agreement(trials, finals, is_higher_better=metric.is_higher_better),
        "test": test,
        "verdict": verdict,
    }


def _describe_base(search: Search, on_test: _TestRuns) -> dict[str, Any] | None:
    """Return the untouched model beside winner and default on the test rows."""
    tables = on_test.list_tables()
    references = measure_references(
        search.test, [each for side in tables.values() for each in side], search.on_progress
    )
    if references is None:
        return None
    runs = {(side, len(search.test.pool)): by_seed for side, by_seed in tables.items()}
    return describe_gains(search.test, references, runs)


def measure_agreement(
    trials: Sequence[TrialResult], finals: Mapping[int, float], *, is_higher_better: bool
) -> dict[str, Any]:
    """Return how well the early order held among the trials that ran to the end.

    Args:
        trials: all of them.
        finals: value at the end by trial, higher being better.
        is_higher_better: direction of the early values.
    """
    from scipy.stats import spearmanr

    sign = 1.0 if is_higher_better else -1.0
    numbers = sorted(finals)
    early = [sign * float(trials[number].early or 0.0) for number in numbers]
    late = [finals[number] for number in numbers]
    is_known = len(numbers) >= 3 and len(set(early)) > 1 and len(set(late)) > 1
    early_top, late_top = (
        {number for _, number in sorted(zip(values, numbers, strict=True), key=lambda pair: (-pair[0], pair[1]))[:TOP]}
        for values in (early, late)
    )
    return {
        "n": len(numbers),
        "rank_correlation": float(spearmanr(early, late).statistic) if is_known else None,
        "top_five_kept": len(early_top & late_top) if len(numbers) > TOP else None,
    }


def _build_trial_table(trials: Sequence[TrialResult], finals: Mapping[int, Estimate]) -> pl.DataFrame:
    names = ("adapter", "learning_rate", "lora_rank", "lora_alpha", "lora_dropout", "batch_size", "epochs")
    lines = [
        {
            "trial": number,
            **{name: getattr(trial.settings, name) for name in names},
            "early": trial.early,
            "early_stderr": trial.early_stderr,
            "final": finals[number].value if number in finals else None,
            "final_stderr": finals[number].stderr if number in finals else None,
            "status": "failed" if trial.early is None else "done",
            "reason": trial.reason,
        }
        for number, trial in enumerate(trials)
    ]
    return pl.DataFrame(lines, schema_overrides=TRIAL_SCHEMA)


def read_tuning(path: str | Path) -> Tuning:
    """Read the folder of a search.

    Raises:
        ManifestError: the folder is not one that `tune` wrote.
    """
    folder = Path(path)
    manifest, content = read_result(folder, KIND, "a search for settings", RESULT)
    against = None if content["test"] is None else Effect(**content["test"]["difference"])
    return Tuning(
        trials=read_table(folder / TRIALS, schema=TRIAL_SCHEMA),
        best=TrainSettings.read(content["best_settings"]),
        against_default=against,
        content=content,
        path=folder,
        manifest=manifest,
    )
