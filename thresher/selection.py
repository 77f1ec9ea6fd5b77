"""The arrow from a dataset to a subset: features are computed once, a selector scores, the budget cuts."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.budget import Budget, Quota, parse_budget, parse_quota
from thresher.dataset import Dataset, load
from thresher.errors import InputError, OutputError
from thresher.manifest import FORMAT, Manifest, digest, versions
from thresher.output import OutputFolder
from thresher.scores import Scores
from thresher.selectors import Selector, create
from thresher.subset import Cut, Subset, cut, dropped_table, read_subset

if TYPE_CHECKING:
    from thresher.dataset.files import SourceFile
    from thresher.features import FeatureContext, Features, Progress
    from thresher.features.container import Array

Order = Literal["file", "rank"]
ROLES = {"existing": "rows you already have", "target": "rows of a target"}  # rows beside the pool


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """Everything that determines a selection, resolved and checked before any model runs."""

    pool: Dataset
    selector: Selector
    budget: Budget
    quota: Quota | None
    existing: Dataset | None
    target: Dataset | None
    context: FeatureContext
    order: Order
    seed: int

    @property
    def others(self) -> dict[str, Dataset]:
        """Rows beside the pool, by their role."""
        return {role: rows for role in ROLES if (rows := getattr(self, role)) is not None}

    @property
    def needs(self) -> frozenset[str]:
        more = {"length"} if self.budget.unit == "tokens" else set()
        if self.quota is not None:
            more.add(f"column:{self.quota.column}")
        return frozenset(self.selector.needs) | more

    def settings(self) -> dict[str, Any]:
        """Return what the manifest says of the request, in JSON values."""
        from thresher.features import fingerprints

        return {
            "method": self.selector.name,
            "settings": asdict(self.selector) if is_dataclass(self.selector) else {},
            "budget": str(self.budget),
            "quota": None if self.quota is None else str(self.quota),
            "order": self.order,
            "seed": self.seed,
            "pool": self.pool.fingerprint,
            "existing": None if self.existing is None else self.existing.fingerprint,
            **({} if self.target is None else {"target": self.target.fingerprint}),
            "features": fingerprints(self.needs, self.context),
        }


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
    plan = _plan(
        pool, method, budget, settings, {"existing": existing, "target": target}, quota, order, seed,
        encoder=encoder, model=model, tokenizer=tokenizer, device=device, on_progress=on_progress,
    )  # fmt: skip
    if out is None:
        return _run(plan, started)
    _check_apart(Path(out), plan)
    identity = digest(_identity(plan))
    with OutputFolder(out, identity=identity, force=force) as folder:
        if folder.is_done:
            _tell_done(folder.path, on_progress)
            return read_subset(folder.path, plan.pool)
        subset = _run(plan, started)
        try:
            subset.write_into(folder.work)
            folder.publish()
        except OSError:
            folder.discard()  # a full disk: the computed features are cached, so nothing worth keeping is lost
            raise
    return subset


def _plan(
    pool: Any,
    method: str | Selector,
    budget: int | float | str | Budget,
    settings: Mapping[str, Any] | None,
    others: Mapping[str, Any],
    quota: str | Quota | None,
    order: Order,
    seed: int,
    *,
    encoder: str | None,
    model: str | None,
    tokenizer: str | None,
    device: str | None,
    on_progress: Callable[[Progress], None] | None,
) -> _Plan:
    from thresher.features import FeatureContext

    selector = _selector(method, settings)
    parsed_budget = parse_budget(budget)
    parsed_quota = None if quota is None else parse_quota(quota)
    if order not in ("file", "rank"):
        raise InputError(f"order: must be 'file' or 'rank', got '{order}'")
    if not isinstance(seed, int | np.integer) or seed < 0:
        raise InputError(f"seed: must be a whole number from 0, got {seed!r}")
    dataset = pool if isinstance(pool, Dataset) else load(pool)
    if parsed_budget.unit == "threshold" and getattr(selector, "ranks_only", False):
        raise InputError(
            f"budget: {selector.name} ranks rows and has no score to compare with {parsed_budget}; "
            f"give rows (500), a share (30%) or tokens (200ktok)"
        )
    if parsed_budget.unit in ("rows", "share"):
        parsed_budget.n_rows(len(dataset))
    context = FeatureContext(
        encoder=encoder,
        model=model,
        tokenizer=tokenizer,
        device=device,
        on_progress=on_progress,
        **getattr(selector, "feature_settings", {}),
    )
    return _Plan(
        pool=dataset,
        selector=selector,
        budget=parsed_budget,
        quota=parsed_quota,
        **{role: _rows_beside(role, others[role], selector) for role in ROLES},
        context=context.resolved(len(dataset)),
        order=order,
        seed=int(seed),
    )


def _rows_beside(role: str, rows: Any, selector: Selector) -> Dataset | None:
    """Return the rows of that role, if there are any; refuse those that the selector does not look at."""
    if rows is None:
        if role in getattr(selector, "requires", ()):
            raise InputError(f"{role}: {selector.name} needs {ROLES[role]}, found none; give --{role} FILE")
        return None
    if not any(name.startswith(f"{role}_") for name in getattr(selector, "accepts", ())):
        raise InputError(f"{role}: {selector.name} does not look at {ROLES[role]}; leave it out")
    return rows if isinstance(rows, Dataset) else load(rows)


def _selector(method: str | Selector, settings: Mapping[str, Any] | None) -> Selector:
    if isinstance(method, str):
        return create(method, settings)
    if isinstance(method, type) or not isinstance(method, Selector):
        raise InputError(f"method: must be the name of a selector, or a selector with its settings, got {method!r}")
    if settings:
        raise InputError(f"settings: give them to {type(method).__name__}(...) itself, found {', '.join(settings)}")
    return method


def _identity(plan: _Plan) -> dict[str, Any]:
    # Ids from a column of the user say nothing of the texts: how the rows were read belongs to the identity.
    read = [
        [_schema(rows), rows.id_column, [[source.bytes, source.sha256] for source in rows.sources]]
        for rows in (plan.pool, *plan.others.values())
    ]
    return {"request": plan.settings(), "read": read, "thresher": versions(())}


def _schema(pool: Dataset) -> dict[str, Any]:
    return {
        "name": pool.schema.name,
        "kind": pool.kind,
        "columns": {role: list(names) for role, names in pool.schema.columns.items()},
    }


def _run(plan: _Plan, started: float) -> Subset:
    """Compute features, score, cut, and write down what happened."""
    from thresher.features import column_values

    # Selectors see the rows sorted by id, so that the result does not depend on the order of the file.
    order = plan.pool.frame["row_id"].arg_sort().to_numpy().astype(np.int64)
    pool = plan.pool.take(order)
    seconds: dict[str, float] = {}
    names = None
    if plan.quota is not None:
        names = column_values(pool, plan.quota.column).unique().sort().to_list()
        plan.quota.check(names)
    clock = time.monotonic()
    features = _features(plan, pool)
    seconds["features"], clock = time.monotonic() - clock, time.monotonic()
    lengths = features.get("length")
    rng = np.random.default_rng(plan.seed)
    untouched = rng.bit_generator.state
    scores = plan.selector.score(features, n_ranked=_n_ranked(plan, lengths), rng=rng)
    depends_on_seed = rng.bit_generator.state != untouched
    seconds["selection"] = time.monotonic() - clock
    codes = None if plan.quota is None else features[f"column:{plan.quota.column}"]
    made = cut(scores, plan.budget, lengths=lengths, quota=plan.quota, codes=codes, names=names)
    made, scores = _in_file_order(made, order), _scores_in_file_order(scores, order, plan.pool)
    kept = made.kept if plan.order == "rank" else np.sort(made.kept)
    dropped = dropped_table(plan.pool, scores, made, plan.budget)
    seconds["total"] = time.monotonic() - started
    manifest = _manifest(plan, scores, kept, dropped, features.notes, seconds, depends_on_seed=depends_on_seed)
    return Subset(pool=plan.pool, scores=scores, kept=kept, dropped=dropped, manifest=manifest)


def _features(plan: _Plan, pool: Dataset) -> Features:
    from thresher.features import compute
    from thresher.features.beside import features_beside

    features = compute(pool, plan.needs, plan.context)
    beside: dict[str, Array] = {}
    for role, rows in plan.others.items():
        beside |= features_beside(role, getattr(plan.selector, "accepts", ()), rows, pool, plan.context)
    return replace(features, context={**features.context, **beside})


def _n_ranked(plan: _Plan, lengths: NDArray[np.int64] | None) -> int:
    """Return how far the ranking must go: a quota may skip any row, so it needs all of them."""
    return len(plan.pool) if plan.quota is not None else plan.budget.n_rows(len(plan.pool), lengths)


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
        covered_by = np.where(covered_by >= 0, order[np.maximum(covered_by, 0)], -1)[back]
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


def _manifest(
    plan: _Plan,
    scores: Scores,
    kept: NDArray[np.int64],
    dropped: pl.DataFrame,
    feature_notes: Mapping[str, Mapping[str, int]],
    seconds: Mapping[str, float],
    *,
    depends_on_seed: bool,
) -> Manifest:
    pool = plan.pool
    excluded = dropped.filter(pl.col("reason") == "excluded")["explanation"]
    objective = scores.objective
    content = {
        "format": FORMAT,
        "kind": "subset",
        "identity": digest(_identity(plan)),
        **plan.settings(),
        "inputs": [{"name": source.name, "bytes": source.bytes, "sha256": source.sha256} for source in pool.sources],
        "schema": _schema(pool),
        "id_column": pool.id_column,
        "counts": {
            "read": pool.n_read,
            "rejected": pool.rejected.height,
            "rejected_by_reason": _counted(pool.rejected["reason"]),
            "usable": len(pool),
            "kept": len(kept),
            "dropped": dropped.height,
            "dropped_by_reason": _counted(dropped["reason"]),
            "excluded_by_reason": _counted(excluded),
        },
        "depends_on_seed": depends_on_seed,
        "feature_notes": {name: dict(notes) for name, notes in feature_notes.items()},
        "objective": None if objective is None or not len(objective) else float(objective[-1]),
        "notes": dict(scores.notes or {}),
        "kept_rows": digest(pool.frame["row_id"].gather(kept).to_list()),
        "versions": versions(),
        "run": {
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
            "inputs": [_place(source) for source in pool.sources],
        },
    }
    return Manifest(content)


def _counted(reasons: pl.Series) -> dict[str, int]:
    """Return how often each value occurs, the most frequent first."""
    return dict(reasons.value_counts().sort("count", reasons.name, descending=[True, False]).iter_rows())


def _check_apart(out: Path, plan: _Plan) -> None:
    """Refuse to replace a folder that rows are read from."""
    read = [source for rows in (plan.pool, *plan.others.values()) for source in rows.sources]
    for source in read:
        if source.mtime_ns is not None and Path(os.path.realpath(source.path)).is_relative_to(os.path.realpath(out)):
            raise OutputError(
                f"{out}: the output must not replace its own input, it holds {source.name}; choose another --out"
            )


def _tell_done(path: Path, on_progress: Callable[[Progress], None] | None) -> None:
    from thresher.features import Progress

    if on_progress is not None:
        note = f"{path}: holds the result of this very command already, which is read back"
        on_progress(Progress(stage="select", done=1, total=1, note=note))


def _place(source: SourceFile) -> str:
    """Return where a file is, for whoever reads the manifest in another folder; names such as "<stdin>" stay."""
    return source.path if source.mtime_ns is None else os.path.abspath(source.path)
