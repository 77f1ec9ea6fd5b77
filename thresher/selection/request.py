"""What a call of `select` asks for, resolved and checked before any model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, is_dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from thresher.artifacts.manifest import versions
from thresher.dataset import Dataset, load
from thresher.dataset.provenance import describe_reading
from thresher.errors import InputError, NotFoundError
from thresher.models.settings import EmbeddingDtype, LossOn
from thresher.selection.pool_adapters import Promise, promises
from thresher.selectors import Selector, create
from thresher.subset.budget import Budget, parse_budget
from thresher.subset.quota import Quota, parse_quota

if TYPE_CHECKING:
    from thresher.features import FeatureContext, Progress

Order = Literal["file", "rank"]
ROLES = {"existing": "rows you already have", "target": "rows of a target"}  # rows beside the pool


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What the user gave to `select` or `plan`, as it was given; the fields are described at `select`."""

    pool: Any
    method: str | Selector
    budget: int | float | str | Budget
    settings: Mapping[str, Any] | None
    existing: Any
    target: Any
    encoder: str | None
    model: str | None
    tokenizer: str | None
    device: str | None
    dtype: str | None
    embedding_dtype: EmbeddingDtype
    batch_tokens: int | None
    max_length: int | None
    loss_on: LossOn
    quota: str | Quota | None
    order: Order
    seed: int
    on_progress: Callable[[Progress], None] | None


@dataclass(frozen=True, kw_only=True)
class Request:
    """Everything that determines a selection, resolved and checked.

    Attributes:
        pool: rows to choose from.
        selector: with its settings.
        budget: parsed.
        quota: parsed, or None.
        existing: rows the user has already, or None.
        target: rows of a target, or None.
        context: of the features, with its encoder resolved and the folders of `promises` in it.
        promises: adapters to train before the features are computed.
        order: of the kept rows.
        seed: of everything random.
    """

    pool: Dataset
    selector: Selector
    budget: Budget
    quota: Quota | None
    existing: Dataset | None
    target: Dataset | None
    context: FeatureContext
    promises: tuple[Promise, ...]
    order: Order
    seed: int

    @property
    def others(self) -> dict[str, Dataset]:
        """Rows beside the pool, by their role."""
        return {role: rows for role in ROLES if (rows := getattr(self, role)) is not None}

    @property
    def needs(self) -> frozenset[str]:
        """Names of the features of the pool."""
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
            "features": fingerprints(self.needs, self.context, kind=self.pool.kind),
        }

    def identity(self) -> dict[str, Any]:
        """Return what determines the result, in JSON values."""
        read = [describe_reading(rows) for rows in (self.pool, *self.others.values())]
        return {"request": self.settings(), "read": read, "thresher": versions(())}


def resolve(asked: Asked) -> Request:
    """Load and check what `select` was given.

    Raises:
        InputError: the budget, the order, the seed or the rows do not fit.
        NotFoundError: a column that the method needs is not there.
    """
    request = resolve_on(asked, lambda: asked.pool if isinstance(asked.pool, Dataset) else load(asked.pool))
    _check_columns(request.selector, request.pool)
    return request


def _check_columns(selector: Selector, pool: Dataset) -> None:
    """Look for the columns that the method's settings name, before anything is computed.

    Raises:
        NotFoundError: the pool has no such column; it says which setting names another.
    """
    from thresher.features.compute import COLUMN, NUMBER, column_values

    settings: dict[str, Any] = asdict(selector) if is_dataclass(selector) else {}
    for need in sorted(selector.needs):
        name = need.removeprefix(COLUMN).removeprefix(NUMBER)
        named_by = [setting for setting, value in settings.items() if value == name]
        if name == need or not named_by or name in pool.column_names:
            continue
        try:
            column_values(pool, name)
        except NotFoundError as error:
            raise NotFoundError(
                f"{selector.name}: {error}; name one with --set {named_by[0]}=COLUMN "
                f"('thresher methods {selector.name}' tells more)"
            ) from None


def resolve_on(asked: Asked, read: Callable[[], Dataset], whole: Callable[[], Dataset] | None = None) -> Request:
    """Check what `select` was given against the rows of the pool.

    Args:
        asked: by the user; its pool is not looked at.
        read: gives the pool, once the rest of what was asked has been looked at.
        whole: gives the rows for a method that trains on them before it chooses, where `read` tells
            only what an identity and a manifest need; None for the rows of `read`.

    Raises:
        InputError: the budget, the order, the seed or the rows do not fit.
    """
    from thresher.features import make_context

    selector = _selector(asked.method, asked.settings)
    budget = parse_budget(asked.budget, method=selector.name)
    quota = None if asked.quota is None else parse_quota(asked.quota)
    if asked.order not in ("file", "rank"):
        raise InputError(f"order: must be 'file' or 'rank', got '{asked.order}'")
    if not isinstance(asked.seed, int | np.integer) or asked.seed < 0:
        raise InputError(f"seed: must be a whole number from 0, got {asked.seed!r}")
    pool = read()
    if budget.unit == "threshold" and getattr(selector, "ranks_only", False):
        raise InputError(
            f"budget: {selector.name} ranks rows and has no score to compare with {budget}; "
            f"give rows (500), a share (30%) or tokens (200ktok)"
        )
    if budget.unit in ("rows", "share"):
        budget.n_rows(len(pool))
    others = {role: _rows_beside(role, getattr(asked, role), selector) for role in ROLES}
    context = make_context(
        encoder=asked.encoder,
        model=asked.model,
        tokenizer=asked.tokenizer,
        device=asked.device,
        dtype=asked.dtype,
        embedding_dtype=asked.embedding_dtype,
        batch_tokens=asked.batch_tokens,
        max_length=asked.max_length,
        loss_on=asked.loss_on,
        on_progress=asked.on_progress,
        **getattr(selector, "feature_settings", {}),
    ).resolved(len(pool))
    is_prepared = bool(getattr(selector, "prepares", None))
    rows = whole() if whole is not None and is_prepared else pool
    promised, context = promises(selector, rows, context, seed=int(asked.seed))
    return Request(
        pool=pool,
        selector=selector,
        budget=budget,
        quota=quota,
        **others,
        context=context,
        promises=promised,
        order=asked.order,
        seed=int(asked.seed),
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
