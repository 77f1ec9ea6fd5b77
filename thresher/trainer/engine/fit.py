"""One training run: a base model, rows and a seed become an adapter."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch

from thresher.errors import SettingsError
from thresher.models.causal_lm.base_model import BaseModel
from thresher.trainer.engine import checkpoint
from thresher.trainer.engine.batches import Batch, Plan, count_epoch_steps, pack_rows, pad_rows
from thresher.trainer.engine.checkpoint import History
from thresher.trainer.engine.head import initialize_head
from thresher.trainer.engine.load_model import Loaded, load_model, needs_bf16
from thresher.trainer.engine.loop import BEST, HeldOutLoss, Work, loop
from thresher.trainer.engine.lora import attach, get_trainable_parameters, load_adapter
from thresher.trainer.engine.losses import class_loss, token_loss
from thresher.trainer.engine.probe import probe, probe_classifier
from thresher.trainer.engine.tokenization import Example
from thresher.trainer.events import OnEvent, TrainEvent
from thresher.trainer.settings import Task, TrainSettings


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """What all runs of one call have in common.

    Attributes:
        base: the model to adapt.
        tokenizer: of the base.
        task: decides model class and loss.
        settings: resolved.
        classes: labels in the order of the head's outputs; empty for language models.
        n_steps: optimizer steps of each run, so that runs on other rows get no more and no fewer.
    """

    base: BaseModel
    tokenizer: Any
    task: Task
    settings: TrainSettings
    classes: tuple[str, ...]
    n_steps: int


@dataclass(frozen=True)
class Fitted:
    """A trained model, in evaluation mode and without the wrappers of accelerate, and how it got there."""

    model: Any
    history: History


def count_steps(n_rows: int, settings: TrainSettings) -> int:
    """Return the optimizer steps that the settings ask for, at least one."""
    if settings.max_steps is not None:
        return settings.max_steps
    return max(1, round(float(settings.epochs or 0) * count_epoch_steps(n_rows, int(settings.batch_size or 1))))


def build(recipe: Recipe, *, seed: int) -> Any:
    """Load the base and attach a fresh adapter; the same seed gives the same weights. Changes torch's random state."""
    torch.manual_seed(seed)
    loaded = _load(recipe)
    model = loaded.model
    if recipe.settings.packing:
        refuse_packing(model.config, recipe.task, int(recipe.settings.max_length or 0))
    return attach(model, recipe.settings, task=recipe.task, base=recipe.base, drawn=loaded.drawn)


def restore(recipe: Recipe, adapter: Path) -> Any:
    """Load the base with an adapter that was saved, in evaluation mode.

    Args:
        recipe: of the base and the task.
        adapter: peft folder.
    """
    with torch.random.fork_rng():  # a head is drawn before it is read
        return load_adapter(_load(recipe).model, adapter)


def _load(recipe: Recipe) -> Loaded:
    return load_model(
        recipe.base,
        task=recipe.task,
        settings=recipe.settings,
        is_bf16=needs_bf16(recipe.settings.precision),
        pad_id=recipe.tokenizer.pad_token_id,
        classes=recipe.classes,
    )


def fit(
    recipe: Recipe,
    rows: Sequence[Example],
    *,
    seed: int,
    accelerator: Any,
    folder: Path,
    run: str,
    evaluate: Callable[[Any], HeldOutLoss] | None,
    on_event: OnEvent,
    epochs: Path | None = None,
) -> Fitted:
    """Train one adapter, continuing from the newest checkpoint in the folder.

    The result is a function of (recipe, rows, seed) on one machine, whether or not the run was
    killed in between.

    Args:
        recipe: model and settings.
        rows: training rows.
        seed: of the new weights, the order of the rows and dropout.
        accelerator: of accelerate.
        folder: of the checkpoints.
        run: name of the run in events.
        evaluate: model -> held-out loss, for evaluations during training.
        on_event: listener.
        epochs: folder to keep weights and the optimizer's state in after each epoch; None keeps
            none.
    """
    settings = recipe.settings
    plan = Plan(rows, batch_size=int(settings.batch_size or 1), seed=seed, n_steps=recipe.n_steps)
    with torch.random.fork_rng():  # the caller's random state is not ours to change
        model = build(recipe, seed=seed)
        if not settings.load_in_4bit:  # those weights are loaded to where they stay
            model = model.to(accelerator.device)
        layout = _layout(recipe, model)
        with accelerator.autocast():
            if recipe.task == "classification":
                probe_classifier(model, rows, base=recipe.base, layout=layout, device=accelerator.device)
            else:
                probe(model, base=recipe.base, device=accelerator.device, is_packed=settings.packing)
        parameters = get_trainable_parameters(model)
        optimizer = torch.optim.AdamW(parameters.values(), lr=0.0, weight_decay=settings.weight_decay)
        history = checkpoint.restore(folder, parameters, optimizer)
        if recipe.task == "classification" and not history.step:
            with accelerator.autocast():
                initialize_head(model, rows, layout=layout, device=accelerator.device)
        if accelerator.is_main_process:
            message = f"continuing from step {history.step}" if history.step else ""
            on_event(TrainEvent(kind="start", run=run, step=history.step, n_steps=plan.n_steps, message=message))
        accelerator.wait_for_everyone()  # all have read the checkpoint before the first one is replaced
        wrapped, prepared = accelerator.prepare(model, optimizer)
        work = Work(
            accelerator=accelerator,
            model=wrapped,
            optimizer=prepared,
            parameters=parameters,
            layout=layout,
            loss_sum=class_loss if recipe.task == "classification" else token_loss,
            evaluate=evaluate,
            folder=folder,
            run=run,
            on_event=on_event,
            epochs=epochs,
        )
        loop(work, plan, settings, history)
        accelerator.wait_for_everyone()  # the best weights are on the disk
        if history.best_step is not None and history.best_step != history.step:
            checkpoint.load_weights(folder / BEST, parameters)
    fitted = accelerator.unwrap_model(wrapped).eval()
    accelerator.free_memory()
    return Fitted(fitted, history)


def _layout(recipe: Recipe, model: Any) -> Callable[[Sequence[Example]], Batch]:
    pad_id = recipe.tokenizer.pad_token_id
    if not recipe.settings.packing:
        return partial(pad_rows, pad_id=pad_id)
    return partial(pack_rows, pad_id=pad_id, max_length=int(recipe.settings.max_length or 0), dtype=model.dtype)


def refuse_packing(config: Any, task: Task, max_length: int) -> None:
    """Refuse to pack where the mask could not keep rows apart exactly.

    Raises:
        SettingsError: the task has one label per row, or the model's attention is not plain causal
            attention.
    """
    if task == "classification":
        raise SettingsError("train: packing is for language models, got task 'classification'; leave it out")
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    window = getattr(config, "sliding_window", None) if "sliding_attention" in kinds else None
    if kinds - {"full_attention", "sliding_attention"} or (window is not None and window < max_length):
        raise SettingsError(
            f"train: packing needs full attention in every layer, got {', '.join(sorted(kinds))} in "
            f"{config.model_type}; leave it out"
        )
