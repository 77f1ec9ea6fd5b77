"""The runs behind one call of `train`: each role and seed trains, is measured, and is kept until all are done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copyfile, rmtree
from typing import Any

import numpy as np
import polars as pl
from safetensors import SafetensorError

from thresher.artifacts.folder import write_atomic, write_parquet
from thresher.dataset import Dataset
from thresher.errors import OutputError
from thresher.evaluation.estimate import mean, ratio
from thresher.evaluation.outcomes import Evaluator, classification_outcomes, language_outcomes
from thresher.models.causal_lm.base_model import load_tokenizer
from thresher.models.causal_lm.chat_template import (
    prepare_template,
    render_prompt,
    start_tokens,
    write_start_into_template,
)
from thresher.models.causal_lm.language_model import GENERATION_CONFIG
from thresher.trainer.engine.checkpoint import History
from thresher.trainer.engine.fit import Fitted, Recipe, count_steps, fit, restore
from thresher.trainer.engine.loop import HeldOutLoss
from thresher.trainer.engine.lora import save_adapter
from thresher.trainer.engine.processes import gather, share
from thresher.trainer.engine.tokenization import Examples, find_end_tokens, require_rows, tokenize, truncate_prompt
from thresher.trainer.events import OnEvent, TrainEvent, ignore
from thresher.trainer.request import Request
from thresher.trainer.split import sample_rows

MAIN, CONTROL = "main", "control"
PREDICTIONS, DONE, ADAPTER = "predictions.parquet", "done.json", "adapter"
RUNS = ".runs"  # in the work folder, until the result is written


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run.

    Attributes:
        role: "main" for the given rows, "control" for random ones.
        seed: of the run.
        folder: where its files wait for the result to be written.
        history: of the training.
        counts: of the rows it learned from.
        outcomes: one row per held-out row, or None without held-out rows.
        eval_counts: of the held-out rows, or None without any.
    """

    role: str
    seed: int
    folder: Path
    history: History
    counts: dict[str, Any]
    outcomes: pl.DataFrame | None
    eval_counts: dict[str, int] | None


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Held-out rows, tokenised once for all runs.

    Attributes:
        rows: all of them.
        examples: the usable ones.
        prompts: tokens before the answer, of the first rows.
        n_prompts_cut: how many of them have lost their beginning, to leave room for an answer.
        ends: tokens that end an answer in these rows.
    """

    rows: Dataset
    examples: Examples
    prompts: list[list[int]]
    n_prompts_cut: int
    ends: frozenset[int]

    def counts(self) -> dict[str, int]:
        """Return what became of the rows, as JSON values."""
        told = {
            "rows": len(self.examples),
            "rows_left_out": len(self.rows) - len(self.examples),
            "rows_truncated": self.examples.n_truncated,
            "tokens_cut": self.examples.n_tokens_cut,
        }
        return told | ({"prompts_cut": self.n_prompts_cut} if self.prompts else {})


@dataclass(frozen=True, kw_only=True)
class Session:
    """What all runs of one call share.

    Attributes:
        request: resolved.
        recipe: model and settings.
        held_out: rows to measure on, or None.
        evaluator: how they are measured.
        work: folder that survives a kill.
        accelerator: of accelerate.
        on_event: listener; only the main process calls it.
    """

    request: Request
    recipe: Recipe
    held_out: HeldOut | None
    evaluator: Evaluator
    work: Path
    accelerator: Any
    on_event: OnEvent


def run_all(request: Request, work: Path, accelerator: Any, on_event: OnEvent) -> list[Run]:
    """Train and measure every role and seed; runs that an earlier, killed call finished are read back.

    Args:
        request: resolved.
        work: folder that survives a kill.
        accelerator: of accelerate.
        on_event: listener; only the main process calls it.
    """
    session, examples = _open(request, work, accelerator, on_event)
    tokenizer = session.recipe.tokenizer
    runs = []
    for seed in request.seeds:
        runs.append(_run(session, examples, role=MAIN, seed=seed))
        if request.parts.control is not None:
            drawn = _control(request, tokenizer, request.parts.control, len(examples), seed=seed)
            runs.append(_run(session, drawn, role=CONTROL, seed=seed))
    accelerator.wait_for_everyone()  # all have read what the runs left before it is cleared away
    return runs


def measure_adapter(request: Request, adapter: Path, accelerator: Any) -> pl.DataFrame:
    """Return one row per held-out row of a request, as `run_all` measures them, for an adapter that exists already.

    Args:
        request: resolved, with held-out rows; what it says of training is not used.
        adapter: peft folder of an adapter on the request's base.
        accelerator: of accelerate.
    """
    session, _ = _open(request, adapter, accelerator, ignore)
    if session.held_out is None:
        raise AssertionError("nothing to measure on")
    return _measure(session, session.held_out, restore(session.recipe, adapter).to(accelerator.device))


def _open(request: Request, work: Path, accelerator: Any, on_event: OnEvent) -> tuple[Session, Examples]:
    tokenizer = load_tokenizer(request.base)
    if request.task == "sft":
        prepare_template(tokenizer)
    examples = _tokenize(request, tokenizer, request.parts.train)
    require_rows(examples, "train", n_vocabulary=request.base.n_vocabulary)
    session = Session(
        request=request,
        recipe=Recipe(
            base=request.base,
            tokenizer=tokenizer,
            task=request.task,
            settings=request.settings,
            classes=request.labels,
            n_steps=count_steps(len(examples), request.settings),
        ),
        held_out=None if request.parts.held_out is None else _prepare(request, request.parts.held_out, tokenizer),
        evaluator=Evaluator(
            tokenizer=tokenizer,
            device=accelerator.device,
            share=partial(share, accelerator=accelerator),
            gather=partial(gather, accelerator=accelerator),
        ),
        work=work,
        accelerator=accelerator,
        on_event=on_event,
    )
    return session, examples


def _control(request: Request, tokenizer: Any, pool: Dataset, n_rows: int, *, seed: int) -> Examples:
    """Draw random rows until as many can be learned from as on the other side, or the pool is used up."""
    n_drawn = n_rows
    while True:
        drawn = _tokenize(request, tokenizer, sample_rows(pool, n_drawn, seed=seed))
        if len(drawn) == n_rows or n_drawn >= len(pool):
            break
        n_drawn += n_rows - len(drawn)
    require_rows(drawn, "control", n_vocabulary=request.base.n_vocabulary)
    return drawn


def _tokenize(request: Request, tokenizer: Any, rows: Dataset, labels: Sequence[str] | None = None) -> Examples:
    return tokenize(
        rows,
        tokenizer,
        task=request.task,
        max_length=int(request.settings.max_length or 0),
        loss_on=request.settings.loss_on,
        classes=request.labels if labels is None else labels,
    )


def _prepare(request: Request, rows: Dataset, tokenizer: Any) -> HeldOut:
    """Tokenise the held-out rows; labels the model does not know get codes beyond its classes, and count as wrong."""
    unknown = set(rows.frame["response"].unique()) - set(request.labels) if request.task == "classification" else set()
    examples = _tokenize(request, tokenizer, rows, [*request.labels, *sorted(unknown)])
    require_rows(examples, "eval", n_vocabulary=request.base.n_vocabulary)
    prompts: list[list[int]] = []
    n_prompts_cut = 0
    if request.task == "sft" and request.settings.eval_generations:
        first = examples.position[: request.settings.eval_generations]
        texts = [render_prompt(tokenizer, talk.messages, talk.tools) for talk in rows.messages(first)]
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        room = (request.base.max_positions or 1 << 30) - request.settings.max_new_tokens
        whole = [[*start_tokens(tokenizer, ids, is_asked=False), *ids] for ids in encoded]
        prompts = [truncate_prompt(ids, room, bos=tokenizer.bos_token_id) for ids in whole]
        n_prompts_cut = sum(len(ids) > room for ids in whole)
    ends = find_end_tokens(examples, tokenizer, int(request.settings.max_length or 0))
    return HeldOut(rows=rows, examples=examples, prompts=prompts, n_prompts_cut=n_prompts_cut, ends=ends)


def _run(session: Session, examples: Examples, *, role: str, seed: int) -> Run:
    """Train and measure once, unless that is done already."""
    accelerator, held_out, name = session.accelerator, session.held_out, f"{role}/seed-{seed}"
    folder = session.work / RUNS / f"{role}-{seed}"
    is_done = (folder / DONE).is_file()
    accelerator.wait_for_everyone()  # all processes have looked before one of them is done
    if not is_done:
        fitted = fit(
            session.recipe,
            examples.rows,
            seed=seed,
            accelerator=accelerator,
            folder=folder,
            run=name,
            evaluate=None if held_out is None else partial(_held_out_loss, session, held_out),
            on_event=session.on_event,
        )
        outcomes = None if held_out is None else _measure(session, held_out, fitted.model)
        if accelerator.is_main_process:
            is_result = role == MAIN and seed == session.request.seeds[0]
            _keep(session, folder, fitted, outcomes, is_result=is_result)
            n_steps = session.recipe.n_steps
            session.on_event(TrainEvent(kind="done", run=name, step=fitted.history.step, n_steps=n_steps))
        accelerator.wait_for_everyone()
    kept = folder / PREDICTIONS
    return Run(
        role=role,
        seed=seed,
        folder=folder,
        history=History(**json.loads((folder / DONE).read_bytes())),
        counts=examples.counts(),
        outcomes=pl.read_parquet(kept) if kept.is_file() else None,
        eval_counts=None if held_out is None else held_out.counts(),
    )


def _held_out_loss(session: Session, held_out: HeldOut, model: Any) -> HeldOutLoss:
    """Return the held-out loss of a model in training, equal on all processes."""
    bare, rows = session.accelerator.unwrap_model(model), held_out.examples.rows
    with session.accelerator.autocast():
        if session.request.task == "classification":
            losses = np.array([loss for _, _, loss in session.evaluator.predict_classes(bare, rows)])
            found = mean(losses[~np.isnan(losses)])
        else:
            pairs = session.evaluator.compute_losses(bare, rows)
            found = ratio([total for total, _ in pairs], [count for _, count in pairs])
    return HeldOutLoss(found.value, found.stderr, found.n)


def _measure(session: Session, held_out: HeldOut, model: Any) -> pl.DataFrame:
    usable = held_out.rows.frame[held_out.examples.position]
    row_id, response = usable["row_id"].to_list(), usable["response"].to_list()
    request, evaluator, rows = session.request, session.evaluator, held_out.examples.rows
    with session.accelerator.autocast():
        if request.task == "classification":
            return classification_outcomes(
                evaluator, model, rows, row_id=row_id, truth=response, classes=request.labels
            )
        return language_outcomes(
            evaluator,
            model,
            rows,
            row_id=row_id,
            references=response,
            prompts=held_out.prompts,
            max_new_tokens=request.settings.max_new_tokens,
            ends=held_out.ends,
        )


def _save(session: Session, model: Any, folder: Path) -> None:
    rmtree(folder, ignore_errors=True)
    save_adapter(model, folder)
    tokenizer = session.recipe.tokenizer
    tokenizer = write_start_into_template(tokenizer) if session.request.task == "sft" else tokenizer
    tokenizer.save_pretrained(folder)
    if session.request.is_merged:
        merged = model.merge_and_unload()
        merged.config.use_cache = True  # it was off for training, and would make generation slow
        _save_merged(merged, session.request.base.folder, folder / "merged")
        tokenizer.save_pretrained(folder / "merged")


def _save_merged(model: Any, base: Path, folder: Path) -> None:
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


def _keep(session: Session, folder: Path, fitted: Fitted, outcomes: pl.DataFrame | None, *, is_result: bool) -> None:
    """Write what a run leaves, the mark that it is done last, and delete its checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    if outcomes is not None:
        write_parquet(outcomes, folder / PREDICTIONS)
    if is_result:
        try:
            _save(session, fitted.model, folder / ADAPTER)
        except SafetensorError as error:  # not an OSError, though a full disk is what it tells of
            raise OutputError(f"{folder}: the adapter could not be written ({error}); run the same again") from None
    write_atomic(folder / DONE, json.dumps(vars(fitted.history)).encode())
    for path in folder.glob("*.safetensors"):
        path.unlink()
