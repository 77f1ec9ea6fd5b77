"""Adapters that a method needs trained on the pool before its features are computed.

A selector names them (see `thresher.features.reference_adapters.RequiredAdapter`). `plan_adapters`
says, without training or writing anything, where they will be; `estimate_training` what they will
cost; `train_missing_adapters` trains those that are not there. A killed run continues from its last
checkpoint.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from shutil import rmtree
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thresher.artifacts.disk_errors import delete_folder
from thresher.artifacts.folder import MANIFEST, write_atomic
from thresher.artifacts.manifest import FORMAT as MANIFEST_FORMAT
from thresher.artifacts.manifest import Manifest, digest
from thresher.artifacts.seal import encode_record, find_damage, hash_files, read_record, seal_record
from thresher.cache.folder_cache import FolderCache
from thresher.dataset import Dataset, load
from thresher.errors import InputError
from thresher.features.reference_adapters import (
    FILE,
    FOLDS,
    FORMAT,
    RequiredAdapter,
    TrainedFolder,
    assign_folds,
    hash_adapters,
)
from thresher.models.adapter_files import ADAPTER_CONFIG
from thresher.models.causal_lm.embedded import EMBEDDED_NAME
from thresher.models.causal_lm.language_model import DEFAULT_MAX_LENGTH, refuse_server
from thresher.models.causal_lm.tokenized_rows import row_texts
from thresher.progress import OnProgress, Progress

if TYPE_CHECKING:
    from thresher.features import FeatureContext
    from thresher.selectors import Selector
    from thresher.trainer.context import RunContext
    from thresher.trainer.engine.tokenization import Examples
    from thresher.trainer.events import OnEvent, TrainEvent

KIND = "trained"  # folder of the cache
RECIPE = 2  # raise it when adapters of earlier versions of the code must not be used again
# The embedded model is a thousandth of the size that the trainer's default rate is for, and learns
# little at it.
EMBEDDED_RATE = 1e-3
CHECKPOINTS = ".checkpoints"  # in the work folder, until it is published
N_TRIAL_STEPS = 4  # optimizer steps of an estimate


def get_adapter_cache() -> FolderCache:
    """Return where trained adapters are kept."""
    return FolderCache(KIND)


@dataclass(frozen=True, kw_only=True)
class PlannedAdapter:
    """Adapters that are not trained yet, or are there already.

    Attributes:
        required: what the method asks for.
        by: the method that asks for it.
        rows: of the pool, as a language model is shown them.
        fold: (n,) int64 of each row.
        is_learned: (n,) bool: whether the row is among the share that is learned.
        request: what training on all rows asks for: base model, settings, seed.
        folder: where the adapters lie or will lie.
    """

    required: RequiredAdapter
    by: str
    rows: Dataset
    fold: NDArray[np.int64]
    is_learned: NDArray[np.bool_]
    request: RunContext
    folder: TrainedFolder

    def positions(self, fold: int) -> NDArray[np.int64]:
        """Return the rows that the adapter of a fold learns from."""
        is_seen = self.is_learned if self.required.n_folds == 1 else self.fold != fold
        return np.flatnonzero(is_seen)

    @cached_property
    def n_rows(self) -> list[int]:
        """Rows that each adapter learns from."""
        return [len(self.positions(fold)) for fold in range(self.required.n_folds)]

    def describe(self) -> str:
        """Say what will be trained, or that it is there."""
        n, epochs = self.required.n_folds, self.required.epochs
        if self.folder.is_there:
            return f"{self.by}: {self.required.role} of {n} adapters found in {self.folder.path}"
        adapters = "an adapter" if n == 1 else f"{n} adapters"
        rows = " + ".join(f"{count:,}" for count in self.n_rows)
        return (
            f"{self.by}: trains {adapters} on {self.request.base.name} as its {self.required.role}, on {rows} rows, "
            f"{epochs} epoch{'' if epochs == 1 else 's'}; kept in {self.folder.path}"
        )


def plan_adapters(
    selector: Selector, pool: Dataset, context: FeatureContext, *, seed: int
) -> tuple[tuple[PlannedAdapter, ...], FeatureContext]:
    """Return the adapters that a selector needs, and the context with their folders in their roles.

    Nothing is trained and nothing is written.

    Args:
        selector: its requirements name the adapters.
        pool: rows to learn from.
        context: whose model the adapters are on.
        seed: of the training.

    Raises:
        InputError: the rows cannot be divided so, or the model cannot be trained.
    """
    planned = tuple(
        _plan_adapter(required, selector.name, pool, context, seed=seed) for required in selector.requirements.adapters
    )
    folders: dict[str, Any] = {each.required.role: each.folder for each in planned}
    return planned, replace(context, **folders)


def _plan_adapter(
    required: RequiredAdapter, by: str, pool: Dataset, context: FeatureContext, *, seed: int
) -> PlannedAdapter:
    from thresher.trainer.split import sample_by_hash

    rows = _to_conversations(pool)
    rows = rows.take(rows.frame["row_id"].arg_sort().to_numpy())
    fold = assign_folds(row_texts(rows), required.n_folds)
    if required.n_folds > 1 and len(np.unique(fold)) < 2:
        raise InputError(
            f"{by}: its {required.role} needs different rows in at least 2 of {required.n_folds} folds, found all "
            f"{len(rows)} in one; give more rows, or name one that is trained already with --set {required.role}=FOLDER"
        )
    request = _resolve_training(required, by, rows, context, seed=seed)
    settings = {name: value for name, value in request.identity().items() if name not in ("data", "sources", "subset")}
    identity = digest({**settings, "order": asdict(required), "folds": FOLDS, "recipe": RECIPE})
    return PlannedAdapter(
        required=required,
        by=by,
        rows=rows,
        fold=fold,
        is_learned=sample_by_hash(rows.frame["row_id"], required.share, seed=seed),
        request=request,
        folder=TrainedFolder(path=get_adapter_cache().folder(identity), identity=identity, n_folds=required.n_folds),
    )


def _to_conversations(pool: Dataset) -> Dataset:
    """Return classified texts as questions and answers, as a language model is shown them."""
    if pool.kind != "classification":
        return pool
    pairs = pool.frame.select("prompt", "response").iter_rows()
    return load([{"prompt": prompt, "completion": response} for prompt, response in pairs])


def _resolve_training(
    required: RequiredAdapter, by: str, rows: Dataset, context: FeatureContext, *, seed: int
) -> RunContext:
    from thresher.trainer.context import resolve_run
    from thresher.trainer.settings import TrainSettings

    model = named = context.resolve_model()
    refuse_server(model)
    if Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().resolve())  # the adapter names its base
        if (Path(model) / ADAPTER_CONFIG).is_file():
            raise InputError(
                f"{by}: its {required.role} is trained on a base model, got the adapter '{named}'; merge it "
                f"into its base, or name a trained one with --set {required.role}=FOLDER"
            )
    settings = TrainSettings(
        epochs=required.epochs,
        eval_generations=0,
        loss_on=context.models.loss_on,
        special_tokens=context.models.special_tokens,
        learning_rate=EMBEDDED_RATE if model == EMBEDDED_NAME else None,
    )
    request = resolve_run(rows, model=model, settings=settings, seed=seed)
    limits = (context.models.max_length or DEFAULT_MAX_LENGTH, request.base.max_positions)
    longest = min(limit for limit in limits if limit is not None)
    return replace(request, settings=replace(request.settings, max_length=longest))


def train_adapter(planned: PlannedAdapter, on_progress: OnProgress | None = None) -> None:
    """Train the adapters, unless they are there; a killed call is continued."""
    if on_progress is not None:
        on_progress(Progress(stage=f"train {planned.required.role}", done=0, total=1, note=planned.describe()))
    cache = get_adapter_cache()
    cache.make(planned.folder.identity, lambda work: _write_adapters(planned, work, on_progress))
    for note in cache.take_notes():
        if on_progress is not None:
            on_progress(Progress(stage=f"train {planned.required.role}", done=1, total=1, note=note))


@contextmanager
def train_missing_adapters(adapters: Sequence[PlannedAdapter], on_progress: OnProgress | None = None) -> Iterator[None]:
    """Train the missing adapters, and keep the cache from deleting any inside the block."""
    with ExitStack() as stack:
        for planned in adapters:
            train_adapter(planned, on_progress)
            write = partial(_write_adapters, planned, on_progress=on_progress)
            stack.enter_context(get_adapter_cache().hold(planned.folder.identity, write))
        yield


def _write_adapters(planned: PlannedAdapter, work: Path, on_progress: OnProgress | None) -> None:
    facts = [_train_fold(planned, fold, work, on_progress) for fold in range(planned.required.n_folds)]
    content = {
        "format": FORMAT,
        "identity": planned.folder.identity,
        "role": planned.required.role,
        "n_folds": planned.required.n_folds,
        "fold_of_a_row": FOLDS,
        "base": {"name": planned.request.base.name, "fingerprint": planned.request.base.fingerprint},
        "settings": planned.request.settings.to_json(),
        "seed": planned.request.seeds[0],
        "adapters": facts,
        "content": hash_adapters(work),
    }
    write_atomic(work / FILE, json.dumps(content, indent=1).encode() + b"\n")
    manifest = {"format": MANIFEST_FORMAT, "kind": KIND, "identity": planned.folder.identity}
    write_atomic(work / MANIFEST, Manifest(manifest).to_json())


def _train_fold(planned: PlannedAdapter, fold: int, work: Path, on_progress: OnProgress | None) -> dict[str, Any]:
    """Train the adapter of a fold, unless an earlier call has, and return its facts."""
    from thresher.trainer.engine.fit import fit
    from thresher.trainer.engine.lora import save_adapter

    folder, checkpoints = work / f"adapter-{fold}", work / CHECKPOINTS / str(fold)
    done = checkpoints / "done.json"
    if done.is_file() and find_damage(work, done.relative_to(work).as_posix()) is None:
        return read_record(done)
    _discard_damaged(folder, checkpoints)
    request = replace(planned.request, on_event=_make_listener(on_progress))
    examples = _tokenize_fold(planned, fold)
    trained = fit(
        request,
        examples.rows,
        seed=request.seeds[0] + fold,
        folder=checkpoints,
        run=f"{planned.required.role} {fold + 1} of {planned.required.n_folds}",
        epochs=folder if planned.required.keeps_epochs else None,
    )
    save_adapter(trained.model, folder)
    request.tokenizer.save_pretrained(folder)
    facts = {"folder": folder.name, "steps": trained.history.step, **examples.counts()}
    checkpoints.mkdir(parents=True, exist_ok=True)
    files = {f"{folder.name}/{name}": checksum for name, checksum in hash_files(folder).items()}
    write_atomic(done, encode_record(seal_record(facts, files)))
    return facts


def _discard_damaged(folder: Path, checkpoints: Path) -> None:
    """Delete what a killed call left of an adapter, unless its states of epochs are as written."""
    from thresher.trainer.engine.checkpoint import is_whole

    if not all(is_whole(path) for path in folder.glob("epoch-*/*.safetensors")):
        delete_folder(folder)
        rmtree(checkpoints, ignore_errors=True)


def _tokenize_fold(planned: PlannedAdapter, fold: int) -> Examples:
    """Return what the adapter of a fold is trained on."""
    from thresher.trainer.engine.tokenization import require_rows

    examples = planned.request.tokenize(planned.rows.take(planned.positions(fold)))
    label = f"{planned.by}: {planned.required.role}"
    require_rows(examples, label, n_vocabulary=planned.request.base.n_vocabulary)
    return examples


def _make_listener(on_progress: Callable[[Progress], None] | None) -> OnEvent:
    def tell(event: TrainEvent) -> None:
        if on_progress is not None and event.kind in ("start", "step"):
            note = event.message or None
            on_progress(Progress(stage=f"train {event.run}", done=event.step, total=event.n_steps, note=note))

    return tell


@dataclass(frozen=True, kw_only=True)
class TrainingCost:
    """What training the adapters of a planned will take, measured on a few steps.

    Attributes:
        sentence: what will be trained, or that it is there.
        n_steps: optimizer steps of all adapters together; 0 where they are there.
        seconds: estimated.
        tokens: read in all passes.
        bytes: of the adapters.
    """

    sentence: str
    n_steps: int
    seconds: float
    tokens: int
    bytes: int

    def __str__(self) -> str:
        """Return it in one line."""
        if not self.n_steps:
            return self.sentence
        return f"{self.sentence}: {self.n_steps:,} steps, {self.tokens:,} tokens: about {self.seconds:,.1f} s"


def estimate_training(planned: PlannedAdapter) -> TrainingCost:
    """Take a few steps of the training, and tell what all of it will take; nothing is written."""
    if planned.folder.is_there:
        return TrainingCost(sentence=planned.describe(), n_steps=0, seconds=0.0, tokens=0, bytes=0)
    from thresher.trainer.engine.fit import count_steps, fit
    from thresher.trainer.engine.lora import get_trainable_parameters

    settings = planned.request.settings
    folds = [_tokenize_fold(planned, fold) for fold in range(planned.required.n_folds)]
    n_steps = [count_steps(len(examples), settings) for examples in folds]
    n_trial_steps = min(n_steps[0], N_TRIAL_STEPS)
    times: list[float] = []
    trial = replace(
        planned.request,
        settings=replace(settings, stop_at=n_trial_steps / n_steps[0], save_every_s=1e9),
        on_event=lambda event: times.append(time.monotonic()),
    )
    trained = fit(
        trial,
        folds[0].rows,
        seed=trial.seeds[0],
        folder=planned.folder.path / CHECKPOINTS,  # nothing is saved in so few steps
        run="trial",
    )
    per_step = (times[-1] - times[0]) / n_trial_steps  # from "start" on
    n_bytes = sum(value.numel() * value.element_size() for value in get_trainable_parameters(trained.model).values())
    # the weights, and per epoch the weights and two moments
    n_copies = 1 + 3 * planned.required.epochs * planned.required.keeps_epochs
    return TrainingCost(
        sentence=planned.describe(),
        n_steps=sum(n_steps),
        seconds=per_step * sum(n_steps),
        tokens=planned.required.epochs * sum(examples.n_tokens for examples in folds),
        bytes=n_bytes * n_copies * planned.required.n_folds,
    )
