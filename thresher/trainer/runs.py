"""The runs of one call of `train`: each role and seed; their files wait until all are done."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from shutil import copyfile, rmtree
from typing import Any

import polars as pl

from thresher.artifacts.disk_errors import delete_folder, writing_safetensors
from thresher.artifacts.folder import atomic_file, write_atomic, write_parquet
from thresher.artifacts.seal import find_damage, hash_files, read_record, seal_record
from thresher.artifacts.stored import read_table
from thresher.dataset import Dataset
from thresher.evaluation.held_out import classification_metrics, language_metrics
from thresher.models.causal_lm.chat_template import write_start_into_template
from thresher.models.causal_lm.language_model import GENERATION_CONFIG
from thresher.trainer.context import RunContext
from thresher.trainer.diagnosis import diagnose_adapter
from thresher.trainer.engine.checkpoint import History
from thresher.trainer.engine.fit import TrainedModel, count_steps, fit, load_trained_model
from thresher.trainer.engine.lora import merge_adapter, save_adapter
from thresher.trainer.engine.pooled_classifier import PooledClassifier, write_merged_classifier
from thresher.trainer.engine.tokenization import Examples, require_rows
from thresher.trainer.events import TrainEvent
from thresher.trainer.held_out import HeldOut, prepare_held_out
from thresher.trainer.novel_tokens import keep_novel_tokens
from thresher.trainer.split import sample_rows
from thresher.trainer.untouched.base_vectors import measure_probe
from thresher.trainer.untouched.forgetting import ANSWERS, LOSSES, GeneralOutcomes, measure_general
from thresher.trainer.untouched.general import GeneralSet, prepare_general
from thresher.trainer.untouched.probe import add_probe
from thresher.trainer.untouched.scale import choose_scale, keep_scale, measure_front
from thresher.trainer.weights import weigh_examples

MAIN, CONTROL = "main", "control"
PREDICTIONS, DONE, ADAPTER = "predictions.parquet", "done.json", "adapter"
SCALE = "scale.json"
DIAGNOSIS = "diagnosis.json"
SKIPPED = "skipped.parquet"
PROBE = "probe.parquet"  # of a classifier, until its run is finished
RUNS = ".runs"  # in the work folder, until the result is written


@dataclass(frozen=True, kw_only=True)
class FinishedRun:
    """One finished run.

    Attributes:
        role: "main" for the given rows, "control" for random ones.
        seed: of the run.
        folder: where its files wait for the result to be written.
        history: of the training.
        counts: of the rows it learned from.
        outcomes: one row per held-out row, or None without held-out rows.
        eval_counts: of the held-out rows, or None without any.
        general: what the model does on rows that are not of the task, or None without any.
        front: `scale` and `points` of the adapter's strengths, or None where not measured.
        diagnosis: what training did to the weights, or None where not asked for.
        skipped: loss of each row by epoch, and whether it was passed over; None without skipping.
    """

    role: str
    seed: int
    folder: Path
    history: History
    counts: dict[str, Any]
    outcomes: pl.DataFrame | None
    eval_counts: dict[str, int] | None
    general: GeneralOutcomes | None = None
    front: dict[str, Any] | None = None
    diagnosis: dict[str, Any] | None = None
    skipped: pl.DataFrame | None = None

    @cached_property
    def held_out(self) -> dict[str, Any] | None:
        """The held-out metrics as JSON values, or None without held-out rows."""
        if self.outcomes is None:
            return None
        is_classification = "correct" in self.outcomes.columns
        return classification_metrics(self.outcomes) if is_classification else language_metrics(self.outcomes)


def run_all(context: RunContext, work: Path, *, has_answers: bool = False) -> list[FinishedRun]:
    """Train and measure every role and seed; what a killed call finished is read back.

    Args:
        context: of the call.
        work: folder that survives a kill.
        has_answers: whether the result also answers questions that are not of the task.
    """
    examples = _tokenize_train(context)
    held_out, general = prepare_held_out(context), prepare_general(context, has_answers=has_answers)
    n_steps = count_steps(len(examples), context.settings)  # of the control too, on whatever rows
    plain = replace(context, settings=context.settings.plain)  # of a control of the same rows
    runs = []
    for seed in context.seeds:
        sides = {MAIN: examples}
        if context.split.is_control_same:
            sides[CONTROL] = _tokenize_train(plain)
        elif context.split.control is not None:
            sides[CONTROL] = _sample_control(context, context.split.control, len(examples), seed=seed)
        for role, rows in sides.items():
            own = plain if context.split.is_control_same and role == CONTROL else context
            runs.append(_run(own, rows, (held_out, general), work / RUNS / f"{role}-{seed}", role, seed, n_steps))
    context.accelerator.wait_for_everyone()  # all have read the runs' files before they are deleted
    return runs


def measure_adapter(context: RunContext, adapter: Path) -> pl.DataFrame:
    """Measure an adapter that exists already as `run_all` would: one row per held-out row.

    Args:
        context: with held-out rows; its training rows and seeds are not used.
        adapter: peft folder of an adapter on the context's base.
    """
    held_out = prepare_held_out(context)
    if held_out is None:
        raise AssertionError("nothing to measure on")
    return held_out.measure(load_trained_model(context, adapter).to(context.accelerator.device))


def _tokenize_train(context: RunContext) -> Examples:
    rows = context.split.train
    examples = tokenize_rows(context, rows)
    require_rows(examples, "train", n_vocabulary=context.base.n_vocabulary)
    return examples


def tokenize_rows(context: RunContext, rows: Dataset) -> Examples:
    """Return what is learned of some rows: their tokens, and how much each row counts."""
    # rows that weigh nothing have no say in which tokens are novel
    return keep_novel_tokens(context, weigh_examples(context.tokenize(rows), rows, context.settings.weight))


def _sample_control(context: RunContext, pool: Dataset, n_rows: int, *, seed: int) -> Examples:
    """Sample rows until as many are usable as on the other side, or the pool is used up."""
    n_sampled = n_rows
    while True:
        rows = sample_rows(pool, n_sampled, seed=seed)
        examples = tokenize_rows(context, rows)
        if len(examples) == n_rows or n_sampled >= len(pool):
            break
        n_sampled += n_rows - len(examples)
    require_rows(examples, "control", n_vocabulary=context.base.n_vocabulary)
    return examples


def _run(
    context: RunContext,
    examples: Examples,
    measured: tuple[HeldOut | None, GeneralSet | None],
    folder: Path,
    role: str,
    seed: int,
    n_steps: int,
) -> FinishedRun:
    """Train and measure once, unless that is done already."""
    accelerator, name, (held_out, general) = context.accelerator, f"{role}/seed-{seed}", measured
    history, damage = _read_done(folder)
    accelerator.wait_for_everyone()  # all processes have looked before one of them is done
    if damage is not None and accelerator.is_main_process:
        delete_folder(folder)
        context.on_event(TrainEvent(kind="note", run=name, message=f"{damage}; this run is trained again"))
    accelerator.wait_for_everyone()
    if history is None:
        is_result = role == MAIN and seed == context.seeds[0]
        trained, outcomes = _train_and_measure(context, examples, measured, folder, name, seed, n_steps)
        lost = None if general is None else measure_general(context, general, trained.model, has_answers=is_result)
        if accelerator.is_main_process:
            _write_run(context, folder, trained, (outcomes, lost), is_result=is_result)
            context.on_event(TrainEvent(kind="done", run=name, step=trained.history.step, n_steps=n_steps))
        accelerator.wait_for_everyone()
        history, _ = _read_done(folder)
    if history is None:
        raise AssertionError(f"{folder} has no {DONE} of the run that has just ended")
    predictions = folder / PREDICTIONS
    return FinishedRun(
        role=role,
        seed=seed,
        folder=folder,
        history=history,
        counts=examples.counts(),
        outcomes=read_table(predictions) if predictions.is_file() else None,
        eval_counts=None if held_out is None else held_out.counts(),
        general=None if general is None else read_general(folder),
        front=_read_if_there(folder / SCALE),
        diagnosis=_read_if_there(folder / DIAGNOSIS),
        skipped=read_table(folder / SKIPPED) if (folder / SKIPPED).is_file() else None,
    )


def _read_if_there(path: Path) -> dict[str, Any] | None:
    return dict(json.loads(path.read_bytes())) if path.is_file() else None


def _train_and_measure(
    context: RunContext,
    examples: Examples,
    measured: tuple[HeldOut | None, GeneralSet | None],
    folder: Path,
    name: str,
    seed: int,
    n_steps: int,
) -> tuple[TrainedModel, pl.DataFrame | None]:
    """Train once, and return the model with its outcomes, and a classifier's probe beside them."""
    held_out, general = measured
    if held_out is None:
        return fit(context, examples.rows, seed=seed, folder=folder, run=name, n_steps=n_steps), None
    is_main = context.accelerator.is_main_process

    def keep_probe(model: Any) -> None:
        outcomes = measure_probe(held_out, model)
        if is_main:
            folder.mkdir(parents=True, exist_ok=True)
            with atomic_file(folder / PROBE) as part:
                write_parquet(outcomes, part)

    trained = fit(
        context,
        examples.rows,
        seed=seed,
        folder=folder,
        run=name,
        n_steps=n_steps,
        evaluate=held_out.measure_loss,
        on_probe=keep_probe,
    )
    if context.untouched.scale != "trained" and general is not None:
        front = measure_front(context, held_out, general, trained.model)
        chosen = choose_scale(front, context.untouched.forget) if context.untouched.scale == "auto" else 1.0
        keep_scale(trained.model, chosen)
        if is_main:
            folder.mkdir(parents=True, exist_ok=True)
            content = {"scale": chosen, "points": [point.to_json() for point in front]}
            write_atomic(folder / SCALE, json.dumps(content).encode())
    outcomes = held_out.measure_all(trained.model)
    if context.task == "classification" and is_main:
        probe = folder / PROBE  # goes with the checkpoints: a run killed here goes on from both
        outcomes = add_probe(outcomes, read_table(probe) if probe.is_file() else None)
    return trained, outcomes


def read_general(folder: Path) -> GeneralOutcomes:
    """Read what a finished run's model does on rows that are not of the task."""
    return GeneralOutcomes(read_table(folder / LOSSES), read_table(folder / ANSWERS))


def _read_done(folder: Path) -> tuple[History | None, str | None]:
    """Return the history of a finished run, or None, and what is wrong with its files, if anything.

    A run of an earlier version has no seal, and is read as it is.
    """
    if not (folder / DONE).is_file():
        return None, None
    damage = find_damage(folder, DONE)
    if damage is not None:
        return None, damage
    try:
        return History(**read_record(folder / DONE)), None
    except TypeError as error:
        return None, f"{folder / DONE}: must be the history of a run, found '{error}'"


def _write_run(
    context: RunContext,
    folder: Path,
    trained: TrainedModel,
    measured: tuple[pl.DataFrame | None, GeneralOutcomes | None],
    *,
    is_result: bool,
) -> None:
    """Write what a run leaves, the mark that it is done last, and delete what it went on from."""
    folder.mkdir(parents=True, exist_ok=True)
    outcomes, lost = measured
    if outcomes is not None:
        write_parquet(outcomes, folder / PREDICTIONS)
    if lost is not None:
        write_parquet(lost.losses, folder / LOSSES)
        write_parquet(lost.answers, folder / ANSWERS)
    if trained.skipped is not None:
        write_parquet(trained.skipped, folder / SKIPPED)
    if is_result and context.is_diagnosed:  # before the adapter may be merged
        write_atomic(folder / DIAGNOSIS, json.dumps(diagnose_adapter(trained.model)).encode())
    if is_result:
        with writing_safetensors(folder / ADAPTER):
            _write_adapter(context, trained.model, folder / ADAPTER)
    files = {name: checksum for name, checksum in hash_files(folder).items() if not _is_intermediate(name)}
    write_atomic(folder / DONE, json.dumps(seal_record(vars(trained.history), files)).encode())
    for path in [*folder.glob("*.safetensors"), folder / PROBE]:
        path.unlink(missing_ok=True)


def _is_intermediate(name: str) -> bool:
    """Tell whether a file is a checkpoint or the probe, which are of no use once a run is done."""
    return name == PROBE or ("/" not in name and name.endswith(".safetensors"))


def _write_adapter(context: RunContext, model: Any, folder: Path) -> None:
    rmtree(folder, ignore_errors=True)
    save_adapter(model, folder)
    tokenizer = write_start_into_template(context.tokenizer) if context.task == "sft" else context.tokenizer
    tokenizer.save_pretrained(folder)
    if context.is_merged:
        merged = merge_adapter(model)
        merged.config.use_cache = True  # it was off for training, and would make generation slow
        if isinstance(merged, PooledClassifier):
            write_merged_classifier(merged, folder / "merged", max_length=int(context.settings.max_length or 0))
        else:
            _write_merged(merged, context.base.folder, folder / "merged")
        tokenizer.save_pretrained(folder / "merged")


def _write_merged(model: Any, base: Path, folder: Path) -> None:
    """Write a full model; its settings of generation as the base's publisher wrote them.

    transformers refuses to write some that it reads, as a temperature without sampling.
    """
    from transformers import GenerationConfig

    if hasattr(model, "generation_config"):
        model.generation_config = GenerationConfig()
    model.save_pretrained(folder)
    own = base / GENERATION_CONFIG
    (folder / GENERATION_CONFIG).unlink(missing_ok=True)
    if own.is_file():
        copyfile(own, folder / GENERATION_CONFIG)
