"""`th.select`: with `pilot="train"`, short trainings decide which method chooses, and it does."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar, cast

from thresher.dataset.values.given_settings import GivenSettings
from thresher.errors import InputError
from thresher.models.settings import ModelSettings
from thresher.progress import OnProgress, Progress
from thresher.selection import run
from thresher.selection.request import SelectCall
from thresher.selection.settings import SelectSettings
from thresher.subset.budget import parse_budget
from thresher.subset.subset import Subset
from thresher.validation import split_options

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.experiments.advice.pilot import Pilot
    from thresher.experiments.experiment import Experiment

Select = TypeVar("Select", bound=Callable[..., Subset])
WORKERS = "auto"
PLACES = ("out", "force", "engine", "address", "partitions")  # not of the choice


def with_pilot(function: Select) -> Select:
    """Return `selection.run.select` with the pilot that trains, which that layer cannot run."""

    @wraps(function)
    def call(pool: Any, method: Any = "auto", *, on_progress: OnProgress | None = None, **options: Any) -> Subset:
        if options.get("pilot", "none") == "none":
            return function(pool, method, on_progress=on_progress, **options)
        own = {name: value for name, value in options.items() if name in PLACES}
        call_options = {name: value for name, value in options.items() if name not in PLACES}
        settings, given, models = split_options("select", call_options, SelectSettings, GivenSettings, ModelSettings)
        _refuse_decided(method, settings, given, own)
        rows, target = _load(pool), None if settings.target is None else _load(settings.target)
        decision = train_pilot(rows, settings, models, target=target, on_progress=on_progress)
        from thresher.experiments.rankings import MethodName

        named = MethodName.parse(decision["chosen"])
        selector = named.build({})
        is_read = named.name == "auto" or "target" in selector.requirements.side_features
        chosen = {"pilot": "none", "quota": named.quota, "target": target if is_read else None}
        decided = SelectCall.of_options(rows, selector, {**call_options, **chosen}, on_progress)
        return run.select_here(decided, own.get("out"), force=own.get("force", False), trained_pilot=decision)

    return cast(Select, call)


def _load(rows: Any) -> Dataset:
    from thresher.trainer.context import load_rows

    return load_rows(rows)


def _refuse_decided(method: Any, settings: SelectSettings, given: GivenSettings, own: Mapping[str, Any]) -> None:
    """Refuse what leaves a pilot nothing to decide, or what it does not look at.

    Raises:
        InputError: there is such an option.
    """
    problems = {
        f"decides on the method, got also '{method}'; leave --method or --pilot out": method != "auto",
        "decides on the method, got also settings of one; leave --set, --by and --quota out": bool(
            settings.method_settings or settings.quota is not None
        ),
        "trains on the rows alone, got also embeddings or probabilities; leave them out": (
            given.embeddings is not None or given.pred_probs is not None
        ),
        "compares methods without the rows that you have, got also existing; leave --existing out": (
            settings.existing is not None
        ),
        "runs on this machine, got another engine; leave --engine out": own.get("engine", "local") != "local",
        "runs on this machine, got an address or partitions of a cluster; leave --address and --partitions out": (
            own.get("address") is not None or own.get("partitions") is not None
        ),
        f"needs a number of rows or a share as the budget, got {settings.budget}": (
            parse_budget(settings.budget).unit not in ("rows", "share")
        ),
    }
    for problem, is_there in problems.items():
        if is_there:
            raise InputError(f"pilot: {problem}")


def train_pilot(
    rows: Dataset,
    settings: SelectSettings,
    models: ModelSettings,
    *,
    target: Dataset | None,
    on_progress: OnProgress | None,
) -> dict[str, Any]:
    """Return which method short trainings decide on, why, and what each of them was worth.

    The runs are cells of the cache, so that a killed pilot goes on where it was.

    Args:
        rows: of the pool.
        settings: of the choice.
        models: whose `model` is trained.
        target: rows of the task, or None.
        on_progress: told what it takes, before a model is trained, and of each run.

    Raises:
        InputError: there are too few rows to judge, or a training failed.
    """
    from thresher.experiments.advice.pilot import decide, plan_pilot, run_pilot
    from thresher.experiments.experiment import load_experiment
    from thresher.experiments.settings import BASELINE, ExperimentSettings

    asked = ExperimentSettings(model=models.model, overlap="drop", device=models.device)
    experiment = load_experiment(rows, eval="10%" if target is None else target, settings=asked)
    most = parse_budget(settings.budget).n_rows(len(rows), unusable=rows.rejected_by_reason)
    pilot = plan_pilot(rows, experiment, target=target, most=most)
    if on_progress is not None:
        on_progress(Progress(stage="pilot", done=0, total=1, note=f"pilot: {describe_pilot(pilot, experiment)}"))
    with tempfile.TemporaryDirectory(prefix="thresher-pilot-") as folder:
        comparison = run_pilot(
            pilot,
            experiment,
            Path(folder) / "pilot",
            workers=WORKERS,
            on_progress=on_progress,
            encoder=models.encoder,
            device=models.device,
        )
    is_judged = bool(experiment.labels) or target is not None
    return decide(comparison, pilot, otherwise="auto" if is_judged else BASELINE)


def estimate_pilot(pilot: Pilot, experiment: Experiment, workers: Any = WORKERS) -> float:
    """Return the seconds that a pilot takes, from a few steps on this machine."""
    from thresher.experiments.cells.worker_pool import count_workers
    from thresher.experiments.design.dry_run import measure_experiment, plan_runs
    from thresher.trainer.context import NOTHING

    short = replace(experiment, settings=pilot.settings, test=pilot.judges, untouched=NOTHING)
    planned = plan_runs("pilot", short, measure_experiment(short), [pilot.n_rows] * pilot.n_runs)
    return planned.seconds / count_workers(workers, experiment.settings.device)


def describe_pilot(pilot: Pilot, experiment: Experiment) -> str:
    """Return how many trainings a pilot takes, and how long."""
    from thresher.numeric.units import format_duration

    return f"{pilot.n_runs} short trainings, about {format_duration(estimate_pilot(pilot, experiment))}"


select = with_pilot(run.select)
