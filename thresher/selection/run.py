"""The arrow from a dataset to a subset: features are computed once, a selector scores, the budget cuts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from thresher.artifacts.folder import OutputFolder
from thresher.artifacts.manifest import digest
from thresher.dataset import Dataset
from thresher.dataset.provenance import refuse_input_as_output
from thresher.errors import InputError
from thresher.models.settings import EmbeddingDtype, LossOn
from thresher.selection.choose import choose
from thresher.selection.manifest import chosen, subset_manifest
from thresher.selection.pool_adapters import holding
from thresher.selection.request import Asked, Order, Request, resolve
from thresher.selectors import Selector
from thresher.subset.budget import Budget
from thresher.subset.cut import dropped_table, verdict_table
from thresher.subset.quota import Quota
from thresher.subset.subset import Subset, read_subset

EngineName = Literal["local", "ray"]

if TYPE_CHECKING:
    from thresher.features import Features, Progress
    from thresher.numeric.arrays import Array


def select(
    pool: Any,
    method: str | Selector = "facility-location",
    *,
    budget: int | float | str | Budget,
    settings: Mapping[str, Any] | None = None,
    existing: Any = None,
    target: Any = None,
    encoder: str | None = None,
    model: str | None = None,
    tokenizer: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    embedding_dtype: EmbeddingDtype = "float32",
    batch_tokens: int | None = None,
    max_length: int | None = None,
    loss_on: LossOn = "last-assistant",
    quota: str | Quota | None = None,
    order: Order = "file",
    seed: int = 0,
    out: str | Path | None = None,
    force: bool = False,
    engine: EngineName = "local",
    address: str | None = None,
    partitions: int | None = None,
    on_progress: Callable[[Progress], None] | None = None,
) -> Subset:
    """Choose the rows worth training on.

    Args:
        pool: a Dataset, or anything `load` accepts.
        method: name of a selector (`thresher methods` lists them), or a selector.
        budget: rows (500), a share (0.3 or "30%"), tokens ("200ktok") or a threshold ("score>0.8").
        settings: values for the selector's own settings, when `method` is a name.
        existing: rows the user already has and trains on anyway (anything `load` accepts): methods
            that spread their picks avoid what these cover.
        target: rows of the task that is trained for (anything `load` accepts): methods with a
            target keep what serves them.
        encoder: "minilm", "static", or a sentence-transformers model by name or folder; not set: by
            the number of rows.
        model: causal language model for methods that ask one, by folder or Hub id, or the folder of
            an adapter on one; not set: the embedded one.
        tokenizer: whose tokens are counted, by name or folder; not set: the embedded encoder's.
        device: "cpu", "cuda", ...; not set: the best there is.
        dtype: precision of encoders and language models: "bfloat16" and "float16" are faster on a
            GPU, and a value then depends a little (about 1e-3) on the rows it is computed with; not
            set: "float32", but for language models of more than 2 GB on a GPU.
        embedding_dtype: how embeddings are kept: "float16" takes half the room of "float32" on
            disk, and rounds components to 11 bits; methods compute in float32 either way.
        batch_tokens: tokens that a model reads at once, padding included; not set: 16,384, and more
            where a GPU has room. Values depend on it by rounding only.
        max_length: tokens that the language model reads of a row, the rest is cut and counted; not
            set: 2,048 or the model's longest input, whichever is less.
        loss_on: turns of a conversation that the language model is asked about: "last-assistant" or
            "all-assistant".
        quota: proportions or limits per value of a column, for example "label=balanced" (see
            `Quota`).
        order: of the kept rows: "file" as the user had them, "rank" best first.
        seed: of everything random.
        out: folder to write the result to; it appears whole or not at all, and a finished one is
            read back.
        force: replace an earlier result in `out`.
        engine: "local" for this process, or "ray" for a cluster: the pool is then files, or
            `thresher.selection.distributed.shards`.
        address: of the Ray cluster, HOST:PORT or "auto"; not set: RAY_ADDRESS, or else Ray on this
            machine alone.
        partitions: with Ray, parts of the pool that are chosen from separately before the choice
            among their picks; not set: none up to 2,000,000 rows.
        on_progress: called with a Progress while features are computed.

    Raises:
        InputError: the budget, a column, or the pool does not fit.
        NotFoundError: there is no such selector, column or encoder.
        SettingsError: the selector has no such setting, or its value is illegal.
        OutputError: `out` holds something else.
    """
    started = time.monotonic()
    asked = Asked(
        pool=pool,
        method=method,
        budget=budget,
        settings=settings,
        existing=existing,
        target=target,
        encoder=encoder,
        model=model,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        embedding_dtype=embedding_dtype,
        batch_tokens=batch_tokens,
        max_length=max_length,
        loss_on=loss_on,
        quota=quota,
        order=order,
        seed=seed,
        on_progress=on_progress,
    )
    if engine != "local":
        return _select_on_ray(engine, asked, out, address=address, partitions=partitions, force=force)
    if address is not None or partitions is not None:
        raise InputError("address, partitions: are for the engine 'ray', got 'local'; add --engine ray")
    request = resolve(asked)
    if out is None:
        return _run(request, started)
    refuse_input_as_output(Path(out), (request.pool, *request.others.values()))
    identity = digest(request.identity())
    with OutputFolder(out, identity=identity, force=force) as folder:
        if folder.is_done:
            _tell_done(folder.path, on_progress)
            return read_subset(folder.path, request.pool)
        subset = _run(request, started)
        try:
            folder.empty()
            subset.write_into(folder.work)
            folder.publish()
        except OSError:
            folder.discard()  # a full disk: the computed features are cached, so nothing worth keeping is lost
            raise
    return subset


def _select_on_ray(
    engine: str, asked: Asked, out: str | Path | None, *, address: str | None, partitions: int | None, force: bool
) -> Subset:
    from thresher.selection.distributed import select_on
    from thresher.selection.distributed.ray_engine import connected

    if engine != "ray":
        raise InputError(f"engine: must be 'local' or 'ray', got '{engine}'")
    with connected(address) as found:
        return select_on(found, asked, None if out is None else Path(out), partitions=partitions, force=force)


def _run(request: Request, started: float) -> Subset:
    """Train what the method orders, compute features, score, cut, and write down what happened."""
    from thresher.features import column_values

    # Selectors see the rows sorted by id, so that the result does not depend on the order of the
    # file.
    order = request.pool.frame["row_id"].arg_sort().to_numpy().astype(np.int64)
    pool = request.pool.take(order)
    seconds: dict[str, float] = {}
    names = None
    if request.quota is not None:
        names = column_values(pool, request.quota.column).unique().sort().to_list()
        request.quota.check(names)
    clock = time.monotonic()
    with holding(request.promises, request.context.on_progress):
        seconds["preparation"], clock = time.monotonic() - clock, time.monotonic()
        features = _features(request, pool)
    seconds["features"], clock = time.monotonic() - clock, time.monotonic()
    row_id = request.pool.frame["row_id"]
    scores, made, kept, depends_on_seed = choose(request, features, order, row_id, names)
    seconds["selection"] = time.monotonic() - clock
    verdicts = verdict_table(row_id, scores, made)
    dropped = dropped_table(request.pool.frame, verdicts, len(kept), request.budget)
    seconds["total"] = time.monotonic() - started
    came_out = chosen(scores, row_id.gather(kept), verdicts, depends_on_seed=depends_on_seed)
    manifest = subset_manifest(request, digest(request.identity()), came_out, features.notes, seconds)
    return Subset(pool=request.pool, scores=scores, kept=kept, dropped=dropped, manifest=manifest)


def _features(request: Request, pool: Dataset) -> Features:
    from thresher.features import compute
    from thresher.features.side_inputs import compute_side_inputs
    from thresher.models.torch_products import load_products

    features = compute(pool, request.needs, request.context)
    beside: dict[str, Array] = {}
    for role, rows in request.others.items():
        beside |= compute_side_inputs(role, getattr(request.selector, "accepts", ()), rows, pool, request.context)
    products = load_products(request.context.models.device)
    return replace(features, context={**features.context, **beside}, products=products)


def _tell_done(path: Path, on_progress: Callable[[Progress], None] | None) -> None:
    from thresher.features import Progress

    if on_progress is not None:
        note = f"{path}: holds the result of this very command already, which is read back"
        on_progress(Progress(stage="select", done=1, total=1, note=note))
