"""Worth it? Which rows? How many? What did it break? One call asks all of it, in order.

    OUT/clean     the pool without duplicates and leaks (`curate`)
    OUT/pilot     short trainings of several methods, with --pilot train (`compare`)
    OUT/curve     the untouched model and the learning curve (`curve`)
    OUT/subset    the rows (`select`)
    OUT/adapter   the adapter, beside one on random rows (`train`)

Each folder is what the single command writes, so a killed call continues where it was, and nothing
is computed twice.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Unpack

from thresher.artifacts.folder import MANIFEST, write_atomic
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.result import Result
from thresher.artifacts.seal import encode_record
from thresher.curation.curate import curate
from thresher.dataset import Dataset
from thresher.errors import OutputError
from thresher.evaluation.classification import describe_common_label, describe_unknown_labels
from thresher.experiments.advice.answers import answer_questions
from thresher.experiments.advice.choose import estimate_pilot
from thresher.experiments.advice.curve_plan import CurvePlan, fit_into_time, plan_without_limit
from thresher.experiments.advice.pilot import decide, plan_pilot, run_pilot
from thresher.experiments.advice.settings import AdviceOptions, AdviceSettings
from thresher.experiments.advice.size import choose_size, foresee_whole_pool
from thresher.experiments.advice.steps import Steps
from thresher.experiments.curve import LearningCurve
from thresher.experiments.experiment import Experiment, load_experiment
from thresher.experiments.learning_curve import learning_curve
from thresher.experiments.rankings import MethodName
from thresher.experiments.result_folder import RunClock, read_result
from thresher.experiments.settings import BASELINE
from thresher.experiments.tables import describe_experiment, describe_inputs, describe_places
from thresher.numeric.units import format_duration
from thresher.progress import OnProgress, Progress
from thresher.selection.run import select
from thresher.subset.subset import Subset
from thresher.trainer.adapter import Adapter
from thresher.trainer.context import PACKAGES, load_rows
from thresher.trainer.events import TrainEvent
from thresher.trainer.train import train
from thresher.validation import build_settings, document_options

KIND = "advice"
ADVICE = "advice.json"
AUTO_SHARE = "0.1"  # of the pool, at which `auto` decides for all sizes of the curve
PILOT_SHARE = 1 / 3  # of the time, which the pilot may take
QUESTION = ".question"  # file with the identity of what is asked


@dataclass(frozen=True, kw_only=True, repr=False)
class Advice(Result):
    """What to do with a pool.

    Attributes:
        content: of `advice.json`: the answer to each question, the steps, and what is left out.
        path: of the folder.
        manifest: what ran.
    """

    content: Mapping[str, Any]
    path: Path
    manifest: Manifest

    def list_facts(self) -> list[tuple[str, str]]:
        """Return each question with its answer."""
        return [(each["question"], each["answer"]) for each in self.content["answers"]]


def read_advice(folder: str | Path) -> Advice:
    """Read the folder of `advise`.

    Raises:
        ManifestError: the folder is not one that `advise` wrote.
    """
    path = Path(folder)
    manifest, content = read_result(path, KIND, "advice", ADVICE)
    return Advice(content=content, path=path, manifest=manifest)


@document_options(AdviceSettings)
def advise(
    pool: Any,
    *,
    eval: Any,  # noqa: A002 - the name of the command's option
    on_progress: OnProgress | None = None,
    **options: Unpack[AdviceOptions],
) -> Advice:
    """Say whether training is worth it, on which rows and how many, and what it breaks.

    Cleans the pool, measures the untouched model, runs the learning curve of the method that the
    rows allow (`auto` with labels, otherwise random rows), selects rows, and trains the adapter and
    one on the same number of random rows. Each step writes the same folder as its own command.

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
    clock, out = RunClock(), settings.require_out()
    _require_own_folder(out)
    experiment = load_experiment(pool, eval=eval, settings=replace(settings, overlap="drop"), on_progress=on_progress)
    manifest = _build_manifest(experiment, settings, clock)
    _claim_folder(out, str(manifest.content["identity"]), force=settings.force)
    content = _run_steps(Steps(out, experiment, settings, on_progress))
    manifest = _build_manifest(experiment, settings, clock)
    write_atomic(out / ADVICE, encode_record(content))
    write_atomic(out / MANIFEST, manifest.to_json())
    return Advice(content=content, path=out, manifest=manifest)


def _require_own_folder(out: Path) -> None:
    """Refuse a file, and a folder that holds anything else: with OutputError."""
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: must be a folder, found a file; give another --out")
    kind = Manifest.read(out).content.get("kind") if (out / MANIFEST).is_file() else None
    is_strange = kind is None and out.is_dir() and not (out / QUESTION).is_file() and any(out.iterdir())
    if is_strange or kind not in (None, KIND):
        found = f"'{kind}'" if kind else "other files"
        raise OutputError(f"{out}: must be empty or hold advice, found {found}; give another --out")


def _claim_folder(out: Path, identity: str, *, force: bool) -> None:
    """Keep what is asked in the folder, so that only the same question continues it.

    Raises:
        OutputError: the folder holds the steps of another question.
    """
    out.mkdir(parents=True, exist_ok=True)
    marker = out / QUESTION
    if marker.is_file() and marker.read_text() != identity and not force:
        raise OutputError(
            f"{out}: holds advice on other rows, or with other settings; give another --out, or replace it by --force"
        )
    write_atomic(marker, identity.encode())


def _run_steps(steps: Steps) -> dict[str, Any]:
    """Run the steps in order, and return the content of `advice.json`."""
    experiment, on_progress = steps.experiment, steps.on_progress
    pool, force = experiment.pool, steps.settings.force
    clean = curate(pool, eval=experiment.test, out=steps.out / "clean", force=force, on_progress=on_progress)
    rows = clean.dataset
    pilot = _take_pilot(steps, rows)
    method = choose_method(experiment, steps.settings) if pilot is None else pilot["chosen"]
    curve = _take_curve(steps, rows, method)
    size = choose_size(curve, method, len(rows), most=steps.most_rows, has_target=steps.settings.target is not None)
    whole = None if curve is None else foresee_whole_pool(curve, len(rows))
    missing = steps.describe_missing_curve(min(len(rows), steps.most_rows or len(rows)))
    # what the steps above have found may be new: then the folders below are replaced
    # where all rows are taken, no feature needs to be computed
    named = MethodName.parse(method if size.n_rows < len(rows) else BASELINE)
    selector = named.build({})
    is_read = named.name == "auto" or "target" in selector.requirements.side_features
    subset = select(
        rows,
        selector,
        quota=named.quota,
        budget=size.n_rows,
        target=steps.settings.target if is_read else None,
        encoder=steps.settings.encoder,
        device=steps.settings.device,
        out=steps.out / "subset",
        force=True,
        on_progress=on_progress,
    )
    adapter = steps.take("adapter", partial(_train_adapter, steps, subset), has_time_kept=steps.has_time_kept)
    return {
        "pool": {"given": len(pool), "clean": len(rows)},
        "dropped": dict(clean.manifest.content["counts"]["dropped_by_rule"]),
        "method": method,
        "pilot": pilot,
        "rows": {"n": len(subset), "how": size.reason, "whole_pool": None if whole is None else whole.to_json()},
        "left_out": steps.left_out,
        "answers": answer_questions(
            clean,
            curve,
            subset,
            adapter,
            how=[size.reason, missing, "" if whole is None else str(whole), _describe_labels(experiment)],
            why=pilot["why"] if pilot else None,
            left_out=steps.left_out,
            remark=describe_unknown_labels(experiment.unknown_labels, len(experiment.test), experiment.labels),
        ),
    }


def _describe_labels(experiment: Experiment) -> str:
    labels = experiment.test.frame["response"].to_list() if experiment.labels else []
    return describe_common_label(labels, experiment.metric.name)


def _take_pilot(steps: Steps, rows: Dataset) -> dict[str, Any] | None:
    """Race methods by short trainings if that is asked for and there is time; else None."""
    if steps.settings.pilot == "none":
        return None
    target = None if steps.settings.target is None else load_rows(steps.settings.target)
    pilot = plan_pilot(rows, steps.experiment, target=target, most=steps.most_rows)
    if not steps.is_done("pilot"):
        seconds = estimate_pilot(pilot, steps.experiment, steps.settings.workers)
        steps.report("pilot", f"{pilot.n_runs} short trainings, about {format_duration(seconds)}")
        if seconds > PILOT_SHARE * (steps.max_seconds or math.inf):
            steps.leave_out("pilot", f"it takes about {format_duration(seconds)}, more than a third of the time")
            return None
    race, settings = partial(run_pilot, pilot, steps.experiment, on_progress=steps.on_progress), steps.settings
    run = partial(
        race, workers=settings.workers, engine=settings.engine, device=settings.device, encoder=settings.encoder
    )
    comparison = steps.take("pilot", run)
    return (
        None
        if comparison is None
        else decide(comparison, pilot, otherwise=choose_method(steps.experiment, steps.settings))
    )


def choose_method(experiment: Experiment, settings: AdviceSettings) -> str:
    """Return the method that there is something to decide by, else random rows."""
    return "auto" if experiment.labels or settings.target is not None else BASELINE


def _take_curve(steps: Steps, rows: Dataset, method: str) -> LearningCurve | None:
    """Walk the learning curve that comes to an answer in the time; None where none does."""
    settings, experiment = steps.settings, steps.experiment
    most = min(len(rows), steps.most_rows or len(rows))
    plan = plan_without_limit(list(dict.fromkeys([BASELINE, method])), most, len(experiment.labels))
    if plan is None or not settings.curve:
        steps.is_too_small = settings.curve
        return None
    if steps.max_seconds is not None and (steps.seconds_left > 0 or steps.is_done("curve")):
        plan = steps.recall_plan() or fit_into_time(
            plan, experiment, seconds_left=steps.seconds_left, seeds=settings.seeds, workers=settings.workers
        )
        steps.keep_plan(plan)
        steps.has_time_kept = plan.kept > 0
        if not plan.fits:
            steps.missing_seconds = plan.needed - plan.allowed
            needed, allowed = format_duration(plan.needed), format_duration(plan.allowed)
            steps.leave_out("curve", f"the smallest one takes about {needed}, and there is time for {allowed}")
            return None
    curve: LearningCurve | None = steps.take("curve", partial(_measure_curve, steps, rows, plan))
    if curve is not None and (curve.content["is_cut_short"] or len(plan.methods) == 1 < len({BASELINE, method})):
        steps.left_out.append("the rest of the curve")
    return curve


def _measure_curve(steps: Steps, rows: Dataset, plan: CurvePlan, folder: Path) -> LearningCurve:
    """Walk the learning curve of the methods, up to the most rows that one would train on."""
    settings, experiment = steps.settings, steps.experiment
    is_race = "auto" in plan.methods and settings.target is None
    return learning_curve(
        rows,
        eval=experiment.test,
        methods=plan.methods,
        method_settings={"auto": {"share": AUTO_SHARE}} if is_race else None,
        target_rows=settings.target,
        encoder=settings.encoder,
        max_rows=plan.largest if plan.largest < len(rows) else None,
        seeds=settings.seeds,
        max_time=plan.allowed if math.isfinite(plan.allowed) else None,
        **take_options(settings, experiment),
        base=settings.base,
        shots=settings.shots,
        workers=settings.workers,
        engine=settings.engine,
        out=folder,
        force=True,
        on_progress=steps.on_progress,
    )


def take_options(settings: AdviceSettings, experiment: Experiment) -> dict[str, Any]:
    """Return what is trained, as the options of an experiment."""
    return {"model": experiment.model, "metric": experiment.metric.name, "settings": settings.settings}


def _train_adapter(steps: Steps, subset: Subset, folder: Path) -> Adapter:
    """Train on the rows, beside as many random rows where they are fewer than the pool."""
    settings, experiment = steps.settings, steps.experiment
    has_control = len(subset) < len(subset.pool) and subset.scores.by != BASELINE

    def show(event: TrainEvent) -> None:
        if steps.on_progress is not None and (event.kind in ("start", "step") or event.message):
            steps.on_progress(
                Progress(stage=event.stage, done=event.step, total=event.n_steps, note=event.message or None)
            )

    return train(
        subset,
        model=experiment.model,
        eval=experiment.test,
        control="auto" if has_control else "none",
        settings=settings.settings,
        out=folder,
        force=True,
        on_event=show,
        base=settings.base,
        shots=settings.shots,
        general=settings.general,
        forget=settings.forget,
        scale=settings.scale,
    )


def _build_manifest(experiment: Experiment, settings: AdviceSettings, clock: RunClock) -> Manifest:
    target = None if settings.target is None else load_rows(settings.target)
    asked = {
        "budget": None if settings.budget is None else str(settings.budget),
        "no_curve": not settings.curve,
        "pilot": settings.pilot,
        "encoder": settings.encoder,
        "seeds": settings.seeds,
    }
    described = describe_experiment(experiment)
    question = {"experiment": described, "asked": asked, "target": None if target is None else target.fingerprint}
    places = {} if target is None else {"target": [source.path for source in target.sources]}
    return Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": digest(question),
            **described,
            "asked": {**asked, "max_time": settings.max_time},
            **describe_inputs(experiment),
            "versions": versions(PACKAGES),
            "run": {**clock.to_json(), **describe_places(experiment), **places},
        }
    )
