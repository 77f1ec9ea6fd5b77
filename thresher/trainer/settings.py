"""Settings of one training run. Every default of the trainer stands here and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any, Literal

from thresher.errors import SettingsError

Task = Literal["sft", "classification", "text"]

CHOICES: dict[str, tuple[str, ...]] = {
    "schedule": ("cosine", "linear", "constant"),
    "precision": ("auto", "fp32", "bf16"),
    "loss_on": ("all-assistant", "last-assistant"),
}

# Chosen by task when a setting is not set. Classification: found on 500-1,000 rows of short text
# with MiniLM.
BY_TASK: dict[str, dict[str, Any]] = {
    "classification": {"learning_rate": 1e-3, "epochs": 3.0, "max_length": 256, "batch_size": 16},
    "sft": {"learning_rate": 2e-4, "epochs": 3.0, "max_length": 2048, "batch_size": 16},
    "text": {"learning_rate": 2e-4, "epochs": 1.0, "max_length": 2048, "batch_size": 16},
}


@dataclass(frozen=True, kw_only=True)
class TrainSettings:
    """How an adapter is trained. A field that is None is chosen by the task; the choice is written down.

    Attributes:
        learning_rate: peak rate of AdamW.
        schedule: how the rate falls after the warm-up: "cosine" or "linear" to zero, or "constant".
        warmup_share: share of the optimizer steps in which the rate rises linearly from zero.
        epochs: passes over the rows; excludes `max_steps`.
        max_steps: optimizer steps; excludes `epochs`.
        stop_at: share of the optimizer steps after which training stops, as a run that is judged
            early: the learning rate falls as if it went on.
        batch_size: rows per optimizer step, over all processes and all accumulation pieces
            together. The recipe therefore does not change with the number of devices.
        gradient_accumulation: forward passes into which each process cuts its share of a step;
            costs time, saves memory, and leaves the result the same.
        max_length: tokens per row; longer rows are cut at the end and counted.
        lora_rank: rank of the update of each weight matrix.
        lora_alpha: the update is scaled by alpha / rank (alpha / sqrt(rank) with `rslora`); 2 *
            rank when not set.
        lora_dropout: dropout before the first low-rank matrix.
        lora_targets: names of the layers to adapt, or "auto": all linear layers but the head and
            those that cannot be adapted or read no text.
        rslora: rank-stabilised scaling (Kalajdzievski 2023, arXiv:2312.03732).
        dora: weight-decomposed update (Liu et al. 2024, arXiv:2402.09353).
        weight_decay: decoupled decay of AdamW.
        max_grad_norm: gradients are scaled down to this norm.
        early_stopping_patience: evaluations without a lower held-out loss before training stops;
            the weights of the lowest loss are kept. None trains to the end.
        eval_every: optimizer steps between held-out evaluations during training; None evaluates at
            the end only, or once per epoch with early stopping.
        save_every_s: seconds between checkpoints.
        gradient_checkpointing: recompute activations in the backward pass; costs time, saves
            memory.
        precision: "fp32", "bf16" (weights and activations; the adapter stays in float32), or
            "auto": bf16 where the GPU has it.
        load_in_4bit: hold the base model in 4-bit NF4 (QLoRA, Dettmers et al. 2023,
            arXiv:2305.14314); needs CUDA.
        packing: lay the rows of a step end to end instead of padding them. Rows do not see one
            another, so the result is the same; it saves time when lengths differ much.
        loss_on: turns of a conversation that are learned: "all-assistant" or "last-assistant".
        eval_generations: held-out rows for which an answer is generated and compared with the
            reference; 0 for none.
        max_new_tokens: length limit of a generated answer.
    """

    learning_rate: float | None = None
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    warmup_share: float = 0.1
    epochs: float | None = None
    max_steps: int | None = None
    stop_at: float = 1.0
    batch_size: int | None = None
    gradient_accumulation: int = 1
    max_length: int | None = None
    lora_rank: int = 8
    lora_alpha: float | None = None
    lora_dropout: float = 0.0
    lora_targets: tuple[str, ...] | Literal["auto"] = "auto"
    rslora: bool = False
    dora: bool = False
    weight_decay: float = 0.01
    max_grad_norm: float = 1.0
    early_stopping_patience: int | None = None
    eval_every: int | None = None
    save_every_s: float = 30.0
    gradient_checkpointing: bool = False
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    load_in_4bit: bool = False
    packing: bool = False
    loss_on: Literal["all-assistant", "last-assistant"] = "all-assistant"
    eval_generations: int = 100
    max_new_tokens: int = 128

    def __post_init__(self) -> None:
        """Check every field, and raise all problems together.

        Raises:
            SettingsError: at least one field has an illegal value.
        """
        problems = list(_problems(self))
        if problems:
            raise SettingsError("train: " + "; ".join(problems))

    def resolved(self, task: Task) -> TrainSettings:
        """Return the settings with every choice by task made. `epochs` stays None where `max_steps` is set."""
        chosen = {name: value for name, value in BY_TASK[task].items() if getattr(self, name) is None}
        if self.max_steps is not None:
            chosen.pop("epochs", None)
        if self.lora_alpha is None:
            chosen["lora_alpha"] = 2.0 * self.lora_rank
        return replace(self, **chosen)

    def to_json(self) -> dict[str, Any]:
        """Return the settings as JSON values, by field name."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}


# name -> (lowest legal value, is the lowest value itself illegal)
_BOUNDS: dict[str, tuple[float, bool]] = {
    "learning_rate": (0, True),
    "epochs": (0, True),
    "max_steps": (1, False),
    "batch_size": (1, False),
    "gradient_accumulation": (1, False),
    "max_length": (2, False),
    "lora_rank": (1, False),
    "lora_alpha": (0, True),
    "weight_decay": (0, False),
    "max_grad_norm": (0, True),
    "early_stopping_patience": (1, False),
    "eval_every": (1, False),
    "save_every_s": (0, False),
    "eval_generations": (0, False),
    "max_new_tokens": (1, False),
}


def _problems(settings: TrainSettings) -> Iterator[str]:
    kind = {field.name: str(field.type) for field in fields(settings)}
    for name, (low, is_open) in _BOUNDS.items():
        value = getattr(settings, name)
        is_whole = kind[name].startswith("int")
        if value is not None and (isinstance(value, bool) or not isinstance(value, int if is_whole else int | float)):
            yield f"{name} must be a {'whole ' if is_whole else ''}number, got {value!r}"
            continue
        is_legal = value is None or (low < value < float("inf") if is_open else low <= value < float("inf"))
        if not is_legal:  # NaN fails both comparisons
            yield f"{name} must be {'above' if is_open else 'at least'} {low}, got {value}"
    yield from _problems_of_shares(settings)
    for name, legal in CHOICES.items():
        if getattr(settings, name) not in legal:
            yield f"{name} must be one of {', '.join(legal)}, got '{getattr(settings, name)}'"
    if settings.epochs is not None and settings.max_steps is not None:
        yield f"epochs ({settings.epochs}) and max_steps ({settings.max_steps}) exclude each other; set one"
    targets: object = settings.lora_targets
    if targets != "auto" and (isinstance(targets, str) or not targets):
        yield f"lora_targets must be 'auto' or a tuple of layer names, got {targets!r}"


def _problems_of_shares(settings: TrainSettings) -> Iterator[str]:
    for name in ("warmup_share", "lora_dropout", "stop_at"):
        value, excluded = getattr(settings, name), 0 if name == "stop_at" else 1
        if isinstance(value, bool) or not isinstance(value, int | float):
            yield f"{name} must be a number, got {value!r}"
        elif not 0 <= value <= 1 or value == excluded:
            yield f"{name} must be in 0..1 ({excluded} excluded), got {value}"
