"""The training loop: step, log, evaluate, save. Nothing else."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from thresher.errors import DeviceMemoryError, SettingsError
from thresher.evaluation.estimate import Estimate
from thresher.models.device import is_device_shared, set_seed
from thresher.numeric.arrays import Float64, Int64
from thresher.trainer.context import RunContext
from thresher.trainer.engine import checkpoint
from thresher.trainer.engine.adapters.updates import RATE, Updates
from thresher.trainer.engine.batches import Batch, BatchSampler, Collate, split_by_length, split_step
from thresher.trainer.engine.checkpoint import History
from thresher.trainer.engine.losses import RowLosses
from thresher.trainer.engine.row_choice.skipping import Skipping
from thresher.trainer.engine.row_choice.step_rows import StepRows, mask_answer
from thresher.trainer.engine.schedule import compute_rate_share
from thresher.trainer.engine.tokenization import Example
from thresher.trainer.events import TrainEvent

BEST = "best.safetensors"
LAST_SHARE = 1 / 6  # of the time between checkpoints: after less, the last step is not saved
Evaluate = Callable[[Any], Estimate]


@dataclass(kw_only=True)
class TrainState:
    """A training run between two steps.

    Attributes:
        context: settings, accelerator and listener.
        model: prepared by the accelerator.
        optimizer: prepared by the accelerator; AdamW over `parameters` in their order.
        parameters: trained parameters by name.
        batches: rows of each step.
        history: of the steps that were taken; the one field that changes.
        collate: rows -> tensors.
        loss_sum: model, batch -> loss summed over what is learned.
        updates: what the kind of adapter does around a step.
        skipping: which rows are passed over, or None.
        evaluate: model -> held-out loss, equal on all processes; None without held-out rows.
        folder: of the checkpoints.
        run: name of the run in events.
        epochs: folder for the state after each whole epoch; None writes none.
    """

    context: RunContext
    model: Any
    optimizer: Any
    parameters: dict[str, torch.nn.Parameter]
    batches: BatchSampler
    history: History
    collate: Collate
    loss_sum: Callable[[Any, Batch, RowLosses | None], torch.Tensor]
    updates: Updates
    skipping: Skipping | None
    evaluate: Evaluate | None
    folder: Path
    run: str
    epochs: Path | None

    @property
    def last_step(self) -> int:
        """The step after which training ends, unless it is stopped early."""
        return math.ceil(self.context.settings.stop_at * self.batches.n_steps)

    @property
    def is_main(self) -> bool:
        """Whether this process writes and reports for all."""
        return bool(self.context.accelerator.is_main_process)

    def report(self, kind: Any, values: Mapping[str, float]) -> None:
        """Send an event to the listener."""
        if self.is_main:
            self.context.on_event(
                TrainEvent(kind=kind, run=self.run, step=self.history.step, n_steps=self.batches.n_steps, values=values)
            )


def take_steps(state: TrainState) -> None:
    """Train from where the history stands to the last step, or until early stopping.

    Raises:
        DeviceMemoryError: a step does not fit the device.
        SettingsError: the loss is no longer a number.
    """
    saved_at = time.monotonic()
    settings, history, last_step = state.context.settings, state.history, state.last_step
    state.model.train()
    while history.step < last_step and not history.is_stopped:
        rate = _set_rate(state)
        try:
            loss, n_learned = _take_step(state)
        except torch.OutOfMemoryError:
            raise DeviceMemoryError(
                f"train: step {history.step + 1} must fit the device's memory and does not; raise "
                f"gradient_accumulation (now {settings.gradient_accumulation}), lower max_length "
                f"({settings.max_length}), or set gradient_checkpointing",
                is_shared=is_device_shared(state.context.accelerator.device),
            ) from None
        history.step += 1
        epoch = history.step / state.batches.n_epoch_steps
        history.losses.append(
            {"step": history.step, "epoch": epoch, "learning_rate": rate, "loss": loss, "n_learned": n_learned}
        )
        state.report("step", {"loss": loss, "learning_rate": rate, "epoch": epoch})
        if state.evaluate is not None and _is_evaluation_due(state):
            _evaluate(state, state.evaluate)
        _save_epoch(state)
        # the last step, too: what follows, as answers to held-out rows, may take long and be killed
        is_last = history.step == last_step or history.is_stopped
        is_due = time.monotonic() - saved_at >= settings.save_every_s * (LAST_SHARE if is_last else 1)
        if state.is_main and is_due:
            own = {**state.updates.get_state(), **({} if state.skipping is None else state.skipping.get_state())}
            checkpoint.save(state.folder, state.parameters, state.optimizer, history, state=own)
            saved_at = time.monotonic()
            state.report("save", {})


def _save_epoch(state: TrainState) -> None:
    epoch, n_beyond = divmod(state.history.step, state.batches.n_epoch_steps)
    if state.epochs is not None and not n_beyond and state.is_main:
        checkpoint.save(state.epochs / f"epoch-{epoch}", state.parameters, state.optimizer, state.history)


def _set_rate(state: TrainState) -> float:
    settings = state.context.settings
    rate = float(settings.learning_rate or 0.0) * compute_rate_share(
        state.history.step, state.batches.n_steps, schedule=settings.schedule, warmup_share=settings.warmup_share
    )
    for group in state.optimizer.param_groups:
        group["lr"] = rate * group.get(RATE, 1.0)
    return rate


def _take_step(state: TrainState) -> tuple[float, int]:
    """Take one optimizer step; return the mean loss over its learned tokens, and their number.

    Gradients are summed over pieces and processes and divided by the weight of all learned tokens
    of the step, so a token counts by its row's weight wherever it was computed. DDP averages over
    processes, hence the factor `n_ranks`. A gradient that is not a number would spoil the weights,
    and the loss would show it one step too late.
    """
    context, batches, step = state.context, state.batches, state.history.step
    accelerator, rows = context.accelerator, batches.get_step_rows(step)
    n_learned, mass = int(batches.n_learned[rows].sum()), float(batches.mass[rows].sum())
    n_ranks = accelerator.num_processes
    learned = _choose_rows(state, rows)
    own = _split_pieces(state, learned.rows)
    total = torch.zeros((), device=accelerator.device)
    for number, piece in enumerate(own):
        is_last = number == len(own) - 1
        if not len(piece) and n_ranks == 1:
            continue
        with nullcontext() if is_last else accelerator.no_sync(state.model):
            # a process without rows still takes part in the exchange, with weight 0
            batch = state.collate([_build_example(state, learned, int(i)) for i in (piece if len(piece) else rows[:1])])
            batch = batch.to_device(accelerator.device)
            loss = state.loss_sum(state.model, batch, learned.open_losses(piece)) * (1.0 if len(piece) else 0.0)
            accelerator.backward(loss * (n_ranks / mass))
        total += loss.detach()
    _finish_rows(state, learned)
    state.updates.add_penalty()
    norm = float(accelerator.clip_grad_norm_(list(state.parameters.values()), context.settings.max_grad_norm))
    mean_loss = float(accelerator.reduce(total, "sum")) / mass
    for name, value in (("loss", mean_loss), ("gradient", norm)):
        if not math.isfinite(value):
            raise SettingsError(
                f"train: the {name} became {value} at step {step + 1}; lower learning_rate "
                f"({state.optimizer.param_groups[0]['lr']:.2g})"
            )
    state.updates.change_gradients(step)
    state.optimizer.step()
    state.updates.finish_step(step)
    state.optimizer.zero_grad(set_to_none=True)
    return mean_loss, n_learned


def _choose_rows(state: TrainState, rows: Int64) -> StepRows:
    """Return the rows of a step that are learned from, after a look at them where that is needed.

    Dropout depends on (seed, step, rank) alone, so that a resumed run repeats it.
    """
    skipping, step = state.skipping, state.history.step
    losses = _look(state, rows) if skipping is not None and skipping.looks_first else None
    seed = np.random.SeedSequence([state.batches.seed, step, state.context.accelerator.process_index])
    set_seed(int(seed.generate_state(1, np.uint64)[0] >> 1), state.context.accelerator.device)
    if skipping is None:
        return StepRows(step, rows)
    factors = skipping.choose(step, rows, losses)
    if losses is not None:
        skipping.record(step, rows, losses)
    is_learned = factors > 0
    counts = dict(zip(rows[is_learned].tolist(), factors[is_learned].tolist(), strict=True))
    return StepRows(step, rows[is_learned], counts, None if losses is not None else [])


def _look(state: TrainState, rows: Int64) -> Float64:
    """Return the mean loss of each row, (k,), without gradients."""
    looked = StepRows(state.history.step, rows, losses=[])
    # without the wrapper whose forward passes wait for other processes: one may have no row
    model = state.context.accelerator.unwrap_model(state.model).eval()
    with torch.no_grad():
        for piece in _split_pieces(state, rows):
            if len(piece):
                batch = state.collate([state.batches.rows[i] for i in piece]).to_device(
                    state.context.accelerator.device
                )
                state.loss_sum(model, batch, looked.open_losses(piece))
    model.train()
    return looked.collect(rows, partial(_sum_over_processes, state.context.accelerator))


def _split_pieces(state: TrainState, rows: Int64) -> list[Int64]:
    """Return this process's share of some rows, cut into forward passes."""
    accelerator, settings = state.context.accelerator, state.context.settings
    own = split_step(
        rows,
        rank=accelerator.process_index,
        n_ranks=accelerator.num_processes,
        n_pieces=settings.gradient_accumulation,
    )
    if accelerator.device.type != "cpu" or settings.packing:  # a GPU would rather pad than wait
        return own
    return [part for piece in own for part in split_by_length(piece, state.batches.lengths) or [piece]]


def _build_example(state: TrainState, learned: StepRows, row: int) -> Example:
    """Return a row as it is learned from in a step."""
    example = learned.weigh(state.batches.rows[row], row)
    share = state.context.settings.mask_answer
    if not share:
        return example
    seed = (state.batches.seed, learned.step, row)
    return mask_answer(example, share, pad_id=int(state.context.tokenizer.pad_token_id), seed=seed)


def _finish_rows(state: TrainState, learned: StepRows) -> None:
    """Keep the losses of a step's rows; where no row was learned from, its gradient is 0."""
    if state.skipping is None:
        return
    if learned.losses is not None:
        losses = learned.collect(learned.rows, partial(_sum_over_processes, state.context.accelerator))
        state.skipping.record(learned.step, learned.rows, losses)
    if not len(learned.rows):
        for value in state.parameters.values():
            value.grad = torch.zeros_like(value)


def _sum_over_processes(accelerator: Any, values: torch.Tensor) -> torch.Tensor:
    """Return a CPU tensor summed over all processes, which exchange what is on their devices."""
    total: torch.Tensor = accelerator.reduce(values.to(accelerator.device), reduction="sum")
    return total.cpu()


def _is_evaluation_due(state: TrainState) -> bool:
    settings, step = state.context.settings, state.history.step
    is_stopping_early = settings.early_stopping_patience is not None
    every = settings.eval_every
    if every is None:
        if not is_stopping_early:
            return False
        every = state.batches.n_epoch_steps
    return step % every == 0 or (step == state.last_step and is_stopping_early)


def _evaluate(state: TrainState, evaluate: Evaluate) -> None:
    """Measure the held-out loss; with early stopping, save the best weights, or stop."""
    history, patience = state.history, state.context.settings.early_stopping_patience
    state.model.eval()
    loss = evaluate(state.model)
    state.model.train()
    history.evaluations.append({"step": history.step, "loss": loss.value, "stderr": loss.stderr, "n": loss.n})
    state.report("eval", {"eval_loss": loss.value, "eval_stderr": loss.stderr})
    if patience is None:
        return
    best = min(range(len(history.evaluations)), key=lambda i: history.evaluations[i]["loss"])
    history.best_step = int(history.evaluations[best]["step"])
    if history.best_step == history.step and state.is_main:
        checkpoint.save_weights(state.folder / BEST, state.parameters)
    if len(history.evaluations) - 1 - best >= patience:
        history.is_stopped = True
        state.report("stop", {})
