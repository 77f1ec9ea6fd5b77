"""The arrow from rows to an adapter: hold out, train, measure, compare with random rows."""

from __future__ import annotations

import importlib.util
import os
import time
import weakref
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any, Literal, Unpack

from thresher.artifacts.folder import OutputFolder
from thresher.artifacts.manifest import digest
from thresher.artifacts.scratch import make_scratch_folder
from thresher.dataset.rejection import describe_rejected
from thresher.errors import InputError, MissingExtraError, OutputError
from thresher.numeric.units import format_count
from thresher.trainer.adapter import Adapter
from thresher.trainer.events import OnEvent, TrainEvent, ignore
from thresher.trainer.settings import TrainSettings
from thresher.trainer.tracking.tracker import Tracker
from thresher.trainer.untouched.settings import UntouchedOptions, UntouchedSettings
from thresher.trainer.weights import JOB_WEIGHT
from thresher.validation import build_settings, document_options

if TYPE_CHECKING:
    from thresher.trainer.context import RunContext

__all__ = ["Adapter", "TrainSettings", "train"]

DEFAULTS = TrainSettings()


@document_options(UntouchedSettings)
def train(
    data: Any,
    *,
    model: str | Path | None = None,
    eval: Any = None,  # noqa: A002 - the name of the command's option
    control: Any = "auto",
    seeds: int = 1,
    out: str | Path | None = None,
    task: Literal["auto", "sft", "classification", "text"] = "auto",
    settings: TrainSettings = DEFAULTS,
    seed: int = 0,
    merge: bool = False,
    diagnose: bool = False,
    start_from: str | Path | None = None,
    force: bool = False,
    report_to: str | None = None,
    on_event: OnEvent | None = None,
    **untouched: Unpack[UntouchedOptions],
) -> Adapter:
    """Train a LoRA adapter, and measure it on held-out rows.

    If the pool that the rows were selected from is known, an adapter is also trained on the same
    number of random rows from it (same number of steps, same seeds), and both are reported side by
    side. After a kill, the same call continues from the last checkpoint and gives the same bytes.
    Under `accelerate launch` or `torchrun` the processes share each step.

    Args:
        data: a Subset, a Dataset, or anything `load` accepts (also a folder that `select` wrote).
        model: Hub id or folder of the base model, "smollm2" or "tiny"; default: MiniLM for
            classification, SmolLM2-135M-Instruct for sft and text.
        eval: rows to measure on (anything `load` accepts), or a share to hold out ("5%" or 0.05);
            default: none.
        control: "auto" (random rows of the pool of a Subset, when there are held-out rows), "none",
            or the pool itself.
        seeds: number of repetitions, with seed, seed + 1, ...; the adapter is that of the first.
        out: folder for the result; default: a temporary one that goes with the returned object.
        task: default: by the kind of the data.
        settings: of the training.
        seed: random seed.
        merge: also write the full model, with the adapter merged in, to `merged/`.
        diagnose: also say which layers moved, and which of their leading directions are new
            (intruder dimensions), in `diagnosis` of the metrics.
        start_from: folder of an adapter to continue from, on the same base; the one on random rows
            starts from it, too; default: a fresh one.
        force: replace an earlier result in `out`.
        report_to: trackers that get each run: "wandb", "mlflow", "trackio", "tensorboard", several
            with commas.
        on_event: called with a TrainEvent at each step.
        untouched: fields of `UntouchedSettings`.

    Raises:
        InputError: the rows, the model or the held-out rows do not fit.
        SettingsError: a setting does not fit the model or the machine.
        NotFoundError: there is no such model, or it cannot be reached.
        MissingExtraError: the packages of the extra `train` are not installed.
        OutputError: `out` holds something else.
    """
    started = time.monotonic()
    _require_packages()
    from thresher.trainer.context import resolve_run

    listener = ignore if on_event is None else on_event
    tracker = _open_tracker(report_to, out, listener)
    config = {"model": str(model), "task": task, "control": str(control)[:200], **settings.to_json()}
    context = resolve_run(
        data,
        model=model,
        eval=eval,
        control=control,
        seeds=seeds,
        task=task,
        settings=settings,
        seed=seed,
        is_merged=merge,
        is_diagnosed=diagnose,
        start_from=start_from,
        untouched=build_settings(UntouchedSettings, "train", untouched),
        on_event=tracker.follow(listener, config),
    )
    context.untouched.check_rows(context.task, has_held_out=context.split.held_out is not None)
    adapter = (
        _run_in_scratch(context, started) if out is None else _run(context, Path(out), force=force, started=started)
    )
    tracker.finish_training(adapter.metrics, config, is_main=context.accelerator.is_main_process)
    return adapter


def _run_in_scratch(context: RunContext, started: float) -> Adapter:
    """Run in a temporary folder, which goes with the adapter."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise InputError("out: several processes need one folder for the result, got none; give --out")
    temporary = make_scratch_folder()
    try:
        adapter = _run(context, temporary / "adapter", force=False, started=started)
    except BaseException:
        rmtree(temporary, ignore_errors=True)
        raise
    weakref.finalize(adapter, rmtree, temporary, ignore_errors=True)
    return adapter


def _open_tracker(report_to: str | None, out: str | Path | None, listener: OnEvent) -> Tracker:
    name = f"{datetime.now(UTC):%Y-%m-%d %H.%M.%S}" if out is None else Path(out).name
    return Tracker(report_to, f"train {name}", lambda note: listener(TrainEvent(kind="note", message=note)))


def _require_packages() -> None:
    for package in ("torch", "transformers", "peft", "accelerate", "matplotlib"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "train", "train")


def _run(context: RunContext, out: Path, *, force: bool, started: float) -> Adapter:
    """Open the output folder on the first process, run, and publish; the others only compute."""
    from thresher.trainer.engine.processes import broadcast_from_main, require_shared
    from thresher.trainer.result import write_result
    from thresher.trainer.runs import run_all
    from thresher.trainer.untouched.measure import measure_untouched

    accelerator = context.accelerator
    identity = digest(context.identity())
    folder = OutputFolder(out, identity=identity, force=force)
    if not accelerator.is_main_process:
        is_done = broadcast_from_main(None)
        if isinstance(is_done, OutputError):
            raise is_done
        require_shared(folder.path if is_done else folder.work, accelerator)
        if not is_done:
            measure_untouched(context)
            run_all(context, folder.work, has_answers=True)
        accelerator.wait_for_everyone()
        return Adapter.read(folder.path)
    began = datetime.now(UTC).isoformat(timespec="seconds")
    with ExitStack() as stack:
        try:
            stack.enter_context(folder)
        except OutputError as error:
            broadcast_from_main(error)  # the other processes wait for word
            raise
        broadcast_from_main(folder.is_done)
        require_shared(folder.path if folder.is_done else folder.work, accelerator)
        if not folder.is_done:
            _announce_rows(context)
            untouched = measure_untouched(context)
            runs = run_all(context, folder.work, has_answers=True)
            facts = {
                "started": began,
                "seconds": round(time.monotonic() - started, 3),
                "device": str(accelerator.device),
                "processes": accelerator.num_processes,
            }
            write_result(context, runs, untouched, folder.work, identity=identity, facts=facts)
            folder.publish()
    accelerator.wait_for_everyone()
    return Adapter.read(folder.path)


def _announce_rows(context: RunContext) -> None:
    """Tell how rows were read, which cannot be used, and which ask held-out questions."""
    split = context.split
    messages = [
        f"{name}: {format_count(rows.n_read, 'row')} read ({rows.kind}; {rows.schema.describe(rows.column_names)})"
        for name, rows in context.loaded.items()
    ]
    for name, by_reason in context.unusable.items():
        n_usable = len(context.data) if name == "data" else len(split.held_out or ())
        messages.append(f"{name}: {describe_rejected(n_usable + sum(by_reason.values()), by_reason)}")
    if split.n_leaked:
        messages.append(
            f"{format_count(split.n_leaked, 'row')} left out of training, as a held-out row asks the same "
            f"({split.leaks})"
        )
    if context.settings.weight is None and JOB_WEIGHT in context.data.column_names:
        messages.append(
            f"the rows have job weights, which are not used: each row counts once; --weight {JOB_WEIGHT} "
            f"weights each by the rows it represents"
        )
    messages += [note for rows in context.loaded.values() for note in rows.notes]
    for message in messages:
        context.on_event(TrainEvent(kind="note", message=message))
