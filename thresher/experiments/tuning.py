"""Which training settings are best? Bayesian search, judged early; the best few run to the end.

Oliver and Wang 2024 (arXiv:2407.13906) saw four of the five best trials at 20 % of the training
time among the five best at its end. Every trial is a cell that stops at that share; how well the
early order held is reported, not assumed.
"""

from __future__ import annotations

import importlib.util
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic, write_csv
from thresher.artifacts.manifest import FORMAT, Manifest
from thresher.errors import InputError, ManifestError, MissingExtraError, SettingsError
from thresher.evaluation.effect import Effect, estimate_effect
from thresher.evaluation.estimate import Estimate
from thresher.experiments.adapter_averaging import average_finalists
from thresher.experiments.cells.cache import CellCache
from thresher.experiments.cells.worker_pool import WorkerPool, default_workers
from thresher.experiments.comparison import sentence
from thresher.experiments.experiment import Overlap, prepare_experiment
from thresher.experiments.search import EARLY, Search, Tried, run_settings, run_trials
from thresher.experiments.tables import describe_experiment, input_content, input_places
from thresher.trainer.settings import TrainSettings

if TYPE_CHECKING:
    from thresher.features import Progress

KIND = "tuning"
TRIALS, RESULT, STUDY = "trials.csv", "tune.json", "study.db"
TRIAL_SCHEMA: dict[str, Any] = {  # columns of the table of trials that may be empty at its start
    "early": pl.Float64,
    "early_stderr": pl.Float64,
    "final": pl.Float64,
    "final_stderr": pl.Float64,
    "reason": pl.String,
}
TOP = 5
DEFAULTS = TrainSettings()


@dataclass(frozen=True, kw_only=True)
class Tuning:
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


def tune(
    data: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    trials: int = 20,
    finalists: int = TOP,
    checks: int = 3,
    seeds: int = 3,
    average: int = 0,
    dev: str | float = "15%",
    model: str | Path | None = None,
    metric: str | None = None,
    settings: TrainSettings = DEFAULTS,
    sampler: Literal["tpe", "gp"] = "tpe",
    overlap: Overlap = "refuse",
    seed: int = 0,
    workers: int | None = 1,
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Tuning:
    """Search for learning rate, rank, alpha, dropout, batch size and epochs.

    Args:
        data: rows to train on, anything `load` accepts.
        eval: test rows; the search does not see them, they judge the winner against the default.
        trials: settings to try; the first are the default ones.
        finalists: the best trials, by their early value, that run to the end.
        checks: further trials, drawn at random, that run to the end too: without them, nothing
            could be said of how far early values can be trusted.
        seeds: runs of the winner and of the default on the test set, at least 2.
        average: finalists whose adapters are averaged into one and compared with the winner, which
            trains each of them on all rows with every seed; 0 for none. The mean adapter is kept in
            the folder `averaged`.
        dev: share of the data that is held out to judge trials.
        model: Hub id or folder of the base model; not set: the embedded one.
        metric: as for `learning_curve`; with a value per row.
        settings: of the training, where they are not searched.
        sampler: "tpe" (tree-structured Parzen estimator) or "gp" (Gaussian process).
        overlap: a test row that is also in the data is refused ("refuse"), or taken out of the data
            ("drop").
        seed: of the search.
        workers: trials at once; None for one per core or GPU.
        out: folder for the result.
        force: replace an earlier result in `out`.
        on_progress: listener.

    Raises:
        InputError: the rows do not fit.
        SettingsError: a setting has an illegal value.
        MissingExtraError: optuna is not installed.
        OutputError: `out` holds something else.
    """
    if importlib.util.find_spec("optuna") is None:
        raise MissingExtraError("optuna", "tune", "tune")
    if sampler not in ("tpe", "gp"):
        raise SettingsError(f"tune: sampler must be tpe or gp, got '{sampler}'")
    whole = (("trials", trials, 2), ("finalists", finalists, 1), ("seeds", seeds, 2), ("checks", checks, 0))
    for name, value, least in whole:
        if isinstance(value, bool) or not isinstance(value, int) or value < least:
            raise SettingsError(f"tune: {name} must be a whole number of at least {least}, got {value}")
    test = prepare_experiment(data, eval=eval, model=model, settings=settings, metric=metric, overlap=overlap)
    judged = prepare_experiment(test.pool, eval=dev, model=model, settings=settings, metric=test.metric.name)
    if test.metric.column is None:
        raise InputError(f"tune: {test.metric.name} has no value per row to pair; choose accuracy or loss")
    if isinstance(average, bool) or (average and not 2 <= average <= finalists + checks + 1):
        raise SettingsError(
            f"tune: average must be 0 or between 2 and the {finalists + checks + 1} trials that run to the end, "
            f"got {average}"
        )
    with WorkerPool(CellCache(), default_workers() if workers is None else workers) as worker_pool:
        search = Search(
            dev=judged,
            test=test,
            n_trials=trials,
            n_finalists=min(finalists, trials),
            n_checks=checks,
            n_seeds=seeds,
            n_averaged=average,
            sampler=sampler,
            seed=seed,
            worker_pool=worker_pool,
            on_progress=on_progress,
        )
        return _run(search, out=out, force=force)


def _run(search: Search, *, out: str | Path | None, force: bool) -> Tuning:
    started, began, named = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds"), search.identity()
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(OutputFolder(out, identity=named, force=force))
        if folder is not None and folder.is_done:
            return read_tuning(folder.path)
        tried = run_trials(search, None if folder is None else folder.work / STUDY)
        made = _finish(search, tried)
        sign = 1.0 if search.dev.metric.is_higher_better else -1.0
        finals = {number: sign * found.value for number, found in made.items()}  # higher is better
        best = max(finals, key=lambda number: (finals[number], -number))
        chosen = tried[best].settings
        against, values = _against_default(search, chosen) if best else (None, {})
        content = _content(search, tried, finals, best, against, values)
        if search.n_averaged:
            with ExitStack() as temporary:
                work = Path(temporary.enter_context(TemporaryDirectory())) if folder is None else folder.work
                content["average"] = average_finalists(search, tried, finals, best, search.n_averaged, work)
        table = _table(tried, made)
        manifest = _manifest(search, named, began=began, started=started)
        if folder is None:
            return Tuning(
                trials=table, best=chosen, against_default=against, content=content, path=None, manifest=manifest
            )
        write_csv(table, folder.work / TRIALS)
        write_atomic(folder.work / RESULT, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")
        write_atomic(folder.work / MANIFEST, manifest.to_json())
        folder.publish()
        return read_tuning(folder.path)


def _manifest(search: Search, named: str, *, began: str, started: float) -> Manifest:
    return Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": named,
            **describe_experiment(search.test),
            **input_content(search.test),
            "dev": {"rows": len(search.dev.test), "fingerprint": search.dev.test.fingerprint},
            "asked": {
                "trials": search.n_trials,
                "finalists": search.n_finalists,
                "checks": search.n_checks,
                "seeds": search.n_seeds,
                "average": search.n_averaged,
                "dev": search.dev.eval_name,
                "sampler": search.sampler,
                "seed": search.seed,
            },
            "run": {
                "created": began,
                "seconds": round(time.monotonic() - started, 3),
                **input_places(search.test),
            },
        }
    )


def _finish(search: Search, tried: Sequence[Tried]) -> dict[int, Estimate]:
    """Run the best trials and the default to the end; return their values on the rows held out of the data."""
    sign = 1.0 if search.dev.metric.is_higher_better else -1.0
    early = {number: sign * trial.early for number, trial in enumerate(tried) if trial.early is not None}
    if not early:
        raise InputError(f"tune: all {len(tried)} trials failed; the first one by {tried[0].reason}")
    order = sorted(early, key=lambda number: (-early[number], number))
    rest = order[search.n_finalists :]
    drawn = np.random.default_rng(search.seed).permutation(rest)[: search.n_checks]
    chosen = sorted({*order[: search.n_finalists], *map(int, drawn), *([0] if 0 in early else [])})
    settings = [tried[number].settings for number in chosen]
    names = [f"trial {number}, to the end" for number in chosen]
    outcomes = run_settings(
        search, search.dev, settings, [search.seed] * len(settings), names, stage="trials to the end"
    )
    finals = {
        number: search.dev.metric.measure(outcome.outcomes)
        for number, outcome in zip(chosen, outcomes, strict=True)
        if outcome.outcomes is not None
    }
    if not finals:
        raise InputError(f"tune: no finalist ran to the end; the first one failed by {outcomes[0].reason}")
    return finals


def _against_default(search: Search, chosen: TrainSettings) -> tuple[Effect | None, dict[str, float]]:
    """Run winner and default on the test set, with the same seeds."""
    metric, seeds = search.test.metric, list(range(search.seed, search.seed + search.n_seeds))
    base = search.test.request(search.test.pool.take(np.arange(1)), seed=search.seed).settings
    wanted = [chosen] * len(seeds) + [base] * len(seeds)
    names = [f"{side} on the test rows, seed {seed}" for side in ("winner", "default") for seed in seeds]
    made = run_settings(search, search.test, wanted, seeds * 2, names, stage="winner and default")
    runs = [outcome.outcomes for outcome in made]
    pairs = [
        (ours, theirs)
        for ours, theirs in zip(runs[: len(seeds)], runs[len(seeds) :], strict=True)
        if ours is not None and theirs is not None
    ]
    if len(pairs) < 2:
        return None, {}
    sides = dict(zip(("winner", "default"), zip(*pairs, strict=True), strict=True))
    values = {side: float(np.mean([metric.measure(run).value for run in of_side])) for side, of_side in sides.items()}
    ours, theirs = (np.stack([metric.per_row(run) for run in of_side]) for of_side in sides.values())
    weights = metric.weights(pairs[0][0])
    return estimate_effect(ours, theirs, weights, is_higher_better=metric.is_higher_better), values


def _content(
    search: Search,
    tried: Sequence[Tried],
    finals: Mapping[int, float],
    best: int,
    against: Effect | None,
    values: Mapping[str, float],
) -> dict[str, Any]:
    metric = search.test.metric
    return {
        "metric": metric.name,
        "is_higher_better": metric.is_higher_better,
        "best_trial": best,
        "best_settings": tried[best].settings.to_json(),
        "early_share": EARLY,
        "dev_rows": len(search.dev.test),
        "agreement": agreement(tried, finals, is_higher_better=metric.is_higher_better),
        "test": None if against is None else {**values, "difference": asdict(against)},
        "verdict": "the default settings won the search"
        if not best
        else "the winner could not be compared on the test set"
        if against is None
        else sentence(against, against.p, is_rate=metric.name != "loss"),
    }


def agreement(tried: Sequence[Tried], finals: Mapping[int, float], *, is_higher_better: bool) -> dict[str, Any]:
    """Return how well the early order held among the trials that ran to the end.

    Args:
        tried: all trials.
        finals: value at the end by trial, higher being better.
        is_higher_better: direction of the early values.
    """
    from scipy.stats import spearmanr

    sign = 1.0 if is_higher_better else -1.0
    numbers = sorted(finals)
    early = [sign * float(tried[number].early or 0.0) for number in numbers]
    late = [finals[number] for number in numbers]
    is_known = len(numbers) >= 3 and len(set(early)) > 1 and len(set(late)) > 1
    top = {n for _, n in sorted(zip(early, numbers, strict=True), key=lambda pair: (-pair[0], pair[1]))[:TOP]}
    still = {n for _, n in sorted(zip(late, numbers, strict=True), key=lambda pair: (-pair[0], pair[1]))[:TOP]}
    return {
        "n": len(numbers),
        "rank_correlation": float(spearmanr(early, late).statistic) if is_known else None,
        "top_five_kept": len(top & still) if len(numbers) > TOP else None,
    }


def _table(tried: Sequence[Tried], finals: Mapping[int, Estimate]) -> pl.DataFrame:
    names = ("learning_rate", "lora_rank", "lora_alpha", "lora_dropout", "batch_size", "epochs")
    lines = [
        {
            "trial": number,
            **{name: getattr(trial.settings, name) for name in names},
            "early": trial.early,
            "early_stderr": trial.early_stderr,
            "final": None if number not in finals else finals[number].value,
            "final_stderr": None if number not in finals else finals[number].stderr,
            "status": "failed" if trial.early is None else "done",
            "reason": trial.reason,
        }
        for number, trial in enumerate(tried)
    ]
    return pl.DataFrame(lines, schema_overrides=TRIAL_SCHEMA)


def read_tuning(path: str | Path) -> Tuning:
    """Read the folder of a search.

    Raises:
        ManifestError: the folder is not one that `tune` wrote.
    """
    folder = Path(path)
    manifest = Manifest.read(folder)
    if manifest.content.get("kind") != KIND:
        raise ManifestError(f"{folder}: must be a search for settings, found '{manifest.content.get('kind')}'")
    content = json.loads((folder / RESULT).read_bytes())
    against = None if content["test"] is None else Effect(**content["test"]["difference"])
    return Tuning(
        trials=pl.read_csv(folder / TRIALS, schema_overrides=TRIAL_SCHEMA),
        best=TrainSettings(**content["best_settings"]),
        against_default=against,
        content=content,
        path=folder,
        manifest=manifest,
    )
