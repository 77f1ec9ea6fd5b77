"""What a call of `train` asks for, resolved and checked before any model is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest, versions
from thresher.artifacts.remote.fetch import localize
from thresher.dataset import Dataset, Schema, load
from thresher.dataset.loading import load_side_rows
from thresher.dataset.settings import ReadSettings
from thresher.errors import InputError, SettingsError, first_three
from thresher.evaluation.lm_eval_task import check_lm_eval_task, identify_lm_eval_task
from thresher.models.adapter_files import ADAPTER_CONFIG
from thresher.models.causal_lm.base_model import BaseModel, load_tokenizer
from thresher.models.causal_lm.chat_template import prepare_template
from thresher.models.causal_lm.default_model import choose_model
from thresher.subset.subset import Subset, is_subset_folder, open_subset, read_subset_rows
from thresher.trainer.engine.adapters.kinds import RECIPES, check_adapter
from thresher.trainer.engine.load_model import (
    build_4bit_options,
    choose_precision,
    find_minilm_base,
    find_named_base,
    refuse_quantized,
)
from thresher.trainer.engine.pooling import AUTO, OWN_HEAD, Pooling, choose_pooling
from thresher.trainer.engine.processes import open_accelerator
from thresher.trainer.engine.row_choice.reference import check_choice, identify_reference
from thresher.trainer.engine.tokenization import Examples, tokenize
from thresher.trainer.events import OnEvent, TrainEvent, ignore
from thresher.trainer.going_on import Start, open_start
from thresher.trainer.settings import Task, TrainSettings
from thresher.trainer.split import SAME, RowSplit, keep_same_control, parse_share, sort_by_id, split_rows
from thresher.trainer.untouched.settings import UntouchedSettings
from thresher.trainer.weights import identify_weights

MAX_SEED = 2**63
NAMED = ("auto", "none", SAME)  # controls that are no rows
LEARNER = 3  # raise it when classifiers of earlier versions of the code must not be used again
NOTHING = UntouchedSettings(base="none", general="none")  # is measured of the untouched model
PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")


@dataclass(frozen=True, kw_only=True)
class RunContext:
    """Everything that determines the result of a call of `train`, and what its runs share.

    Tokenizer and accelerator are opened when they are first needed, so that a context costs nothing
    where only its identity is asked for.

    Attributes:
        split: rows to learn from, to measure on, and to sample the control from.
        data: the rows that were given, before any were held out.
        labels: all labels of the data and of the pool it was chosen from, sorted, which is the
            order of the head's outputs; empty for language models.
        subset_hash: hash of the manifest of the subset that was given, or None.
        base: the model to adapt.
        pooling: that a classifier reads; None for the head of its architecture, and other tasks.
        task: decides model class and loss.
        settings: resolved.
        seeds: of the runs; the adapter is that of the first.
        is_merged: also write the full model with the adapter merged in.
        untouched: how the base is measured before training.
        is_diagnosed: also look at what training did to the weights.
        start: the adapter that training goes on from, or None for a fresh one.
        loaded: those of "data", "eval" and "control" that were loaded here, for the listener.
        unusable: "data" and "eval" -> how many rows cannot be used, by reason; without those that
            are all usable.
        on_event: listener; only the main process calls it.
    """

    split: RowSplit
    data: Dataset
    labels: tuple[str, ...]
    subset_hash: str | None
    base: BaseModel
    pooling: Pooling | None
    task: Task
    settings: TrainSettings
    seeds: tuple[int, ...]
    is_merged: bool
    unusable: Mapping[str, Mapping[str, int]]
    untouched: UntouchedSettings = NOTHING
    is_diagnosed: bool = False
    start: Start | None = None
    loaded: Mapping[str, Dataset] = field(default_factory=dict)
    on_event: OnEvent = ignore

    @cached_property
    def tokenizer(self) -> Any:
        """The base's tokenizer, with its chat template made ready for conversations."""
        tokenizer = load_tokenizer(self.base)
        if self.task == "sft":
            prepare_template(tokenizer)
        return tokenizer

    @cached_property
    def accelerator(self) -> Any:
        """The accelerator of the processes and devices that the launcher gave us."""
        return open_accelerator(self.settings)

    @cached_property
    def general_rows(self) -> tuple[Dataset, ...]:
        """The rows that are not of the task, by kind and sorted by id; none for classifiers."""
        files = () if self.task == "classification" else self.untouched.general_files
        return tuple(sort_by_id(load(file)) for file in files)

    def tokenize(self, rows: Dataset, labels: Sequence[str] | None = None) -> Examples:
        """Turn rows into examples for this model; default of `labels`: those of the head."""
        return tokenize(
            rows,
            self.tokenizer,
            task=self.task,
            max_length=int(self.settings.max_length or 0),
            loss_on=self.settings.loss_on,
            classes=self.labels if labels is None else labels,
            special_tokens=self.settings.special_tokens,
        )

    def identity(self) -> dict[str, Any]:
        """Return what determines the result, as JSON values."""
        split = self.split
        return {
            "data": self.data.fingerprint,
            "train": content_hash(split.train),
            "held_out": None if split.held_out is None else content_hash(split.held_out),
            "control": None if split.control is None else content_hash(split.control),
            "sources": sorted(source.sha256 for source in self.data.sources if source.sha256 is not None),
            "labels": list(self.labels),
            "subset": self.subset_hash,
            "model": {"name": self.base.name, "fingerprint": self.base.fingerprint},
            "task": self.task,
            "settings": {k: v for k, v in self.settings.to_json().items() if k != "save_every_s"},
            "seeds": list(self.seeds),
            "is_merged": self.is_merged,
            "versions": versions(PACKAGES),
            **identify_weights(self.settings.weight, self.split),
            **({"control_is": SAME} if split.is_control_same else {}),
            **identify_reference(self.settings, self.base),
            **({"shots": list(self.untouched.prompts)} if split.held_out is not None else {}),
            **({"general_by_id": [content_hash(rows) for rows in self.general_rows]} if self.general_rows else {}),
            **self._identify_scale(),
            **({"is_diagnosed": True} if self.is_diagnosed else {}),
            **({"recipe": RECIPES[kind]} if (kind := self.settings.adapter) in RECIPES else {}),
            **identify_lm_eval_task(self.settings.metric),
            **(split.identify_answered(self.settings) if self.task == "sft" else {}),
            **({} if self.start is None else {"start": self.start.identity()}),
            # a checkpoint of a classifier that read something else must not be continued
            **({} if self.task != "classification" else {"learner": self.describe_learner()}),
        }

    def _identify_scale(self) -> dict[str, Any]:
        """Return what else of `untouched` changes the result."""
        untouched = self.untouched
        about: dict[str, Any] = {"forget": untouched.forget} if self.general_rows else {}
        return about if untouched.scale == "trained" else {**about, "scale": untouched.scale}

    def describe_learner(self) -> dict[str, Any]:
        """Return what a classifier reads, and the version of how it learns."""
        pooling = self.pooling
        return {
            "recipe": LEARNER,
            "pooling": OWN_HEAD if pooling is None else list(pooling.modes),
            "is_normalized": pooling is not None and pooling.is_normalized,
        }


def resolve_run(
    data: Any,
    *,
    model: str | Path | None,
    settings: TrainSettings,
    seed: int,
    eval: Any = None,  # noqa: A002 - the name of the command's option
    control: Any = "none",
    seeds: int = 1,
    task: str = "auto",
    is_merged: bool = False,
    is_diagnosed: bool = False,
    labels: Sequence[str] = (),
    is_apart: bool = False,
    untouched: UntouchedSettings = NOTHING,
    start_from: str | Path | None = None,
    on_event: OnEvent = ignore,
) -> RunContext:
    """Load and check what `train` was given; its arguments are described there.

    `labels` names all classes of the head, if the rows show fewer; `is_apart` as in `split_rows`.

    Raises:
        InputError: the rows, the model or the held-out rows do not fit.
        SettingsError: a setting does not fit the model or the machine.
    """
    numbers = _list_seeds(seed, seeds)
    rows, pool, subset_hash, has_control = _load_sides(data, control, has_eval=eval is not None)
    chosen_task = _choose_task(rows, task)
    held_out = parse_share(eval) or (None if eval is None else load_rows(eval, rows.schema))
    _require_same_kind(rows, {"control": pool, "eval": held_out})
    split = split_rows(rows, pool=pool, held_out=held_out, seed=seed, control=has_control, is_apart=is_apart)
    classes = _list_classes(rows, pool, labels, split.held_out, chosen_task)
    start, settings, model = _open_start(start_from, settings, model)
    base = _find_base(model, chosen_task, on_event)
    own = _resolve_settings(settings, chosen_task, base, has_held_out=split.held_out is not None)
    check_adapter(own, chosen_task, scale=untouched.scale, is_merged=is_merged, is_diagnosed=is_diagnosed)
    pooling = choose_pooling(base, own.pooling) if chosen_task == "classification" else None
    if start is not None:
        start.check_fit(base, classes, pooling)
    return RunContext(
        split=keep_same_control(split, settings, control),
        data=rows,
        labels=classes,
        subset_hash=subset_hash,
        base=base,
        pooling=pooling,
        task=chosen_task,
        settings=own,
        seeds=numbers,
        is_merged=is_merged,
        is_diagnosed=is_diagnosed,
        untouched=untouched,
        start=start,
        unusable=_count_unusable({"data": rows, "eval": held_out}),
        loaded=_list_loaded({"data": (data, rows), "eval": (eval, held_out), "control": (control, pool)}),
        on_event=on_event,
    )


def _list_classes(
    rows: Dataset, pool: Dataset | None, labels: Sequence[str], held_out: Dataset | None, task: Task
) -> tuple[str, ...]:
    """Return the labels of both sides, none of other tasks; held-out rows must have one of them."""
    if task != "classification":
        return ()
    classes = _collect_labels(rows, pool, labels)
    if classes and held_out is not None:
        _require_known_label(held_out, classes)
    return classes


def _open_start(
    folder: str | Path | None, settings: TrainSettings, model: str | Path | None
) -> tuple[Start | None, TrainSettings, str | Path | None]:
    """Return the adapter to continue from, with the settings and the base that it decides."""
    if folder is None:
        return None, settings, model
    start = open_start(folder)
    return start, start.take_settings(settings), start.choose_model(model)


def _count_unusable(sides: Mapping[str, Any]) -> dict[str, Mapping[str, int]]:
    return {
        name: side.rejected_by_reason for name, side in sides.items() if isinstance(side, Dataset) and side.n_rejected
    }


def _require_same_kind(rows: Dataset, others: Mapping[str, Dataset | float | None]) -> None:
    """Refuse rows of another kind than those of the training, and a training without any."""
    for name, other in others.items():
        if other is not None and not isinstance(other, float) and other.kind != rows.kind:
            raise InputError(
                f"{name}: its rows must be of the same kind as the training rows ({rows.kind}), got {other.kind}"
            )
    if not len(rows):
        raise InputError("train: at least one row is needed, found none")


def _list_seeds(seed: int, seeds: int) -> tuple[int, ...]:
    if seeds < 1 or seed < 0:
        raise SettingsError(f"train: seeds must be at least 1 and seed at least 0, got {seeds} and {seed}")
    if seed + seeds > MAX_SEED:
        raise SettingsError(f"train: seeds must stay below 2**63, which is all that torch takes, got {seed}; lower it")
    return tuple(range(seed, seed + seeds))


def _list_loaded(sides: Mapping[str, tuple[Any, Any]]) -> dict[str, Dataset]:
    """Return the rows that were loaded, of pairs of what was given and what it became."""
    return {
        name: rows
        for name, (given, rows) in sides.items()
        if isinstance(rows, Dataset)
        and not isinstance(given, Dataset | Subset)
        and not (isinstance(given, str) and given in NAMED)
    }


def _load_sides(data: Any, control: Any, *, has_eval: bool) -> tuple[Dataset, Dataset | None, str | None, bool]:
    """Return rows, their pool, the subset's manifest hash, and whether a control is trained."""
    is_named = isinstance(control, str) and control in NAMED
    rows, pool, subset_hash = _load_data(data, with_pool=is_named and control == "auto" and has_eval)
    if is_named:
        return rows, pool, subset_hash, control == "auto" and pool is not None and has_eval
    if not has_eval:
        raise InputError("control: random rows are compared on held-out rows, found none; give --eval")
    return rows, load_rows(control, rows.schema), subset_hash, True


def _load_data(data: Any, *, with_pool: bool) -> tuple[Dataset, Dataset | None, str | None]:
    """Return the rows, the pool they were chosen from, and the hash of the subset's manifest."""
    if isinstance(data, str | Path) and is_subset_folder(data):
        data = localize(data)
        if not with_pool:
            return read_subset_rows(data), None, Manifest.read(data).hash
        data = open_subset(data)
    if isinstance(data, Subset):
        return data.dataset, data.pool, data.manifest.hash
    return load_rows(data), None, None


def load_rows(data: Any, schema: Schema | None = None) -> Dataset:
    """Return a Dataset as it is, and load anything else, by the schema of others where it fits."""
    if isinstance(data, Dataset):
        return data
    if schema is None:
        return load(data)
    return load_side_rows(data, ReadSettings(schema=schema, wanted=schema.wanted))


def content_hash(rows: Dataset) -> str:
    """Return the hash of what is learned from; ids from a column do not depend on it."""
    hashed = hashlib.sha256()
    for row in rows.frame.select("row_id", "prompt", "response").sort("row_id").iter_rows():
        hashed.update("\0".join(row).encode() + b"\1")
    if rows.kind == "sft" and rows.id_column is not None:  # then no id depends on turns and tools
        order = rows.frame["row_id"].arg_sort().to_numpy()
        for conversation in rows.messages(order):
            hashed.update(json.dumps([conversation.messages, conversation.tools], sort_keys=True).encode())
    return hashed.hexdigest()


def _choose_task(rows: Dataset, task: str) -> Task:
    """Return the task: rows of each kind have one, of the same name."""
    if task not in ("auto", rows.kind):
        raise InputError(f"task: rows of kind '{rows.kind}' can be trained for {rows.kind}, got '{task}'")
    return rows.kind  # type: ignore[return-value]


def _collect_labels(rows: Dataset, pool: Dataset | None, more: Sequence[str]) -> tuple[str, ...]:
    """Return all labels, sorted; with those of the pool, so that both sides have the same head."""
    labels = set(rows.frame["response"].unique()) | set(more)
    if pool is not None:
        labels |= set(pool.frame["response"].unique())
    if len(labels) < 2:
        raise InputError(f"train: classification needs at least two labels, found {sorted(labels)}")
    return tuple(sorted(labels))


def _require_known_label(held_out: Dataset, labels: tuple[str, ...]) -> None:
    held_out_labels = sorted(held_out.frame["response"].unique())
    if not set(held_out_labels) & set(labels):
        raise InputError(
            f"eval: at least one row must have a label of the training rows ({first_three(list(labels))}), "
            f"found {first_three(held_out_labels)}; check its label column"
        )


def _find_base(model: str | Path | None, task: Task, on_event: OnEvent) -> BaseModel:
    if model is None and task == "classification":
        return find_minilm_base()
    if model is None:
        model = choose_model(lambda note: on_event(TrainEvent(kind="note", message=note)))
    if (Path(model).expanduser() / ADAPTER_CONFIG).is_file():
        raise InputError(f"model: must be a base model, got the adapter '{model}'; merge it into its base (--merge)")
    refuse_quantized(base := find_named_base(model))
    return base


def _resolve_settings(settings: TrainSettings, task: Task, base: BaseModel, *, has_held_out: bool) -> TrainSettings:
    """Fill in the task's defaults, and check what needs the model's configuration."""
    check_choice(settings, task, base)
    precision = choose_precision(settings.precision, base=base, task=task, device=settings.device)
    resolved = replace(settings.resolved(task), precision=precision)
    limit, max_length = base.max_positions, settings.max_length
    if limit is not None and max_length is not None and max_length > limit:
        raise SettingsError(f"train: max_length must be at most {limit}, the model's longest input, got {max_length}")
    if limit is not None and resolved.max_length is not None:
        resolved = replace(resolved, max_length=min(resolved.max_length, limit))
    is_answering = task == "sft" and has_held_out and settings.eval_generations > 0
    if is_answering and limit is not None and settings.max_new_tokens >= limit:
        raise SettingsError(
            f"train: max_new_tokens must be below {limit}, the model's longest input, got {settings.max_new_tokens}; "
            f"lower it, or set eval_generations to 0"
        )
    if settings.early_stopping_patience is not None and not has_held_out:
        raise SettingsError("train: early stopping needs held-out rows; give --eval")
    if settings.metric is not None:
        check_lm_eval_task(settings.metric, has_labels=task == "classification", has_held_out=has_held_out)
    if settings.eval_every is not None and not has_held_out:
        raise SettingsError(f"train: eval_every ({settings.eval_every}) needs held-out rows; give --eval")
    if settings.pooling != AUTO and task != "classification":
        raise SettingsError(f"train: pooling is for classification, got '{settings.pooling}' for task '{task}'")
    if settings.load_in_4bit:
        build_4bit_options(settings)
    return resolved
