"""Worth it? Which rows? How many? What did it break? One call asks all of it, in order.

    OUT/clean     the pool without duplicates and leaks (`curate`)
    OUT/curve     the untouched model and the learning curve (`curve`)
    OUT/subset    the rows (`select`)
    OUT/adapter   the adapter, beside one on random rows (`train`)

Each folder is what the single command writes, so a killed call continues where it was, and nothing
is computed twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from thresher.artifacts.folder import MANIFEST, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.seal import encode_record
from thresher.curation.curate import curate
from thresher.dataset import Dataset
from thresher.errors import OutputError
from thresher.experiments.advice.answers import answer_questions
from thresher.experiments.advice.settings import AdviceOptions, AdviceSettings
from thresher.experiments.curve import MIN_SIZES, LearningCurve
from thresher.experiments.experiment import Experiment, prepare_experiment
from thresher.experiments.learning_curve import learning_curve
from thresher.experiments.planning import list_doubling_sizes
from thresher.experiments.result_folder import RunClock
from thresher.experiments.settings import BASELINE
from thresher.experiments.tables import describe_experiment, describe_inputs, describe_places
from thresher.numeric.units import parse_seconds
from thresher.progress import OnProgress, Progress
from thresher.selection.run import select
from thresher.subset.subset import Subset
from thresher.trainer.adapter import Adapter
from thresher.trainer.context import PACKAGES
from thresher.trainer.train import train
from thresher.trainer.untouched.settings import UntouchedSettings
from thresher.validation import build_settings, document_options

KIND = "advice"
ADVICE = "advice.json"
AUTO_SHARE = "0.1"  # of the pool, at which `auto` decides for all sizes of the curve
CURVE_SHARE = 0.5  # of the time that is left, which the curve may take


@dataclass(frozen=True, kw_only=True)
class Advice:
    """What to do with a pool.

    Attributes:
        content: of `advice.json`: the answer to each question, the steps, and what is left out.
        path: of the folder.
        manifest: what ran.
    """

    content: Mapping[str, Any]
    path: Path
    manifest: Manifest

    def __str__(self) -> str:
        """Return each question with its answer."""
        return "\n".join(f"{each['question']} {each['answer']}" for each in self.content["answers"])


@dataclass
class _Steps:
    """The steps of a call: what they made, and which were left out."""

    out: Path
    settings: AdviceSettings
    on_progress: OnProgress | None
    started: float = field(default_factory=time.monotonic)
    left_out: list[str] = field(default_factory=list)

    @property
    def seconds_left(self) -> float | None:
        """Seconds until the limit, or None without one."""
        limit = self.settings.max_time
        return None if limit is None else parse_seconds(limit) - (time.monotonic() - self.started)

    def take(self, name: str, step: Callable[[Path], Any]) -> Any:
        """Run a step in its folder, or leave it out where the time is over; None then."""
        folder = self.out / name
        left = self.seconds_left
        if left is not None and left <= 0 and not (folder / MANIFEST).is_file():
            self.left_out.append(name)
            return None
        if self.on_progress is not None:
            self.on_progress(Progress(stage=name, done=0, total=1, note=f"{name}: {folder}"))
        return step(folder)


@document_options(AdviceSettings)
def advise(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[AdviceOptions],
) -> Advice:
    """Say whether training is worth it, on which rows, on how many, and what it breaks.

    Cleans the pool, measures the untouched model, walks the learning curve of the method that the
    rows allow (`auto` with labels, else random rows), chooses rows, and trains the adapter beside
    one on as many random rows. Each step is the folder of the single command.

    Args:
        pool: rows to choose from, anything `load` accepts.
        eval: rows to measure on, or a share of the pool to hold out ("10%").
        on_progress: listener.
        options: fields of `AdviceSettings`; `out` is required.

    Raises:
        InputError: pool and test set do not fit, or training failed.
        SettingsError: an option has an illegal value.
        OutputError: `out`, or the folder of a step, holds something else.
    """
    settings: AdviceSettings = build_settings(AdviceSettings, "advise", options)
    clock, out = RunClock(), Path(str(settings.out))
    _require_own_folder(out)
    out.mkdir(parents=True, exist_ok=True)
    experiment = prepare_experiment(
        pool,
        eval=eval,
        model=settings.model,
        settings=settings.settings,
        metric=settings.metric,
        overlap="drop",
        untouched=UntouchedSettings.take(settings),
        on_progress=on_progress,
    )
    steps = _Steps(out, settings, on_progress)
    content = _run_steps(steps, experiment)
    manifest = _build_manifest(experiment, settings, clock)
    write_atomic(out / ADVICE, encode_record(content))
    write_atomic(out / MANIFEST, manifest.to_json())
    return Advice(content=content, path=out, manifest=manifest)


def _require_own_folder(out: Path) -> None:
    """Refuse a folder that another command wrote.

    Raises:
        OutputError: it is one, or a file.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: must be a folder, found a file; give another --out")
    if (out / MANIFEST).is_file():
        kind = Manifest.read(out).content.get("kind")
        if kind != KIND:
            raise OutputError(f"{out}: must be empty or hold advice, found '{kind}'; give another --out")


def _run_steps(steps: _Steps, experiment: Experiment) -> dict[str, Any]:
    """Run the steps in order, and return the content of `advice.json`."""
    pool, force = experiment.pool, steps.settings.force
    clean = curate(pool, eval=experiment.test, out=steps.out / "clean", force=force, on_progress=steps.on_progress)
    rows = clean.dataset
    method = _choose_method(experiment, steps.settings)
    has_sizes = len(list_doubling_sizes(len(rows), n_classes=len(experiment.labels))) >= MIN_SIZES
    curve = steps.take("curve", partial(_measure_curve, steps, experiment, rows, method)) if has_sizes else None
    n_rows, how = choose_size(curve, method, len(rows))
    subset = select(
        rows,
        method,
        budget=n_rows,
        target=steps.settings.target if method == "auto" else None,
        out=steps.out / "subset",
        force=force,
        on_progress=steps.on_progress,
    )
    adapter = steps.take("adapter", partial(_train_adapter, steps, experiment, subset))
    return {
        "pool": {"given": len(pool), "clean": len(rows)},
        "dropped": dict(clean.manifest.content["counts"]["dropped_by_rule"]),
        "method": method,
        "rows": {"n": len(subset), "how": how},
        "left_out": steps.left_out,
        "answers": answer_questions(clean, curve, subset, adapter, how=how, left_out=steps.left_out),
    }


def _choose_method(experiment: Experiment, settings: AdviceSettings) -> str:
    """Return the method that there is something to decide by, else random rows."""
    return "auto" if experiment.labels or settings.target is not None else BASELINE


def _measure_curve(steps: _Steps, experiment: Experiment, rows: Dataset, method: str, folder: Path) -> LearningCurve:
    """Walk the learning curve of random rows, and of `auto` where labels let it decide."""
    settings, left = steps.settings, steps.seconds_left
    methods = [BASELINE, "auto"] if method == "auto" and experiment.labels else [BASELINE]
    return learning_curve(
        rows,
        eval=experiment.test,
        methods=methods,
        method_settings={"auto": {"share": AUTO_SHARE}} if "auto" in methods else None,
        seeds=settings.seeds,
        max_time=None if left is None else max(1.0, CURVE_SHARE * left),
        **_take_options(settings, experiment),
        base=settings.base,
        shots=settings.shots,
        workers=settings.workers,
        out=folder,
        force=settings.force,
        on_progress=steps.on_progress,
    )


def _take_options(settings: AdviceSettings, experiment: Experiment) -> dict[str, Any]:
    """Return what is trained, as the options of an experiment."""
    return {"model": experiment.model, "metric": experiment.metric.name, "settings": settings.settings}


def choose_size(curve: LearningCurve | None, method: str, n_pool: int) -> tuple[int, str]:
    """Return how many rows to train on, and why: what the curve says is enough, else all of them.

    Args:
        curve: of the pool, or None where the time was over.
        method: that will choose the rows; where the curve does not have it, random rows answer.
        n_pool: rows of the clean pool.
    """
    if curve is None:
        return n_pool, "all rows: there is no curve, as the time was over or the rows are too few for one"
    enough = curve.enough.get(method) or curve.enough.get(BASELINE)
    if enough is None or enough.verdict != "enough":
        said = "" if enough is None else f" ({enough})"
        return n_pool, f"all rows: the curve does not say that fewer are enough{said}"
    return min(n_pool, enough.high), f"the upper end of what the curve says is enough: {enough}"


def _train_adapter(steps: _Steps, experiment: Experiment, subset: Subset, folder: Path) -> Adapter:
    """Train on the rows, beside as many random rows where they are fewer than the pool."""
    settings = steps.settings
    has_control = len(subset) < len(subset.pool) and subset.scores.by != BASELINE
    return train(
        subset,
        model=experiment.model,
        eval=experiment.test,
        control="auto" if has_control else "none",
        settings=settings.settings,
        out=folder,
        force=settings.force,
        base=settings.base,
        shots=settings.shots,
        general=settings.general,
        forget=settings.forget,
        scale=settings.scale,
    )


def _build_manifest(experiment: Experiment, settings: AdviceSettings, clock: RunClock) -> Manifest:
    asked = {"target": None if settings.target is None else str(settings.target), "seeds": settings.seeds}
    described = describe_experiment(experiment)
    return Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": digest({"experiment": described, "asked": asked}),
            **described,
            "asked": {**asked, "max_time": settings.max_time},
            **describe_inputs(experiment),
            "versions": versions(PACKAGES),
            "run": {**clock.to_json(), **describe_places(experiment)},
        }
    )
