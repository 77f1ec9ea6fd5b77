"""The arrow from a dataset to a subset: compute features once, score, cut to the budget."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

import numpy as np

from thresher.artifacts.folder import OutputFolder
from thresher.artifacts.manifest import digest
from thresher.cache.array_folders import ArrayFolders
from thresher.dataset import Dataset
from thresher.dataset.provenance import refuse_input_as_output
from thresher.dataset.values.given_settings import GivenSettings
from thresher.errors import InputError
from thresher.models.settings import ModelSettings
from thresher.numeric.array_store import NO_STORE
from thresher.progress import OnProgress, report_done
from thresher.selection.choose import choose, refuse_shortfall
from thresher.selection.manifest import build_manifest, summarize_outcome
from thresher.selection.request import Request, SelectCall, resolve_request
from thresher.selection.settings import SelectOptions, SelectSettings
from thresher.selectors import Selector
from thresher.subset.cut import build_dropped_table, build_verdict_table
from thresher.subset.subset import Subset, read_subset
from thresher.validation import document_options

EngineName = Literal["local", "ray"]

if TYPE_CHECKING:
    from thresher.features import Features


@document_options(SelectSettings, GivenSettings, ModelSettings)
def select(
    pool: Any,
    method: str | Selector = "auto",
    *,
    out: str | Path | None = None,
    force: bool = False,
    engine: EngineName = "local",
    address: str | None = None,
    partitions: int | None = None,
    on_progress: OnProgress | None = None,
    **options: Unpack[SelectOptions],
) -> Subset:
    """Select the rows worth training on.

    Args:
        pool: a Dataset, or anything `load` accepts.
        method: name of a selector (`thresher methods` lists them), or a selector.
        out: folder to write the result to; it appears whole or not at all, and a finished one is
            read back.
        force: replace an earlier result in `out`.
        engine: "local" for this process, or "ray" for a cluster: the pool is then files, or
            `thresher.selection.distributed.shards`.
        address: of the Ray cluster, HOST:PORT or "auto". Default: RAY_ADDRESS, or else Ray on this
            machine alone.
        partitions: with Ray, parts of the pool that are chosen from separately before the choice
            among their picks. Default: none up to 2,000,000 rows.
        on_progress: called with a Progress while features are computed.
        **options: fields of `SelectSettings` (`budget` is required), `GivenSettings` and
            `ModelSettings`.

    Raises:
        InputError: the budget, a column, or the pool does not fit.
        NotFoundError: there is no such selector, column or encoder.
        SettingsError: an option or a setting of the selector is unknown, or its value is illegal.
        OutputError: `out` holds something else.
    """
    call = SelectCall.of_options(pool, method, options, on_progress)
    check_cluster_options(engine, address, partitions)
    if engine != "local":
        return _select_on_ray(engine, call, out, address=address, partitions=partitions, force=force)
    return select_here(call, out, force=force)


def check_cluster_options(engine: str, address: str | None, partitions: int | None) -> None:
    """Refuse options of a cluster where there is none.

    Raises:
        InputError: there is one.
    """
    if engine == "local" and (address is not None or partitions is not None):
        raise InputError("address, partitions: are for the engine 'ray', got 'local'; add --engine ray")


def select_here(
    call: SelectCall,
    out: str | Path | None,
    *,
    force: bool = False,
    trained_pilot: Mapping[str, Any] | None = None,
) -> Subset:
    """Choose on this machine, in a folder or in memory.

    Args:
        call: what was asked for.
        out: folder, or None.
        force: replace an earlier result.
        trained_pilot: how trainings have decided on the method, for the manifest.
    """
    started = time.monotonic()
    request = resolve_request(call)
    if out is None:
        return _run(request, started, trained_pilot)
    refuse_input_as_output(Path(out), (request.pool, *request.others.values()))
    identity = _identify(request, trained_pilot)
    with OutputFolder(out, identity=identity, force=force) as folder:
        if folder.is_done:
            report_done(call.on_progress, stage="select", folder=folder.path, outcome="read back")
            subset = read_subset(folder.path, request.pool)
            if request.strict:
                refuse_shortfall(subset.manifest.content.get("shortfall"))
            return subset
        subset = _run(request, started, trained_pilot)
        folder.publish_files(subset.write_files)
    return replace(subset, path=folder.path)


def _identify(request: Request, trained_pilot: Mapping[str, Any] | None) -> str:
    """Return the hash of all that determines the result, and of what trainings decided."""
    decided = {} if trained_pilot is None else {"trained_pilot": trained_pilot["chosen"]}
    return digest({**request.identity(), **decided})


def _select_on_ray(
    engine: str, call: SelectCall, out: str | Path | None, *, address: str | None, partitions: int | None, force: bool
) -> Subset:
    from thresher.selection.distributed import select_distributed
    from thresher.selection.distributed.ray_engine import connect

    if call.given.embeddings is not None or call.given.pred_probs is not None:
        raise InputError("embeddings, pred_probs: are for the engine 'local', got 'ray'; leave them out")
    if engine != "ray":
        raise InputError(f"engine: must be 'local' or 'ray', got '{engine}'")
    with connect(address) as cluster:
        return select_distributed(cluster, call, None if out is None else Path(out), partitions=partitions, force=force)


def _run(request: Request, started: float, trained_pilot: Mapping[str, Any] | None) -> Subset:
    """Train what the method orders, compute features, score, cut, and write down what happened."""
    from thresher.features import column_values

    # sorted by id: the result does not depend on the order of the file
    order = request.pool.frame["row_id"].arg_sort().to_numpy().astype(np.int64)
    pool = request.pool.take(order)
    seconds: dict[str, float] = {}
    groups = None
    if request.quota is not None:
        groups = column_values(pool, request.quota.column).unique().sort().to_list()
        request.quota.check(groups)
    clock = time.monotonic()
    with _train_adapters(request):
        seconds["preparation"], clock = time.monotonic() - clock, time.monotonic()
        features = _compute_features(request, pool)
    seconds["features"], clock = time.monotonic() - clock, time.monotonic()
    row_id = request.pool.frame["row_id"]
    scores, cut, kept, depends_on_seed, shortfall = choose(request, features, order, row_id, groups)
    seconds["selection"] = time.monotonic() - clock
    verdicts = build_verdict_table(row_id, scores, cut)
    dropped = build_dropped_table(request.pool.frame, verdicts, len(kept), request.budget)
    seconds["total"] = time.monotonic() - started
    outcome = summarize_outcome(
        scores, row_id.gather(kept), verdicts, depends_on_seed=depends_on_seed, shortfall=shortfall
    )._replace(trained_pilot=trained_pilot)
    manifest = build_manifest(request, _identify(request, trained_pilot), outcome, features.notes, seconds)
    return Subset(pool=request.pool, scores=scores, kept=kept, dropped=dropped, manifest=manifest)


def _train_adapters(request: Request) -> AbstractContextManager[None]:
    """Hold the adapters that the method needs, those that are missing trained."""
    if not request.planned_adapters:
        return nullcontext()
    from thresher.selection.pool_adapters import train_missing_adapters

    return train_missing_adapters(request.planned_adapters, request.context.on_progress)


def _compute_features(request: Request, pool: Dataset) -> Features:
    from thresher.features import compute
    from thresher.features.side_inputs import SideInputs, compute_side_inputs
    from thresher.models.torch_products import load_products

    features = compute(pool, request.needs, request.context)
    side_inputs = SideInputs({}, {})
    side_features = request.selector.requirements.side_features
    for role, rows in request.others.items():
        side_inputs.add(compute_side_inputs(role, side_features[role], rows, pool, request.context))
    products = load_products(request.context.models.device)
    cache, on_progress = request.context.cache, request.context.on_progress
    store = NO_STORE if cache is None else ArrayFolders(cache.root, on_progress)
    context, missing = {**features.context, **side_inputs.arrays}, {**features.missing, **side_inputs.missing}
    return replace(features, context=context, missing=missing, products=products, store=store)
