"""What a method wants trained before its features are computed: adapters on the pool, kept in the cache.

A selector names them in its attribute `prepares` (see
`thresher.features.reference_adapters.RequiredAdapter`). `promise` says, without training or writing
anything, where they will lie and what they will cost; `keep` trains them. A killed run continues
from its last checkpoint.
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

from thresher.artifacts.folder import MANIFEST, write_atomic
from thresher.artifacts.manifest import FORMAT as MANIFEST_FORMAT
from thresher.artifacts.manifest import Manifest, digest
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
from thresher.models.causal_lm.adapter import ADAPTER_CONFIG
from thresher.models.causal_lm.embedded import EMBEDDED_NAME
from thresher.models.causal_lm.language_model import refuse_server
from thresher.models.causal_lm.tokenized_rows import DEFAULT_MAX_LENGTH, row_texts
from thresher.progress import OnProgress, Progress

if TYPE_CHECKING:
    from thresher.features import FeatureContext
    from thresher.trainer.engine.fit import Recipe
    from thresher.trainer.engine.tokenization import Examples
    from thresher.trainer.events import OnEvent, TrainEvent
    from thresher.trainer.request import Request

KIND = "trained"  # folder of the cache
RECIPE = 2  # raise it when adapters of earlier versions of the code must not be used again
# The embedded model is a thousandth of the size that the trainer's default rate is for, and learns
# little at it.
EMBEDDED_RATE = 1e-3
CHECKPOINTS = ".checkpoints"
N_TRIED = 4  # optimizer steps of a trial


def store() -> FolderCache:
    """Return where trained adapters are kept."""
    return FolderCache(KIND)


@dataclass(frozen=True, kw_only=True)
class Promise:
    """Adapters that are not trained yet, or are there already.

    Attributes:
        preparation: what was ordered.
        by: the method that ordered it.
        rows: of the pool, as a language model is shown them.
        fold: (n,) int64 of each row.
        is_learned: (n,) bool: whether the row is among the share that is learned.
        request: what training on all rows asks for: base model, settings, seed.
        folder: where the adapters lie or will lie.
    """

    preparation: RequiredAdapter
    by: str
    rows: Dataset
    fold: NDArray[np.int64]
    is_learned: NDArray[np.bool_]
    request: Request
    folder: TrainedFolder

    def positions(self, fold: int) -> NDArray[np.int64]:
        """Return the rows that the adapter of a fold learns from."""
        is_seen = self.is_learned if self.preparation.n_folds == 1 else self.fold != fold
        return np.flatnonzero(is_seen)

    @cached_property
    def n_rows(self) -> list[int]:
        """Rows that each adapter learns from."""
        return [len(self.positions(fold)) for fold in range(self.preparation.n_folds)]

    def sentence(self) -> str:
        """Say what will be trained, or that it is there."""
        n, epochs = self.preparation.n_folds, self.preparation.epochs
        if self.folder.is_there:
            return f"{self.by}: {self.preparation.role} of {n} adapters found in {self.folder.path}"
        adapters = "an adapter" if n == 1 else f"{n} adapters"
        rows = " + ".join(f"{count:,}" for count in self.n_rows)
        return (
            f"{self.by}: trains {adapters} on {self.request.base.name} as its {self.preparation.role}, on {rows} rows, "
            f"{epochs} epoch{'' if epochs == 1 else 's'}; kept in {self.folder.path}"
        )


def promises(
    selector: Any, pool: Dataset, context: FeatureContext, *, seed: int
) -> tuple[tuple[Promise, ...], FeatureContext]:
    """Return what a selector wants trained on the pool, and the context with the folders in their roles.

    Nothing is trained and nothing is written.

    Args:
        selector: its attribute `prepares`, if it has one, holds the orders.
        pool: rows to learn from.
        context: whose model the adapters are on.
        seed: of the training.

    Raises:
        InputError: the rows cannot be divided so, or the model cannot be trained.
    """
    orders: Sequence[RequiredAdapter] = getattr(selector, "prepares", ())
    made = tuple(_promise(order, selector.name, pool, context, seed=seed) for order in orders)
    folders: dict[str, Any] = {promise.preparation.role: promise.folder for promise in made}
    return made, replace(context, **folders)


def _promise(order: RequiredAdapter, by: str, pool: Dataset, context: FeatureContext, *, seed: int) -> Promise:
    from thresher.trainer.engine.load_model import needs_bf16
    from thresher.trainer.split import sample_by_hash

    rows = _as_language(pool)
    rows = rows.take(rows.frame["row_id"].arg_sort().to_numpy())
    fold = assign_folds(row_texts(rows), order.n_folds)
    if order.n_folds > 1 and len(np.unique(fold)) < 2:
        raise InputError(
            f"{by}: its {order.role} needs different rows in at least 2 of {order.n_folds} folds, found all "
            f"{len(rows)} in one; give more rows, or name one that is trained already with --set {order.role}=FOLDER"
        )
    request = _request(order, by, rows, context, seed=seed)
    told = {name: value for name, value in request.identity().items() if name not in ("data", "sources", "subset")}
    is_bf16 = needs_bf16(request.settings.precision)
    identity = digest({**told, "order": asdict(order), "folds": FOLDS, "recipe": RECIPE, "is_bf16": is_bf16})
    return Promise(
        preparation=order,
        by=by,
        rows=rows,
        fold=fold,
        is_learned=sample_by_hash(rows.frame["row_id"], order.share, seed=seed),
        request=request,
        folder=TrainedFolder(path=store().folder(identity), identity=identity, n_folds=order.n_folds),
    )


def _as_language(pool: Dataset) -> Dataset:
    """Return classified texts as questions and answers, which is how a language model is shown them."""
    if pool.kind != "classification":
        return pool
    pairs = pool.frame.select("prompt", "response").iter_rows()
    return load([{"prompt": prompt, "completion": response} for prompt, response in pairs])


def _request(order: RequiredAdapter, by: str, rows: Dataset, context: FeatureContext, *, seed: int) -> Request:
    from thresher.trainer.request import resolve
    from thresher.trainer.settings import TrainSettings

    model = named = context.models.model
    refuse_server(model)
    if model is not None and Path(model).expanduser().is_dir():
        model = str(Path(model).expanduser().resolve())  # the adapter names its base, and is read from anywhere
        if (Path(model) / ADAPTER_CONFIG).is_file():
            raise InputError(
                f"{by}: its {order.role} is trained on a base model, got the adapter '{named}'; merge it into "
                f"its base, or name what is trained already with --set {order.role}=FOLDER"
            )
    settings = TrainSettings(
        epochs=order.epochs,
        eval_generations=0,
        loss_on=context.models.loss_on,
        learning_rate=EMBEDDED_RATE if model in (None, EMBEDDED_NAME) else None,
    )
    asked = resolve(
        rows,
        model=model,
        eval=None,
        control="none",
        seeds=1,
        task="auto",
        settings=settings,
        seed=seed,
        is_merged=False,
    )
    limits = (context.models.max_length or DEFAULT_MAX_LENGTH, asked.base.max_positions)
    longest = min(limit for limit in limits if limit is not None)
    return replace(asked, settings=replace(asked.settings, max_length=longest))


def keep(promise: Promise, on_progress: OnProgress | None = None) -> None:
    """Train the adapters, unless they are there; a killed call is continued."""
    if on_progress is not None:
        on_progress(Progress(stage=f"train {promise.preparation.role}", done=0, total=1, note=promise.sentence()))
    store().make(promise.folder.identity, lambda work: _write(promise, work, on_progress))


@contextmanager
def holding(promises: Sequence[Promise], on_progress: OnProgress | None = None) -> Iterator[None]:
    """Train the adapters of promises as `keep` does, and hold them until the end: a prune of the cache passes them."""
    with ExitStack() as held:
        for promise in promises:
            keep(promise, on_progress)
            writing = partial(_write, promise, on_progress=on_progress)
            held.enter_context(store().held(promise.folder.identity, writing))
        yield


def _write(promise: Promise, work: Path, on_progress: OnProgress | None) -> None:
    facts = [_adapter(promise, fold, work, on_progress) for fold in range(promise.preparation.n_folds)]
    content = {
        "format": FORMAT,
        "identity": promise.folder.identity,
        "role": promise.preparation.role,
        "n_folds": promise.preparation.n_folds,
        "fold_of_a_row": FOLDS,
        "base": {"name": promise.request.base.name, "fingerprint": promise.request.base.fingerprint},
        "settings": promise.request.settings.to_json(),
        "seed": promise.request.seeds[0],
        "adapters": facts,
        "content": hash_adapters(work),
    }
    write_atomic(work / FILE, json.dumps(content, indent=1).encode() + b"\n")
    rmtree(work / CHECKPOINTS, ignore_errors=True)
    manifest = {"format": MANIFEST_FORMAT, "kind": KIND, "identity": promise.folder.identity}
    write_atomic(work / MANIFEST, Manifest(manifest).to_json())


def _adapter(promise: Promise, fold: int, work: Path, on_progress: OnProgress | None) -> dict[str, Any]:
    """Train the adapter of a fold, unless an earlier call has, and return its facts."""
    from thresher.trainer.engine.fit import fit
    from thresher.trainer.engine.lora import save_adapter
    from thresher.trainer.engine.processes import open_accelerator

    folder, checkpoints = work / f"adapter-{fold}", work / CHECKPOINTS / str(fold)
    done = checkpoints / "done.json"
    if done.is_file():
        facts: dict[str, Any] = json.loads(done.read_bytes())
        return facts
    request = promise.request
    recipe, examples = _training(promise, fold)
    fitted = fit(
        recipe,
        examples.rows,
        seed=request.seeds[0] + fold,
        accelerator=open_accelerator(request.settings),
        folder=checkpoints,
        run=f"{promise.preparation.role} {fold + 1} of {promise.preparation.n_folds}",
        evaluate=None,
        on_event=_telling(on_progress),
        epochs=folder if promise.preparation.keeps_epochs else None,
    )
    save_adapter(fitted.model, folder)
    recipe.tokenizer.save_pretrained(folder)
    facts = {"folder": folder.name, "steps": fitted.history.step, **examples.counts()}
    checkpoints.mkdir(parents=True, exist_ok=True)
    write_atomic(done, json.dumps(facts).encode())
    return facts


def _training(promise: Promise, fold: int) -> tuple[Recipe, Examples]:
    """Return how the adapter of a fold is trained, and on what."""
    from thresher.models.causal_lm.base_model import load_tokenizer
    from thresher.models.causal_lm.chat_template import prepare_template
    from thresher.trainer.engine.fit import Recipe, count_steps
    from thresher.trainer.engine.tokenization import require_rows, tokenize

    request = promise.request
    tokenizer = load_tokenizer(request.base)
    if request.task == "sft":
        prepare_template(tokenizer)
    examples = tokenize(
        promise.rows.take(promise.positions(fold)),
        tokenizer,
        task=request.task,
        max_length=int(request.settings.max_length or 0),
        loss_on=request.settings.loss_on,
    )
    who = f"{promise.by}: {promise.preparation.role}"
    require_rows(examples, who, n_vocabulary=request.base.n_vocabulary)
    recipe = Recipe(
        base=request.base,
        tokenizer=tokenizer,
        task=request.task,
        settings=request.settings,
        classes=(),
        n_steps=count_steps(len(examples), request.settings),
    )
    return recipe, examples


def _telling(on_progress: Callable[[Progress], None] | None) -> OnEvent:
    def tell(event: TrainEvent) -> None:
        if on_progress is not None and event.kind in ("start", "step"):
            note = event.message or None
            on_progress(Progress(stage=f"train {event.run}", done=event.step, total=event.n_steps, note=note))

    return tell


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What training the adapters of a promise will take, measured on a few steps.

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


def rehearse_training(promise: Promise) -> Trial:
    """Take a few steps of the training, and tell what all of it will take; nothing is written."""
    if promise.folder.is_there:
        return Trial(sentence=promise.sentence(), n_steps=0, seconds=0.0, tokens=0, bytes=0)
    from thresher.trainer.engine.fit import fit
    from thresher.trainer.engine.lora import get_trainable_parameters
    from thresher.trainer.engine.processes import open_accelerator

    folds = [_training(promise, fold) for fold in range(promise.preparation.n_folds)]
    recipe, examples = folds[0]
    n_tried = min(recipe.n_steps, N_TRIED)
    tried = replace(recipe, settings=replace(recipe.settings, stop_at=n_tried / recipe.n_steps, save_every_s=1e9))
    times: list[float] = []
    fitted = fit(
        tried,
        examples.rows,
        seed=promise.request.seeds[0],
        accelerator=open_accelerator(recipe.settings),
        folder=promise.folder.path / CHECKPOINTS,  # is not there, and nothing is saved in so few steps
        run="trial",
        evaluate=None,
        on_event=lambda event: times.append(time.monotonic()),
    )
    per_step = (times[-1] - times[0]) / n_tried  # from "start" on
    n_steps = sum(each.n_steps for each, _ in folds)
    n_bytes = sum(value.numel() * value.element_size() for value in get_trainable_parameters(fitted.model).values())
    n_kept = 1 + 3 * promise.preparation.epochs * promise.preparation.keeps_epochs  # weights and two moments per epoch
    return Trial(
        sentence=promise.sentence(),
        n_steps=n_steps,
        seconds=per_step * n_steps,
        tokens=promise.preparation.epochs * sum(rows.n_tokens for _, rows in folds),
        bytes=n_bytes * n_kept * promise.preparation.n_folds,
    )
