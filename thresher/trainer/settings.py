"""Settings of one training run. Every default of the trainer stands here and nowhere else."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from typing import Any, Literal

from thresher.evaluation.task_name import PREFIX, names_lm_eval_task
from thresher.models.settings import TREATMENT_HELP, Treatment, declare_device
from thresher.validation import check_settings, option

Precision = Literal["auto", "fp32", "bf16"]
Task = Literal["sft", "classification", "text"]
PoolingName = Literal["auto", "head", "cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken"]
AdapterKind = Literal[
    "lora", "loraplus", "lorafa", "half", "pissa", "olora", "orthogonal", "eva", "corda", "adalora", "vera", "prompt",
    "prefix", "full",
]  # fmt: skip

# The default of a setting that is None. Classification: measured on 500-1,000 rows of short text
# with MiniLM.
BY_TASK: dict[str, dict[str, Any]] = {
    "classification": {"learning_rate": 1e-3, "epochs": 3.0, "min_steps": 80, "max_length": 256, "batch_size": 16},
    "sft": {"learning_rate": 2e-4, "epochs": 3.0, "max_length": 2048, "batch_size": 16},
    "text": {"learning_rate": 2e-4, "epochs": 1.0, "max_length": 2048, "batch_size": 16},
}
# The default of a setting that is None, whatever the task. It is None so that one that was asked
# for can be told from it: a start or a search may decide the others.
COMMON: dict[str, Any] = {"adapter": "lora", "lora_rank": 8, "lora_dropout": 0.0, "virtual_tokens": 20}
# What the default rate is multiplied by for a kind of adapter: few numbers move far, all weights
# little.
RATE_FACTORS: dict[str, float] = {
    "full": 0.1, "loraplus": 0.25, "adalora": 10.0, "vera": 10.0, "prefix": 10.0, "prompt": 50.0
}  # fmt: skip
ADAPTER_HELP = (
    "What is trained. lora: two small matrices per layer; loraplus: LoRA with 16 times the learning rate for "
    "the second matrix; lorafa: with the first matrix frozen; half: with a random half of the layers per step; "
    "pissa, olora, orthogonal, eva, corda: with another initialization; adalora: ranks by importance; vera: "
    "vectors between random matrices; prompt, "
    "prefix: virtual tokens; full: all weights. Default: lora, or that of --from."
)
# settings that are not written where they are at their default: runs of before have no such key
UNWRITTEN: dict[str, Any] = {
    "special_tokens": None,
    "min_steps": None,
    "pooling": "auto",
    "weight": None,
    "adapter": "lora",
    "lora_layers": "all",
    "virtual_tokens": 20,
    "metric": None,
    "metric_limit": None,
    "skip": "none",
    "skip_rate": None,
    "mask_answer": 0.0,
    "tokens": "all",
    "token_share": 0.6,
    "token_reference": None,
}
# by which rows or tokens count differently; `--control same` trains without
OF_ROWS = ("weight", "skip", "skip_rate", "mask_answer", "tokens", "token_share", "token_reference")
SKIP_RATES = {"none": 0.0, "revisit": 0.5, "first": 0.9}

_optimizer = partial(option, panel="Optimizer and schedule")
_batches = partial(option, panel="Rows and memory")
_lora = partial(option, panel="LoRA")
_measure = partial(option, panel="Measuring and stopping")


@dataclass(frozen=True, kw_only=True, repr=False)
class TrainSettings:
    """How an adapter is trained; `thresher train --help` describes each field.

    A field that is None gets the default of the task, and the choice is written to `metrics.json`.

    Raises:
        SettingsError: at least one field has an illegal value; the message names all of them.
    """

    learning_rate: float | None = _optimizer(
        None, "Peak learning rate of AdamW; default: 1e-3 for classification, else 2e-4.", gt=0
    )
    schedule: Literal["cosine", "linear", "constant"] = _optimizer(
        "cosine", "How the learning rate decays after the warm-up; constant: not at all."
    )
    warmup_share: float = _optimizer(0.1, "Share of the steps for linear warm-up.", ge=0, lt=1)
    epochs: float | None = _optimizer(None, "Passes over the rows; default: 3, or 1 for text.", gt=0)
    min_steps: int | None = _optimizer(
        None,
        "Minimum number of optimizer steps, even with few rows; default: 80 for classification if neither "
        "epochs nor max_steps is given, else 1.",
        ge=1,
    )
    max_steps: int | None = _optimizer(None, "Optimizer steps, instead of epochs.", ge=1)
    stop_at: float = _optimizer(
        1.0,
        "Share of the steps after which to stop, for an early look; the schedule is that of the full training.",
        gt=0,
        le=1,
    )
    batch_size: int | None = _batches(
        None,
        "Rows per step, in total over all processes and accumulated passes, so the number of devices does not "
        "matter; default: 16.",
        ge=1,
    )
    gradient_accumulation: int = _batches(
        1, "Forward passes per step and process: saves memory, costs time, same result.", ge=1
    )
    max_length: int | None = _batches(
        None,
        "Tokens per row; longer rows are truncated at the end and counted; default: 256 for classification, else 2048.",
        ge=2,
    )
    pooling: PoolingName = _batches(
        "auto",
        "How a classifier pools the tokens of a text. auto: as the encoder was trained; head: the "
        "architecture's own head, such as BERT's first token.",
    )
    adapter: AdapterKind | None = _lora(None, ADAPTER_HELP)
    lora_rank: int | None = _lora(
        None,
        "Rank of the update of each weight matrix; adalora: on average; vera: 32 times as much; default: 8, or that "
        "of --from.",
        ge=1,
    )
    lora_alpha: float | None = _lora(
        None,
        "The update is scaled by alpha / rank, or alpha / sqrt(rank) with --rslora; default: twice the rank.",
        gt=0,
    )
    lora_dropout: float | None = _lora(None, "Dropout before the first low-rank matrix; default: 0.", ge=0, lt=1)
    lora_targets: tuple[str, ...] | Literal["auto"] = _lora(
        "auto",
        "Layers to adapt, by name: q_proj,v_proj; auto: all linear layers except the head and those that cannot "
        "be adapted or do not process text.",
    )
    lora_layers: str = _lora(
        "all",
        "Which of the model's layers are adapted: all, a range from 0 (8-15), or fisher: the quarter in which 200 rows "
        "have the largest squared gradients.",
    )
    virtual_tokens: int | None = _lora(
        None, "Tokens that prompt and prefix put before each row; default: 20, or that of --from.", ge=1
    )
    rslora: bool = _lora(False, "Rank-stabilized scaling (Kalajdzievski 2023, arXiv:2312.03732).")
    dora: bool = _lora(False, "Weight-decomposed update, DoRA (Liu et al. 2024, arXiv:2402.09353).")
    weight_decay: float = _optimizer(0.01, "Decoupled weight decay of AdamW.", ge=0)
    max_grad_norm: float = _optimizer(1.0, "Gradient norms are clipped to this value.", gt=0)
    early_stopping_patience: int | None = _measure(
        None,
        "Evaluations without a lower held-out loss before stopping; the weights with the lowest loss are used. "
        "Default: train to the end.",
        ge=1,
    )
    eval_every: int | None = _measure(
        None,
        "Steps between held-out evaluations; default: only at the end, or once per epoch with early stopping.",
        ge=1,
    )
    save_every_s: float = _measure(30.0, "Seconds between checkpoints.", ge=0)
    gradient_checkpointing: bool = _batches(
        False, "Recompute activations in the backward pass: saves memory, costs time."
    )
    precision: Precision = _batches(
        "auto",
        "Precision of weights and activations; the adapter stays in float32. auto: bf16 if the GPU supports it "
        "natively or, for language models over 50 MB, if the CPU does.",
    )
    device: str | None = declare_device("Rows and memory")
    load_in_4bit: bool = _batches(
        False,
        "Hold the base model in 4-bit NF4 (QLoRA, Dettmers et al. 2023, arXiv:2305.14314); needs CUDA.",
    )
    packing: bool = _batches(
        False,
        "Concatenate the rows of a step instead of padding them; same result, faster if lengths differ a lot.",
    )
    loss_on: Literal["all-assistant", "last-assistant"] = _batches(
        "all-assistant", "Turns whose tokens count toward the loss."
    )
    special_tokens: Treatment | None = _batches(None, TREATMENT_HELP)
    weight: str | None = _batches(
        None,
        "Column with the weight of each row in the loss: non-negative numbers, of which only ratios matter; "
        "rows with weight 0 are left out. Default: equal weights.",
    )
    skip: Literal["none", "revisit", "first"] = _batches(
        "none",
        "Skip easy rows, without bias. revisit: from the second epoch on, those whose last loss was below the "
        "mean; first: those found easier than rows of their length in a pass before each step.",
    )
    skip_rate: float | None = _batches(
        None, "Probability of skipping an easy row; default: 0.5 for revisit, 0.9 for first.", ge=0, lt=1
    )
    mask_answer: float = _batches(
        0.0,
        "Probability that a language model reads an answer token as padding; all tokens are learned.",
        ge=0,
        lt=1,
    )
    tokens: Literal["all", "novel"] = _batches(
        "all", "Answer tokens that are learned. novel: those that --token-reference predicts better than the base."
    )
    token_share: float = _batches(0.6, "Share of the answers' tokens that are novel.", gt=0, le=1)
    token_reference: str | None = _batches(
        None, "Adapter or model with the same vocabulary, trained on good rows of this kind (for --tokens novel)."
    )
    eval_generations: int = _measure(
        100,
        "Held-out rows, chosen by the hash of their ids, for which an answer is generated and compared with the "
        "reference; 0 for none.",
        ge=0,
    )
    max_new_tokens: int = _measure(128, "Length limit of a generated answer.", ge=1)
    metric: str | None = _measure(
        None,
        "Also measure a language model on a task of the lm-evaluation-harness: lm-eval:TASK, by name or the path of a "
        "YAML file.",
    )
    metric_limit: int | None = _measure(
        None, "Number of documents of an lm-eval task, from the first; default: all.", ge=2
    )

    def __repr__(self) -> str:
        """Return what differs from the defaults."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        changed = {field.name: values[field.name] for field in fields(self) if values[field.name] != field.default}
        return f"TrainSettings({', '.join(f'{name}={value!r}' for name, value in changed.items())})"

    def __post_init__(self) -> None:
        """Check every field, and raise all problems together."""
        targets: object = self.lora_targets
        if isinstance(targets, list):  # as read from JSON
            object.__setattr__(self, "lora_targets", tuple(targets))
        problems = []
        if self.epochs is not None and self.max_steps is not None:
            problems.append(f"epochs ({self.epochs}) and max_steps ({self.max_steps}) exclude each other; set one")
        if self.min_steps is not None and self.max_steps is not None:
            problems.append(
                f"min_steps ({self.min_steps}) and max_steps ({self.max_steps}) exclude each other; set one"
            )
        if not targets:
            problems.append(f"lora_targets must be 'auto' or the names of layers, got {targets!r}")
        check_settings(self, "train", [*problems, *self._list_choice_problems()])

    def _list_choice_problems(self) -> list[str]:
        """Return what is wrong with what is learned and measured."""
        problems = []
        if self.lora_layers not in ("all", "fisher") and not re.fullmatch(r"\d+(-\d+)?", self.lora_layers):
            problems.append(f"lora_layers must be all, fisher, or layers as 8-15, got {self.lora_layers!r}")
        if self.metric is not None and not names_lm_eval_task(self.metric):
            problems.append(f"metric must be {PREFIX}TASK, got {self.metric!r}; the loss is measured in any case")
        if self.metric_limit is not None and self.metric is None:
            problems.append(f"metric_limit ({self.metric_limit}) is of an lm-eval task; give metric, too")
        if self.skip_rate is not None and self.skip == "none":
            problems.append(f"skip_rate ({self.skip_rate}) is of skip; give skip, too")
        if self.skip != "none" and self.packing:
            problems.append("skip and packing exclude each other; set one")
        if (self.tokens == "novel") != (self.token_reference is not None):
            problems.append("tokens 'novel' and token_reference go together; give both")
        if self.tokens == "all" and self.token_share != UNWRITTEN["token_share"]:
            problems.append(f"token_share ({self.token_share}) is of tokens 'novel'; give tokens, too")
        return problems

    @property
    def plain(self) -> TrainSettings:
        """The settings by which every row and every token is learned alike."""
        return replace(self, **{name: UNWRITTEN[name] for name in OF_ROWS})

    @property
    def is_plain(self) -> bool:
        """Whether every row and every token is learned alike."""
        return self.plain == self

    @property
    def chance_to_skip(self) -> float:
        """The chance by which an easy row is passed over."""
        return SKIP_RATES[self.skip] if self.skip_rate is None else self.skip_rate

    def resolved(self, task: Task) -> TrainSettings:
        """Return the settings with the task's defaults; `max_steps` leaves `epochs` None."""
        defaults = {**BY_TASK[task], **COMMON}
        chosen = {name: value for name, value in defaults.items() if getattr(self, name) is None}
        kind, rank = str(chosen.get("adapter", self.adapter)), int(chosen.get("lora_rank", self.lora_rank) or 0)
        if self.max_steps is not None:
            chosen.pop("epochs", None)
        if self.max_steps is not None or self.epochs is not None:
            chosen.pop("min_steps", None)  # whoever asks for few steps means it
        if self.lora_alpha is None:
            chosen["lora_alpha"] = 2.0 * rank
        if self.learning_rate is None:
            chosen["learning_rate"] *= RATE_FACTORS.get(kind, 1.0)
        return replace(self, **chosen)

    @staticmethod
    def read(values: Mapping[str, Any]) -> TrainSettings:
        """Return resolved settings that `to_json` wrote, with the defaults that it leaves out."""
        return TrainSettings(**{**{name: COMMON[name] for name in UNWRITTEN if name in COMMON}, **values})

    def to_json(self) -> dict[str, Any]:
        """Return the settings that decide the result, as JSON values by field name."""
        values = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "device"}
        for name, default in UNWRITTEN.items():
            if values[name] == default or (name in COMMON and values[name] is None):
                del values[name]
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}
