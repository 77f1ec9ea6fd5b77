"""The training loop: step, log, evaluate, save. Nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thresher.errors import SettingsError
from thresher.trainer.engine import checkpoint
from thresher.trainer.engine.batches import Batch, Plan, split_step
from thresher.trainer.engine.checkpoint import History
from thresher.trainer.engine.schedule import compute_rate_share
from thresher.trainer.engine.tokenization import Example
from thresher.trainer.events import OnEvent, TrainEvent
from thresher.trainer.settings import TrainSettings

BEST = "best.safetensors"


@dataclass(frozen=True)
class HeldOutLoss:
    """Mean loss on held-out rows, with its standard error and the number of rows."""

    value: float
    stderr: float
    n: int


@dataclass(frozen=True, kw_only=True)
class Work:
    """What the loop works with.

    Attributes:
        accelerator: of accelerate; knows device, rank and precision.
        model: prepared by the accelerator.
        optimizer: prepared by the accelerator; AdamW over `parameters` in their order.
        parameters: trained parameters by name.
        layout: rows -> tensors.
        loss_sum: model, batch -> loss summed over what is learned.
        evaluate: model -> held-out loss, equal on all processes; None without held-out rows.
        folder: of the checkpoints.
        run: name of the run in events.
        on_event: listener.
        epochs: folder to keep the state after each whole epoch in; None keeps none.
    """

    accelerator: Any
    model: Any
    optimizer: Any
    parameters: dict[str, torch.nn.Parameter]
    layout: Callable[[Sequence[Example]], Batch]
    loss_sum: Callable[[Any, Batch], torch.Tensor]
    evaluate: Callable[[Any], HeldOutLoss] | None
    folder: Path
    run: str
    on_event: OnEvent
    epochs: Path | None = None


def loop(work: Work, plan: Plan, settings: TrainSettings, history: History) -> None:
    """Train from where the history stands to the last step of the plan, or until early stopping.

    Args:
        work: model, optimizer and the functions around them.
        plan: rows of each step.
        settings: resolved.
        history: changed in place.

    Raises:
        SettingsError: the loss is no longer a number, or a step does not fit the device.
    """
    saved_at = time.monotonic()
    work.model.train()
    n_steps = last_step(plan, settings)
    while history.step < n_steps and not history.is_stopped:
        rate = _set_rate(work.optimizer, settings, history.step, plan.n_steps)
        try:
            loss, n_learned = _take_step(work, plan, settings, history.step)
        except torch.OutOfMemoryError:
            raise SettingsError(
                f"train: step {history.step + 1} must fit the device's memory and does not; raise "
                f"gradient_accumulation (now {settings.gradient_accumulation}), lower max_length "
                f"({settings.max_length}), or set gradient_checkpointing"
            ) from None
        history.step += 1
        epoch = history.step / plan.n_epoch_steps
        history.losses.append(
            {"step": history.step, "epoch": epoch, "learning_rate": rate, "loss": loss, "n_learned": n_learned}
        )
        _tell(work, "step", history, plan, {"loss": loss, "learning_rate": rate, "epoch": epoch})
        if work.evaluate is not None and _is_evaluation_due(settings, history.step, plan):
            _evaluate(work, plan, settings, history)
        _keep_epoch(work, plan, history)
        is_due = time.monotonic() - saved_at >= settings.save_every_s
        if work.accelerator.is_main_process and is_due and history.step < n_steps:
            checkpoint.save(work.folder, work.parameters, work.optimizer, history)
            saved_at = time.monotonic()
            _tell(work, "save", history, plan, {})


def last_step(plan: Plan, settings: TrainSettings) -> int:
    """Return the step after which training ends, unless it is stopped early."""
    return math.ceil(settings.stop_at * plan.n_steps)


def _keep_epoch(work: Work, plan: Plan, history: History) -> None:
    epoch, n_beyond = divmod(history.step, plan.n_epoch_steps)
    if work.epochs is not None and not n_beyond and work.accelerator.is_main_process:
        checkpoint.save(work.epochs / f"epoch-{epoch}", work.parameters, work.optimizer, history)


def _set_rate(optimizer: Any, settings: TrainSettings, step: int, n_steps: int) -> float:
    share = compute_rate_share(step, n_steps, schedule=settings.schedule, warmup_share=settings.warmup_share)
    rate = float(settings.learning_rate or 0.0) * share
    for group in optimizer.param_groups:
        group["lr"] = rate
    return rate


def _take_step(work: Work, plan: Plan, settings: TrainSettings, step: int) -> tuple[float, int]:
    """Take one optimizer step; return the mean loss over its learned tokens, and their number.

    Gradients are summed over pieces and processes and divided by the count of the whole step, so
    every learned token weighs the same wherever it was computed. DDP averages over processes, hence
    the factor `n_ranks`. A gradient that is no number would make the weights so, which the loss
    would tell of one step too late.
    """
    accelerator, rows = work.accelerator, plan.step_rows(step)
    n_learned = int(plan.n_learned[rows].sum())
    n_ranks, rank = accelerator.num_processes, accelerator.process_index
    torch.manual_seed(int(np.random.SeedSequence([plan.seed, step, rank]).generate_state(1, np.uint64)[0] >> 1))
    own = split_step(rows, rank=rank, n_ranks=n_ranks, n_pieces=settings.gradient_accumulation)
    total = torch.zeros((), device=accelerator.device)
    for number, piece in enumerate(own):
        is_last = number == len(own) - 1
        if not len(piece) and n_ranks == 1:
            continue
        with nullcontext() if is_last else accelerator.no_sync(work.model):
            # a process without rows still takes part in the exchange, with weight 0
            batch = work.layout([plan.rows[i] for i in (piece if len(piece) else rows[:1])]).to(accelerator.device)
            loss = work.loss_sum(work.model, batch) * (1.0 if len(piece) else 0.0)
            accelerator.backward(loss * (n_ranks / n_learned))
        total += loss.detach()
    norm = float(accelerator.clip_grad_norm_(list(work.parameters.values()), settings.max_grad_norm))
    mean_loss = float(accelerator.reduce(total, "sum")) / n_learned
    for name, value in (("loss", mean_loss), ("gradient", norm)):
        if not math.isfinite(value):
            raise SettingsError(
                f"train: the {name} became {value} at step {step + 1}; lower learning_rate "
                f"({work.optimizer.param_groups[0]['lr']:.2g})"
            )
    work.optimizer.step()
    work.optimizer.zero_grad(set_to_none=True)
    return mean_loss, n_learned


def _is_evaluation_due(settings: TrainSettings, step: int, plan: Plan) -> bool:
    every = settings.eval_every
    if every is None:
        if settings.early_stopping_patience is None:
            return False
        every = plan.n_epoch_steps
    is_last = step == last_step(plan, settings)
    return step % every == 0 or (is_last and settings.early_stopping_patience is not None)


def _evaluate(work: Work, plan: Plan, settings: TrainSettings, history: History) -> None:
    """Measure the held-out loss; with early stopping, keep the best weights and stop when patience is out."""
    if work.evaluate is None:
        raise AssertionError("an evaluation is due only where there are held-out rows")
    work.model.eval()
    found = work.evaluate(work.model)
    work.model.train()
    history.evaluations.append({"step": history.step, "loss": found.value, "stderr": found.stderr, "n": found.n})
    _tell(work, "eval", history, plan, {"eval_loss": found.value, "eval_stderr": found.stderr})
    patience = settings.early_stopping_patience
    if patience is None:
        return
    best = min(range(len(history.evaluations)), key=lambda i: history.evaluations[i]["loss"])
    history.best_step = int(history.evaluations[best]["step"])
    if history.best_step == history.step and work.accelerator.is_main_process:
        checkpoint.save_weights(work.folder / BEST, work.parameters)
    if len(history.evaluations) - 1 - best >= patience:
        history.is_stopped = True
        _tell(work, "stop", history, plan, {})


def _tell(work: Work, kind: Any, history: History, plan: Plan, values: dict[str, float]) -> None:
    if work.accelerator.is_main_process:
        work.on_event(TrainEvent(kind=kind, run=work.run, step=history.step, n_steps=plan.n_steps, values=values))
