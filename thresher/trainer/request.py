"""What a call of `train` asks for, resolved and checked before any model is loaded."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import MANIFEST
from thresher.artifacts.manifest import Manifest, versions
from thresher.dataset import Dataset, Schema, load
from thresher.errors import InputError, SettingsError, first_three
from thresher.models.causal_lm.adapter import ADAPTER_CONFIG
from thresher.models.causal_lm.base_model import BaseModel, find_base
from thresher.subset.subset import Subset, open_subset, read_subset_rows
from thresher.trainer.engine.load_model import build_4bit_options, find_embedded_base, refuse_quantized
from thresher.trainer.settings import Task, TrainSettings
from thresher.trainer.split import RowSplit, parse_share, sort_by_id, split_rows

KINDS: dict[str, tuple[str, ...]] = {  # kind of data -> tasks it can be trained for, the first one by default
    "sft": ("sft",),
    "classification": ("classification",),
    "text": ("text",),
}
MAX_SEED = 2**63
PACKAGES = ("torch", "transformers", "peft", "accelerate", "tokenizers", "numpy")


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that determines the result of `train`, resolved and checked before any model is loaded.

    Attributes:
        parts: rows to learn from, to measure on and to draw the control from.
        data: the rows that were given, before any were held out.
        labels: all labels of the data and of the pool it was chosen from, sorted; empty for
            language models.
        subset_hash: hash of the manifest of the subset that was given, or None.
        base: the model.
        task: resolved.
        settings: resolved.
        seeds: of the runs; the adapter is that of the first.
        is_merged: also write the full model with the adapter merged in.
        unusable: "data" and "eval" -> how many rows cannot be used, by reason; without those that
            are all usable.
    """

    parts: RowSplit
    data: Dataset
    labels: tuple[str, ...]
    subset_hash: str | None
    base: BaseModel
    task: Task
    settings: TrainSettings
    seeds: tuple[int, ...]
    is_merged: bool
    unusable: Mapping[str, Mapping[str, int]]

    def identity(self) -> dict[str, Any]:
        """Return what determines the result, as JSON values."""
        parts = self.parts
        return {
            "data": self.data.fingerprint,
            "train": content_hash(parts.train),
            "held_out": None if parts.held_out is None else content_hash(parts.held_out),
            "control": None if parts.control is None else content_hash(parts.control),
            "sources": sorted(source.sha256 for source in self.data.sources if source.sha256 is not None),
            "labels": list(self.labels),
            "subset": self.subset_hash,
            "model": {"name": self.base.name, "fingerprint": self.base.fingerprint},
            "task": self.task,
            "settings": {k: v for k, v in self.settings.to_json().items() if k != "save_every_s"},
            "seeds": list(self.seeds),
            "is_merged": self.is_merged,
            "versions": versions(PACKAGES),
        }


def resolve(
    data: Any,
    *,
    model: str | Path | None,
    eval: Any,  # noqa: A002 - the name of the command's option
    control: Any,
    seeds: int,
    task: str,
    settings: TrainSettings,
    seed: int,
    is_merged: bool,
    labels: Sequence[str] | None = None,
) -> Request:
    """Load and check what `train` was given; its arguments are described there.

    `labels` names all classes of the head, where the caller knows of more than the rows show.

    Raises:
        InputError: the rows, the model or the held-out rows do not fit.
        SettingsError: a setting does not fit the model or the machine.
    """
    if seeds < 1 or seed < 0:
        raise SettingsError(f"train: seeds must be at least 1 and seed at least 0, got {seeds} and {seed}")
    if seed + seeds > MAX_SEED:
        raise SettingsError(f"train: seeds must stay below 2**63, which is all that torch takes, got {seed}; lower it")
    is_named = isinstance(control, str) and control in ("auto", "none")
    rows, pool, subset_hash = _rows_of(data, with_pool=is_named and control == "auto" and eval is not None)
    if not is_named:
        pool, has_control = load_rows(control, rows.schema), True
    else:
        has_control = control == "auto" and pool is not None and eval is not None
    if has_control and eval is None:
        raise InputError("control: random rows are compared on held-out rows, found none; give --eval")
    chosen = _task(rows, task)
    share = parse_share(eval)
    held_out = share if share is not None or eval is None else load_rows(eval, rows.schema)
    for other, name in ((pool, "control"), (held_out, "eval")):
        if other is not None and not isinstance(other, float) and other.kind != rows.kind:
            raise InputError(
                f"{name}: its rows must be of the same kind as the training rows ({rows.kind}), got {other.kind}"
            )
    if not len(rows):
        raise InputError("train: at least one row is needed, found none")
    parts = split_rows(
        sort_by_id(rows),
        pool=None if pool is None else sort_by_id(pool),
        held_out=held_out,
        seed=seed,
        control=has_control,
    )
    classes = _labels(rows, pool, labels or ()) if chosen == "classification" else ()
    if classes and parts.held_out is not None:
        _require_known_label(parts.held_out, classes)
    base = _base(model, chosen)
    return Request(
        parts=parts,
        data=rows,
        labels=classes,
        subset_hash=subset_hash,
        base=base,
        task=chosen,
        settings=_resolved(settings, chosen, base, has_held_out=parts.held_out is not None),
        seeds=tuple(range(seed, seed + seeds)),
        is_merged=is_merged,
        unusable={
            role: given.rejected_by_reason
            for role, given in (("data", rows), ("eval", held_out))
            if isinstance(given, Dataset) and given.n_rejected
        },
    )


def _rows_of(data: Any, *, with_pool: bool) -> tuple[Dataset, Dataset | None, str | None]:
    """Return the rows, the pool they were chosen from, and the hash of the subset's manifest."""
    if isinstance(data, str | Path) and (Path(data) / MANIFEST).is_file():
        if not with_pool:
            return read_subset_rows(data), None, Manifest.read(data).hash
        data = open_subset(data)
    if isinstance(data, Subset):
        return data.dataset, data.pool, data.manifest.hash
    return load_rows(data), None, None


def load_rows(data: Any, schema: Schema | None = None) -> Dataset:
    """Return a Dataset as it is, and load anything else, with the schema of other rows when one is given."""
    return data if isinstance(data, Dataset) else load(data, schema=schema)


def content_hash(rows: Dataset) -> str:
    """Return the hash of what is learned from: ids alone say nothing of the content where a column names the rows."""
    hashed = hashlib.sha256()
    for row in rows.frame.select("row_id", "prompt", "response").sort("row_id").iter_rows():
        hashed.update("\0".join(row).encode() + b"\1")
    if rows.kind == "sft" and rows.id_column is not None:  # then no id tells of turns and tools
        order = rows.frame["row_id"].arg_sort().to_numpy()
        for talk in rows.messages(order):
            hashed.update(json.dumps([talk.messages, talk.tools], sort_keys=True).encode())
    return hashed.hexdigest()


def _task(rows: Dataset, task: str) -> Task:
    legal = KINDS[rows.kind]
    if task != "auto" and task not in legal:
        raise InputError(f"task: rows of kind '{rows.kind}' can be trained for {', '.join(legal)}, got '{task}'")
    return legal[0] if task == "auto" else task  # type: ignore[return-value]


def _labels(rows: Dataset, pool: Dataset | None, more: Sequence[str]) -> tuple[str, ...]:
    """Return all labels, sorted. Those of the pool count, so that both sides of a comparison have the same head."""
    labels = set(rows.frame["response"].unique()) | set(more)
    if pool is not None:
        labels |= set(pool.frame["response"].unique())
    if len(labels) < 2:
        raise InputError(f"train: classification needs at least two labels, found {sorted(labels)}")
    return tuple(sorted(labels))


def _require_known_label(held_out: Dataset, labels: tuple[str, ...]) -> None:
    found = sorted(held_out.frame["response"].unique())
    if not set(found) & set(labels):
        raise InputError(
            f"eval: at least one row must have a label of the training rows ({first_three(list(labels))}), "
            f"found {first_three(found)}; check its label column"
        )


def _base(model: str | Path | None, task: Task) -> BaseModel:
    if model is None:
        return find_embedded_base(task)
    if (Path(model).expanduser() / ADAPTER_CONFIG).is_file():
        raise InputError(f"model: must be a base model, got the adapter '{model}'; merge it into its base (--merge)")
    base = find_base(model)
    refuse_quantized(base)
    return base


def _resolved(settings: TrainSettings, task: Task, base: BaseModel, *, has_held_out: bool) -> TrainSettings:
    """Make the choices by task, and check what needs the model's configuration."""
    resolved = settings.resolved(task)
    limit, wanted = base.max_positions, settings.max_length
    if limit is not None and wanted is not None and wanted > limit:
        raise SettingsError(f"train: max_length must be at most {limit}, the model's longest input, got {wanted}")
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
    if settings.eval_every is not None and not has_held_out:
        raise SettingsError(f"train: eval_every ({settings.eval_every}) needs held-out rows; give --eval")
    if settings.load_in_4bit:
        build_4bit_options(is_bf16=False)
    return resolved
