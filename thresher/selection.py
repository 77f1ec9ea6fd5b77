"""The arrow from a dataset to a subset: features are computed once, a selector scores, the budget cuts."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thresher.budget import Budget, Quota
from thresher.cut import Cut, cut, dropped_table
from thresher.dataset import Dataset
from thresher.dataset.provenance import check_apart
from thresher.manifest import digest
from thresher.output import OutputFolder
from thresher.preparation import keep
from thresher.scores import Scores
from thresher.selection_manifest import subset_manifest
from thresher.selection_request import Asked, LossOn, Order, Request, resolve
from thresher.selectors import Selector
from thresher.subset import Subset, read_subset

if TYPE_CHECKING:
    from thresher.features import Features, Progress
    from thresher.features.container import Array


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
    max_length: int | None = None,
    loss_on: LossOn = "last-assistant",
    quota: str | Quota | None = None,
    order: Order = "file",
    seed: int = 0,
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Subset:
    """Choose the rows worth training on.

    Args:
        pool: a Dataset, or anything `load` accepts.
        method: name of a selector (`thresher methods` lists them), or a selector.
        budget: rows (500), a share (0.3 or "30%"), tokens ("200ktok") or a threshold ("score>0.8").
        settings: values for the selector's own settings, when `method` is a name.
        existing: rows the user already has and trains on anyway (anything `load` accepts): methods that spread their
            picks avoid what these cover.
        target: rows of the task that is trained for (anything `load` accepts): methods with a target keep what serves
            them.
        encoder: "minilm", "static", or a sentence-transformers model by name or folder; not set: by the number of rows.
        model: causal language model for methods that ask one, by folder or Hub id, or the folder of an adapter on one;
            not set: the embedded one.
        tokenizer: whose tokens are counted, by name or folder; not set: the embedded encoder's.
        device: "cpu", "cuda", ...; not set: the best there is.
        max_length: tokens that the language model reads of a row, the rest is cut and counted; not set: 2,048 or the
            model's longest input, whichever is less.
        loss_on: turns of a conversation that the language model is asked about: "last-assistant" or "all-assistant".
        quota: proportions or limits per value of a column, for example "label=balanced" (see `Quota`).
        order: of the kept rows: "file" as the user had them, "rank" best first.
        seed: of everything random.
        out: folder to write the result to; it appears whole or not at all, and a finished one is read back.
        force: replace an earlier result in `out`.
        on_progress: called with a Progress while features are computed.

    Raises:
        InputError: the budget, a column, or the pool does not fit.
        NotFoundError: there is no such selector, column or encoder.
        SettingsError: the selector has no such setting, or its value is illegal.
        OutputError: `out` holds something else.
    """
    started = time.monotonic()
    request = resolve(
        Asked(
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
            max_length=max_length,
            loss_on=loss_on,
            quota=quota,
            order=order,
            seed=seed,
            on_progress=on_progress,
        )
    )
    if out is None:
        return _run(request, started)
    check_apart(Path(out), (request.pool, *request.others.values()))
    identity = digest(request.identity())
    with OutputFolder(out, identity=identity, force=force) as folder:
        if folder.is_done:
            _tell_done(folder.path, on_progress)
            return read_subset(folder.path, request.pool)
        subset = _run(request, started)
        try:
            subset.write_into(folder.work)
            folder.publish()
        except OSError:
            folder.discard()  # a full disk: the computed features are cached, so nothing worth keeping is lost
            raise
    return subset


def _run(request: Request, started: float) -> Subset:
    """Train what the method orders, compute features, score, cut, and write down what happened."""
    from thresher.features import column_values

    # Selectors see the rows sorted by id, so that the result does not depend on the order of the file.
    order = request.pool.frame["row_id"].arg_sort().to_numpy().astype(np.int64)
    pool = request.pool.take(order)
    seconds: dict[str, float] = {}
    names = None
    if request.quota is not None:
        names = column_values(pool, request.quota.column).unique().sort().to_list()
        request.quota.check(names)
    clock = time.monotonic()
    for promise in request.promises:
        keep(promise, request.context.on_progress)
    seconds["preparation"], clock = time.monotonic() - clock, time.monotonic()
    features = _features(request, pool)
    seconds["features"], clock = time.monotonic() - clock, time.monotonic()
    lengths = features.get("length")
    rng = np.random.default_rng(request.seed)
    untouched = rng.bit_generator.state
    _tell_plan(request, features)
    scores = request.selector.score(features, n_ranked=_n_ranked(request, lengths), rng=rng)
    depends_on_seed = bool(request.promises) or rng.bit_generator.state != untouched
    seconds["selection"] = time.monotonic() - clock
    codes = None if request.quota is None else features[f"column:{request.quota.column}"]
    made = cut(scores, request.budget, lengths=lengths, quota=request.quota, codes=codes, names=names)
    made, scores = _in_file_order(made, order), _scores_in_file_order(scores, order, request.pool)
    kept = made.kept if request.order == "rank" else np.sort(made.kept)
    dropped = dropped_table(request.pool, scores, made, request.budget)
    seconds["total"] = time.monotonic() - started
    manifest = subset_manifest(request, scores, kept, dropped, features.notes, seconds, depends_on_seed=depends_on_seed)
    return Subset(pool=request.pool, scores=scores, kept=kept, dropped=dropped, manifest=manifest)


def _features(request: Request, pool: Dataset) -> Features:
    from thresher.features import compute
    from thresher.features.beside import features_beside

    features = compute(pool, request.needs, request.context)
    beside: dict[str, Array] = {}
    for role, rows in request.others.items():
        beside |= features_beside(role, getattr(request.selector, "accepts", ()), rows, pool, request.context)
    return replace(features, context={**features.context, **beside})


def _n_ranked(request: Request, lengths: NDArray[np.int64] | None) -> int:
    """Return how far the ranking must go: a quota may skip any row, so it needs all of them."""
    return len(request.pool) if request.quota is not None else request.budget.n_rows(len(request.pool), lengths)


def _in_file_order(made: Cut, order: NDArray[np.int64]) -> Cut:
    reason = np.empty_like(made.reason)
    reason[order] = made.reason
    return Cut(kept=order[made.kept], reason=reason)


def _scores_in_file_order(scores: Scores, order: NDArray[np.int64], pool: Dataset) -> Scores:
    """Return the scores with row i of the file at position i."""
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    covered_by = scores.covered_by
    if covered_by is not None:
        covered_by = np.where(covered_by >= 0, order[np.maximum(covered_by, 0)], covered_by)[back]
    return Scores(
        row_id=pool.frame["row_id"],
        value=scores.value[back],
        by=scores.by,
        covered_by=covered_by,
        similarity=None if scores.similarity is None else scores.similarity[back],
        excluded=None if scores.excluded is None else scores.excluded.gather(back),
        objective=scores.objective,
        notes=scores.notes,
    )


def _tell_plan(request: Request, features: Features) -> None:
    """Say what the selector is about to do, where it can tell: method, memory and guarantee."""
    from thresher.features import Progress

    plan = getattr(request.selector, "plan", None)
    if plan is not None and request.context.on_progress is not None:
        n = features.n_rows
        request.context.on_progress(Progress(stage="select", done=0, total=n, note=plan(features)))


def _tell_done(path: Path, on_progress: Callable[[Progress], None] | None) -> None:
    from thresher.features import Progress

    if on_progress is not None:
        note = f"{path}: holds the result of this very command already, which is read back"
        on_progress(Progress(stage="select", done=1, total=1, note=note))
