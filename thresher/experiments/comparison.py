"""Is any selector better than random on these rows? Each against random, with the same seeds on the same test set."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic
from thresher.artifacts.manifest import Manifest
from thresher.errors import InputError, ManifestError, SettingsError
from thresher.evaluation.effect import LEVEL, Effect, adjust_p_values, estimate_effect, estimate_seeds_needed
from thresher.experiments.experiment import Overlap
from thresher.experiments.rankings import check_methods
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.tables import (
    CELL_SCHEMA,
    cell_table,
    cost_table,
    experiment_manifest,
    identity,
    write_tables,
)
from thresher.subset.budget import parse_budget
from thresher.trainer.settings import TrainSettings

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features import Progress

KIND = "comparison"
BASELINE, LENGTH = "random", "length"
CELLS, COMPARISON = "cells.csv", "comparison.json"
DEFAULTS = TrainSettings()


@dataclass(frozen=True, kw_only=True)
class PairwiseResult:
    """One method at one budget against random.

    Attributes:
        method: name.
        n_rows: rows trained on.
        effect: paired difference to random, positive where the method is better.
        p_holm: adjusted for all methods and budgets of the comparison.
        sentence: in words.
        seeds_needed: to see `detect` with these test rows; None where they are too few, however
            many the seeds.
        select_seconds: mean over seeds, features included (as spent now: cached ones cost nothing).
        train_seconds: mean over seeds.
        net: the effect net of selection time, with its interval; None where only one budget was
            measured.
    """

    method: str
    n_rows: int
    effect: Effect
    p_holm: float
    sentence: str
    seeds_needed: int | None
    select_seconds: float
    train_seconds: float
    net: Mapping[str, float] | None


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """Selectors against random.

    Attributes:
        cells: one row per cell, as in `LearningCurve`.
        verdicts: of every method and budget but random itself.
        content: of `comparison.json`.
        path: of the folder, or None when none was asked for.
        manifest: what ran.
    """

    cells: pl.DataFrame
    verdicts: tuple[PairwiseResult, ...]
    content: Mapping[str, Any]
    path: Path | None
    manifest: Manifest

    def __str__(self) -> str:
        """Return one sentence per method and budget."""
        return "\n".join(f"{v.method}, {v.n_rows:,} rows: {v.sentence}" for v in self.verdicts)


def compare(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    methods: str | Sequence[str] = "all",
    budget: str | int | float | Sequence[str | int | float] = "10%",
    seeds: int = 5,
    detect: float = 0.01,
    model: str | Path | None = None,
    metric: str | None = None,
    equal: Literal["epochs", "steps"] = "steps",
    settings: TrainSettings = DEFAULTS,
    method_settings: Mapping[str, Mapping[str, Any]] | None = None,
    encoder: str | None = None,
    device: str | None = None,
    overlap: Overlap = "refuse",
    workers: int | None = 1,
    engine: str = "local",
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Comparison:
    """Compare selectors with random at given budgets, with the same seeds on the same test set.

    Args:
        pool: rows to choose from, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out ("10%").
        methods: names of selectors, as a list or with commas, or "all" that ask no language model
            and find their columns in the pool; random and length are always among them.
        budget: rows or a share, one or several.
        seeds: runs of each method at each budget, at least 2.
        detect: true difference for which the number of needed seeds is reported.
        model: Hub id or folder of the base model; not set: the embedded one.
        metric: with a value per row: accuracy or loss; loss, exact_match, rouge_l or chrf for
            language models.
        equal: "steps": all cells of a budget train for as many optimizer steps; "epochs": for as
            many epochs.
        settings: of the training.
        method_settings: of the selectors, by name.
        encoder: as for `select`.
        device: as for `select`.
        overlap: a test row that is also in the pool is refused ("refuse"), or taken out of the pool
            ("drop").
        workers: processes that run cells at once; None for one per core or GPU.
        engine: "local", or "ray" for a Ray cluster.
        out: folder for the result; cells are kept in the cache either way.
        force: replace an earlier result in `out`.
        on_progress: listener.

    Raises:
        InputError: pool, test set, budgets or methods do not fit.
        NotFoundError: there is no such method, metric or model.
        SettingsError: a setting has an illegal value.
        OutputError: `out` holds something else.
    """
    if isinstance(seeds, bool) or not isinstance(seeds, int | np.integer) or seeds < 2:
        raise SettingsError(
            f"compare: seeds must be a whole number of at least 2, because their spread is the error bar, got {seeds}"
        )
    if not 0 < detect < 1:
        raise SettingsError(f"compare: detect must be between 0 and 1, in units of the metric, got {detect}")
    if equal not in ("epochs", "steps"):
        raise SettingsError(f"compare: equal must be 'epochs' or 'steps', got '{equal}'")
    names = _methods(methods, method_settings or {})
    with ExperimentRunner.open(
        pool,
        eval=eval,
        model=model,
        metric=metric,
        settings=settings,
        overlap=overlap,
        method_settings=method_settings,
        select_options={"encoder": encoder, "device": device},
        workers=workers,
        engine=engine,
        on_progress=on_progress,
    ) as runner:
        if runner.experiment.metric.column is None:
            raise InputError(
                f"compare: {runner.experiment.metric.name} has no value per row to pair; choose accuracy or loss"
            )
        sizes = _sizes(budget, len(runner.experiment.pool))
        if methods == "all":
            names = [name for name in names if _has_columns(name, method_settings or {}, runner.experiment.pool)]
        asked = {"methods": names, "budgets": sizes, "seeds": seeds, "equal": equal, "detect": detect}
        return _run(runner, asked, out=out, force=force)


def _run(runner: ExperimentRunner, asked: dict[str, Any], *, out: str | Path | None, force: bool) -> Comparison:
    started, began = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    named = identity(runner, asked)
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(OutputFolder(out, identity=named, force=force))
        if folder is not None and folder.is_done:
            return read_comparison(folder.path)
        experiment = runner.experiment
        for size in asked["budgets"]:
            if asked["equal"] == "steps":
                runner.set_equal_steps(size)
            wanted = [(m, size, seed) for seed in range(asked["seeds"]) for m in asked["methods"]]
            runner.run(wanted, largest=asked["budgets"][-1])
        runner.experiment = experiment  # the manifest tells what was asked, not the steps of the last budget
        runner.require_results()
        verdicts = judge(runner, detect=asked["detect"])
        content = {
            "metric": runner.experiment.metric.name,
            "is_higher_better": runner.experiment.metric.is_higher_better,
            "budgets": asked["budgets"],
            "baseline": BASELINE,
            "level": LEVEL,
            "values": _values(runner),
            "verdicts": [_as_json(verdict) for verdict in verdicts],
            "failed": [
                {"method": name[0], "n_rows": name[1], "seed": name[2], "reason": outcome.reason}
                for name, outcome in sorted(runner.outcomes.items())
                if outcome.reason is not None
            ],
        }
        manifest = experiment_manifest(runner, KIND, named, asked, began=began, started=started)
        if folder is None:
            return Comparison(
                cells=cell_table(runner), verdicts=tuple(verdicts), content=content, path=None, manifest=manifest
            )
        work = folder.work
        write_tables(runner, work, CELLS)
        write_atomic(work / COMPARISON, json.dumps(content, indent=2, allow_nan=False).encode() + b"\n")
        write_atomic(work / MANIFEST, manifest.to_json())
        folder.publish()
        return read_comparison(folder.path)


def judge(runner: ExperimentRunner, *, detect: float) -> list[PairwiseResult]:
    """Return the verdict on every method and budget, from the seeds that finished on both sides."""
    found: list[tuple[str, int, Effect, int | None]] = []
    metric = runner.experiment.metric
    asked = sorted({name[:2] for name in runner.outcomes if name[0] != BASELINE})
    for method, size in asked:
        ours, theirs, weights = runner.paired(method, BASELINE, size)
        if len(ours) >= 2:
            n_tests = len(asked)
            made = estimate_effect(ours, theirs, weights, is_higher_better=metric.is_higher_better, n_tests=n_tests)
            needed = estimate_seeds_needed(ours, theirs, weights, gain=detect, n_tests=n_tests)
            found.append((method, size, made, needed))
    adjusted = adjust_p_values([entry[2].p for entry in found])
    costs = cost_table(runner).group_by("method", "n_rows").agg(pl.col("select_seconds", "train_seconds").mean())
    seconds = {(m, n): (s, t) for m, n, s, t in costs.iter_rows()}
    return [
        PairwiseResult(
            method=method,
            n_rows=size,
            effect=made,
            p_holm=p,
            sentence=sentence(made, p, is_rate=metric.name != "loss"),
            seeds_needed=needed,
            select_seconds=round(seconds[method, size][0], 3),
            train_seconds=round(seconds[method, size][1], 3),
            net=net_of_selection(runner, made, size, *seconds[method, size]),
        )
        for (method, size, made, needed), p in zip(found, adjusted, strict=True)
    ]


def net_of_selection(
    runner: ExperimentRunner, made: Effect, n_rows: int, select_seconds: float, train_seconds: float
) -> dict[str, float] | None:
    """Return the effect against random rows that got the time of choosing too, as further rows to train on.

    How much those rows would gain is read off random's own scores: straight lines between the
    measured budgets on a log scale of rows, and the last one on beyond them.

    Args:
        runner: with finished cells.
        made: the effect at equal numbers of rows.
        n_rows: that number.
        select_seconds: spent on choosing.
        train_seconds: spent on training.

    Returns:
        `value`, `low`, `high`, `random_rows` (those random could train on in the same time); None
        where random was measured at one budget only.
    """
    scores = {size: runner.mean(BASELINE, size) for size in sorted({name[1] for name in runner.outcomes})}
    known = [(size, score) for size, score in scores.items() if score is not None]
    if len(known) < 2 or not train_seconds:
        return None
    wanted = n_rows * (1 + select_seconds / train_seconds)
    sizes, values = np.log([size for size, _ in known]), np.array([score for _, score in known])
    slope = (values[-1] - values[-2]) / (sizes[-1] - sizes[-2])
    reached = float(np.interp(np.log(wanted), sizes, values)) + slope * max(0.0, float(np.log(wanted) - sizes[-1]))
    gain = (reached - float(np.interp(np.log(n_rows), sizes, values))) * (
        1 if runner.experiment.metric.is_higher_better else -1
    )
    ends = {name: float(getattr(made, name) - gain) for name in ("value", "low", "high")}
    return {**ends, "random_rows": float(round(wanted))}


def is_clear(made: Effect, p_holm: float) -> bool:
    """Tell whether a difference stands: after Holm's correction, and with an interval that leaves out zero."""
    return p_holm < LEVEL and not made.low <= 0 <= made.high


def sentence(made: Effect, p_holm: float, *, is_rate: bool) -> str:
    """Return the verdict in words: rates in points (hundredths), losses in nats per token."""
    factor, unit = (100.0, "points") if is_rate else (1.0, "nats")
    digits = 1 if is_rate else 3
    if not made.stderr > 0 and made.value == 0:
        return "no difference at all: both gave the same outcomes"
    if not is_clear(made, p_holm):
        if is_rate and made.detectable >= 1:  # beyond any difference that two rates can have
            return "no difference seen; with so few runs and test rows, none could have been"
        return f"no difference seen; {made.detectable * factor:.{digits}f} {unit} would have been detectable"
    is_better = made.value > 0
    value, low, high = (made.value, made.low, made.high) if is_better else (-made.value, -made.high, -made.low)
    word = "better" if is_better else "worse"
    return f"{word} by {value * factor:.{digits}f} {unit} [{low * factor:.{digits}f}, {high * factor:.{digits}f}]"


def read_comparison(path: str | Path) -> Comparison:
    """Read a comparison's folder.

    Raises:
        ManifestError: the folder is not one that `compare` wrote.
    """
    folder = Path(path)
    manifest = Manifest.read(folder)
    if manifest.content.get("kind") != KIND:
        raise ManifestError(f"{folder}: must be a comparison, found '{manifest.content.get('kind')}'")
    content = json.loads((folder / COMPARISON).read_bytes())
    cells = pl.read_csv(folder / CELLS, schema_overrides=CELL_SCHEMA)
    verdicts = tuple(_from_json(entry) for entry in content["verdicts"])
    return Comparison(cells=cells, verdicts=verdicts, content=content, path=folder, manifest=manifest)


def _as_json(verdict: PairwiseResult) -> dict[str, Any]:
    made = asdict(verdict)
    parts = made.pop("effect")
    return {**made, "difference": parts}


def _from_json(entry: Mapping[str, Any]) -> PairwiseResult:
    rest = {k: v for k, v in entry.items() if k != "difference"}
    return PairwiseResult(effect=Effect(**entry["difference"]), **rest)


def _values(runner: ExperimentRunner) -> list[dict[str, Any]]:
    """Return mean and standard error of every method and budget, random among them."""
    found = []
    for method, size in sorted({name[:2] for name in runner.outcomes}):
        mean, n_seeds = runner.mean(method, size), len(runner.tables(method, size))
        if mean is not None:
            stderr = runner.stderr(method, size)
            found.append({"method": method, "n_rows": size, "value": mean, "stderr": stderr, "n_seeds": n_seeds})
    return found


def _methods(methods: str | Sequence[str], settings: Mapping[str, Mapping[str, Any]]) -> list[str]:
    from thresher.selectors import available

    if methods == "all":
        asked = [name for name in available() if not _needs_model(name, settings)]
    else:
        asked = methods.split(",") if isinstance(methods, str) else list(methods)
        asked = [name.strip() for name in asked if name.strip()]
    others = [name for name in asked if name != BASELINE]
    if not others:
        raise InputError(f"compare: at least one method beside {BASELINE} is needed, got {asked}")
    names = list(dict.fromkeys([BASELINE, *others, LENGTH] if others != [LENGTH] else [BASELINE, LENGTH]))
    check_methods(names, settings, "compare")
    return names


def _needs_model(name: str, settings: Mapping[str, Mapping[str, Any]]) -> bool:
    """Tell whether a method asks a language model, which "all" does not pay for unasked."""
    from thresher.selectors import create

    known = {"embedding", "length", "ngram"}
    needs = create(name, settings.get(name)).needs
    return any(need not in known and not need.startswith("column:") for need in needs)


def _has_columns(name: str, settings: Mapping[str, Mapping[str, Any]], pool: Dataset) -> bool:
    """Tell whether the pool has the columns that a method groups rows by; "all" leaves it out where not."""
    from thresher.selectors import create

    there = {"source", *pool.column_names, *(["label"] if pool.kind == "classification" else [])}
    needs = create(name, settings.get(name)).needs
    return {need.removeprefix("column:") for need in needs if need.startswith("column:")} <= there


def _sizes(budget: str | int | float | Sequence[str | int | float], n_pool: int) -> list[int]:
    wanted = [budget] if isinstance(budget, str | int | float) else list(budget)
    wanted = [part for entry in wanted for part in (entry.split(",") if isinstance(entry, str) else [entry])]
    sizes = set()
    for entry in wanted:
        parsed = parse_budget(entry)
        if parsed.unit not in ("rows", "share"):
            raise InputError(f"compare: the budget must be rows or a share, so that all sides get as many, got {entry}")
        sizes.add(parsed.n_rows(n_pool))
    if not sizes:
        raise InputError("compare: at least one budget is needed, got none")
    return sorted(sizes)
