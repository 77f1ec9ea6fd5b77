"""One training run: a base model, rows and a seed become an adapter."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl
import torch

from thresher.errors import InputError, SettingsError, first_three
from thresher.models.causal_lm.base_model import BaseModel
from thresher.numeric.memory import collect_only_new
from thresher.trainer.context import RunContext
from thresher.trainer.engine import checkpoint
from thresher.trainer.engine.adapters.layer_choice import list_left_out
from thresher.trainer.engine.adapters.starts import set_start
from thresher.trainer.engine.adapters.updates import Updates, build_updates
from thresher.trainer.engine.adapters.whole_model import is_whole_model
from thresher.trainer.engine.batches import BatchSampler, Collate, count_epoch_steps, pack_rows, pad_rows
from thresher.trainer.engine.checkpoint import History
from thresher.trainer.engine.head import initialize_head
from thresher.trainer.engine.load_model import LoadedModel, load_model
from thresher.trainer.engine.loop import BEST, Evaluate, TrainState, take_steps
from thresher.trainer.engine.lora import Attachment, attach_adapter, get_trainable_parameters, load_adapter
from thresher.trainer.engine.losses import class_loss, token_loss
from thresher.trainer.engine.pooled_classifier import PooledClassifier, has_head, load_head, read_head_config
from thresher.trainer.engine.pooling import Pooling
from thresher.trainer.engine.preflight import try_classifier, try_language_model
from thresher.trainer.engine.row_choice.skipping import SKIPPING, Skipping, build_skipping
from thresher.trainer.engine.tokenization import Example
from thresher.trainer.events import TrainEvent
from thresher.trainer.settings import Task, TrainSettings

OnProbe = Callable[[Any], None]


@dataclass(frozen=True)
class TrainedModel:
    """A trained model, in evaluation mode and without accelerate's wrappers, and its history.

    Attributes:
        model: the model.
        history: of its steps.
        skipped: rows that were passed over, and others, by epoch; None without skipping.
    """

    model: Any
    history: History
    skipped: pl.DataFrame | None = None


def count_steps(n_rows: int, settings: TrainSettings) -> int:
    """Return the optimizer steps that the settings ask for, at least one."""
    if settings.max_steps is not None:
        return settings.max_steps
    return max(
        settings.min_steps or 1,
        round(float(settings.epochs or 0) * count_epoch_steps(n_rows, int(settings.batch_size or 1))),
    )


def build_model(context: RunContext, *, seed: int, rows: Sequence[Example] = (), n_steps: int = 1) -> Any:
    """Load the base and attach an adapter, whose weights follow from torch's new seed.

    Args:
        context: model, settings and accelerator.
        seed: of the run.
        rows: of the training, for adapters that start from them.
        n_steps: of the run.
    """
    torch.manual_seed(seed)
    loaded, settings = _load_base(context, context.pooling), context.settings
    if settings.packing:
        refuse_packing(loaded.model.config, context.task, int(settings.max_length or 0))
    model, device = loaded.model, context.accelerator.device
    if settings.lora_layers == "fisher":
        model = model.to(device)
    body = model.body if isinstance(model, PooledClassifier) else model
    with context.accelerator.autocast():
        left_out = list_left_out(model, settings.lora_layers, rows, _choose_loss(context), device=device, named=body)
    attachment = Attachment(
        n_steps=n_steps,
        seed=seed,
        left_out=tuple(left_out),
        start=None if context.start is None else context.start.folder,
    )
    model = attach_adapter(
        model, settings, task=context.task, base=context.base, new_layers=loaded.new_layers, attachment=attachment
    )
    if not settings.load_in_4bit:  # those weights are loaded to where they stay
        model = model.to(device)
    if context.start is None:
        adapted = model.body if isinstance(model, PooledClassifier) else model
        with context.accelerator.autocast():
            set_start(adapted, str(settings.adapter), rows, device=device)
    return model


def _choose_loss(context: RunContext) -> Any:
    return class_loss if context.task == "classification" else token_loss


def load_trained_model(context: RunContext, adapter: Path) -> Any:
    """Load the base with the adapter of a peft folder, in evaluation mode.

    Raises:
        InputError: the adapter has a head for other labels.
    """
    pooling = None  # adapters of before read the first token, by the head of their architecture
    if has_head(adapter):
        pooling, labels = read_head_config(adapter)
        if labels != context.labels:
            raise InputError(
                f"{adapter}: its labels must be those of the data ({first_three(list(context.labels))}), got "
                f"{first_three(list(labels))}"
            )
    with torch.random.fork_rng():  # a head is initialized before it is read
        if is_whole_model(adapter):
            model = _load_base(context, pooling, replace(context.base, folder=adapter)).model.eval()
            if isinstance(model, PooledClassifier):
                load_head(model, adapter)
            return model
        return load_adapter(_load_base(context, pooling).model, adapter)


def load_untouched_model(context: RunContext) -> Any:
    """Load the base language model as it is, in evaluation mode, on the context's device."""
    model = _load_base(context, None).model.eval()
    return model if context.settings.load_in_4bit else model.to(context.accelerator.device)


def _load_base(context: RunContext, pooling: Pooling | None, base: BaseModel | None = None) -> LoadedModel:
    return load_model(
        base or context.base,
        task=context.task,
        settings=context.settings,
        pad_id=context.tokenizer.pad_token_id,
        labels=context.labels,
        pooling=pooling,
    )


def fit(
    context: RunContext,
    rows: Sequence[Example],
    *,
    seed: int,
    folder: Path,
    run: str,
    n_steps: int | None = None,
    evaluate: Evaluate | None = None,
    epochs: Path | None = None,
    on_probe: OnProbe | None = None,
) -> TrainedModel:
    """Train one adapter, continuing from the newest checkpoint in the folder.

    The result is a function of (context, rows, n_steps, seed) on one machine, whether or not the
    run was killed in between.

    Args:
        context: model, settings, accelerator and listener.
        rows: training rows.
        seed: of the new weights, the order of the rows and dropout.
        folder: of the checkpoints.
        run: name of the run in events.
        n_steps: optimizer steps; default: as many as the settings ask for with these rows.
        evaluate: model -> held-out loss, for evaluations during training.
        epochs: folder for weights and the optimizer's state after each epoch; None writes none.
        on_probe: given a classifier before its first step, when it is a probe of the untouched
            encoder; not called where it is none, nor when a killed run continues.
    """
    batches = BatchSampler(
        rows,
        batch_size=int(context.settings.batch_size or 1),
        seed=seed,
        n_steps=count_steps(len(rows), context.settings) if n_steps is None else n_steps,
    )
    accelerator = context.accelerator
    # the caller's random state is not ours to change
    with collect_only_new(), torch.random.fork_rng():
        outputs: dict[str, Any] = {"folder": folder, "run": run, "evaluate": evaluate, "epochs": epochs}
        state = _start(context, batches, on_probe, **outputs)
        take_steps(state)
        accelerator.wait_for_everyone()  # the best weights are on the disk
        history = state.history
        if history.best_step is not None and history.best_step != history.step:
            checkpoint.load_weights(folder / BEST, state.parameters)
        model = accelerator.unwrap_model(state.model).eval()
        accelerator.free_memory()
    return TrainedModel(model, history, None if state.skipping is None else state.skipping.tabulate())


def _start(
    context: RunContext, batches: BatchSampler, on_probe: OnProbe | None, *, folder: Path, run: str, **outputs: Any
) -> TrainState:
    """Build the model, try it, and restore the newest checkpoint."""
    settings, accelerator, device = context.settings, context.accelerator, context.accelerator.device
    is_classification = context.task == "classification"
    model = build_model(context, seed=batches.seed, rows=batches.rows, n_steps=batches.n_steps)
    collate = _build_collate(context, model)
    with accelerator.autocast():
        if is_classification:
            try_classifier(model, batches.rows, base=context.base, collate=collate, device=device)
        else:
            try_language_model(model, base=context.base, device=device, is_packed=settings.packing)
    parameters = get_trainable_parameters(model)
    updates, skipping = build_updates(model, parameters, settings, seed=batches.seed), build_skipping(settings, batches)
    optimizer = torch.optim.AdamW(updates.build_groups(), lr=0.0, weight_decay=settings.weight_decay)
    history, damaged = _restore(folder, parameters, optimizer, (updates, skipping), settings)
    if is_classification and not history.step and context.start is None:
        with accelerator.autocast():
            is_probe = initialize_head(model, batches.rows, collate=collate, device=device)
        if is_probe and on_probe is not None:
            on_probe(model.eval())
    if accelerator.is_main_process:
        message = f"continuing from step {history.step}" if history.step or damaged else ""
        if damaged:
            message += f"; damaged, and therefore not used: {first_three(damaged)}"
        context.on_event(TrainEvent(kind="start", run=run, step=history.step, n_steps=batches.n_steps, message=message))
    accelerator.wait_for_everyone()  # all have read the checkpoint before the first one is replaced
    if accelerator.is_main_process:
        for path in damaged:
            path.unlink(missing_ok=True)
    wrapped, prepared = accelerator.prepare(model, optimizer)
    return TrainState(
        context=context,
        model=wrapped,
        optimizer=prepared,
        parameters=parameters,
        batches=batches,
        history=history,
        collate=collate,
        loss_sum=_choose_loss(context),
        updates=updates,
        skipping=skipping,
        folder=folder,
        run=run,
        **outputs,
    )


def _restore(
    folder: Path,
    parameters: dict[str, torch.nn.Parameter],
    optimizer: Any,
    others: tuple[Updates, Skipping | None],
    settings: TrainSettings,
) -> tuple[History, list[Path]]:
    """Load the newest checkpoint; return its history, and the damaged ones."""
    damaged: list[Path] = []
    best = None if settings.early_stopping_patience is None else folder / BEST
    updates, skipping = others

    def take_state(state: Mapping[str, torch.Tensor]) -> None:
        updates.set_state({name: value for name, value in state.items() if not name.startswith(SKIPPING)})
        if skipping is not None:
            skipping.set_state(state)

    history = checkpoint.restore(
        folder, parameters, optimizer, best=best, on_damage=damaged.append, on_state=take_state
    )
    return history, damaged


def _build_collate(context: RunContext, model: Any) -> Collate:
    pad_id, settings = context.tokenizer.pad_token_id, context.settings
    if not settings.packing:
        return partial(pad_rows, pad_id=pad_id)
    return partial(pack_rows, pad_id=pad_id, max_length=int(settings.max_length or 0), dtype=model.dtype)


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
