"""What a call of `select` asks for, resolved and checked before any model runs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import polars as pl

from thresher.artifacts.manifest import versions
from thresher.dataset import Dataset, load
from thresher.dataset.provenance import describe_reading
from thresher.dataset.values.given import hash_given
from thresher.dataset.values.given_settings import GivenSettings
from thresher.errors import InputError, NotFoundError
from thresher.models.settings import ModelSettings
from thresher.selection.settings import Order, SelectSettings
from thresher.selectors import Selector
from thresher.selectors.contract import PoolFacts
from thresher.selectors.registry import as_selector
from thresher.subset.budget import Budget, parse_budget
from thresher.subset.quota import Quota, parse_quota
from thresher.validation import split_options

if TYPE_CHECKING:
    from thresher.features import FeatureContext, Progress
    from thresher.selection.pool_adapters import PlannedAdapter

ROLES = {"existing": "rows you already have", "target": "rows of a target"}  # rows beside the pool

RECIPE = 2  # raise it when the same request would keep other rows


@dataclass(frozen=True, kw_only=True)
class SelectCall:
    """What the user gave to `select` or `plan`, before the pool is read.

    Attributes:
        pool: a Dataset, or anything `load` accepts.
        method: name of a selector, or a selector.
        settings: of the selection.
        models: which models are run, and how.
        on_progress: listener.
        given: what the user brought in place of models.
    """

    pool: Any
    method: str | Selector
    settings: SelectSettings
    models: ModelSettings
    on_progress: Callable[[Progress], None] | None
    given: GivenSettings = field(default_factory=GivenSettings)

    @classmethod
    def of_options(
        cls,
        pool: Any,
        method: str | Selector,
        options: Mapping[str, Any],
        on_progress: Callable[[Progress], None] | None,
    ) -> SelectCall:
        """Return the call that was made with these keyword arguments.

        Raises:
            SettingsError: an option is unknown, missing or illegal.
        """
        settings, given, models = split_options("select", options, SelectSettings, GivenSettings, ModelSettings)
        return cls(pool=pool, method=method, settings=settings, models=models, on_progress=on_progress, given=given)


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
        context: of the features; its encoder is resolved, and the folders of adapters are in it.
        planned_adapters: adapters to train before the features are computed.
        order: of the kept rows.
        seed: of everything random.
        strict: refuse to keep fewer rows than were asked for.
    """

    pool: Dataset
    selector: Selector
    budget: Budget
    quota: Quota | None
    existing: Dataset | None
    target: Dataset | None
    context: FeatureContext
    planned_adapters: tuple[PlannedAdapter, ...]
    order: Order
    seed: int
    strict: bool = False

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
        return frozenset(self.selector.requirements.features) | more

    @property
    def all_needs(self) -> frozenset[str]:
        """Names of the features of the pool, and of those that rows beside it are looked at by."""
        side_features = self.selector.requirements.side_features
        return self.needs.union(*(side_features[role] for role in self.others))

    def settings(self) -> dict[str, Any]:
        """Return what the manifest says of the request, in JSON values."""
        from thresher.features import fingerprints

        return {
            "method": self.selector.name,
            "settings": self.selector.settings(),
            "budget": str(self.budget),
            "quota": None if self.quota is None else str(self.quota),
            "order": self.order,
            "seed": self.seed,
            "pool": self.pool.fingerprint,
            "existing": None if self.existing is None else self.existing.fingerprint,
            **({} if self.target is None else {"target": self.target.fingerprint}),
            "features": fingerprints(self.all_needs, self.context, kind=self.pool.kind),
        }

    def identity(self) -> dict[str, Any]:
        """Return what determines the result, in JSON values."""
        read = [describe_reading(rows) for rows in (self.pool, *self.others.values())]
        return {"request": self.settings(), "read": read, "recipe": RECIPE, "thresher": versions(())}


def resolve_request(call: SelectCall) -> Request:
    """Load and check what `select` was given.

    Raises:
        InputError: the budget or the rows do not fit.
        NotFoundError: a column that the method needs is not there.
    """
    request = check_request(
        call, lambda: call.given.attach(call.pool if isinstance(call.pool, Dataset) else load(call.pool))
    )
    _check_columns(request.selector, request.pool)
    return request


def _check_columns(selector: Selector, pool: Dataset) -> None:
    """Look for the columns that the method's settings name, before anything is computed.

    Raises:
        NotFoundError: the pool has no such column; it says which setting names another.
    """
    from thresher.features.compute import COLUMN, NUMBER, column_values

    settings = selector.settings()
    for need in sorted(selector.requirements.features):
        name = need.removeprefix(COLUMN).removeprefix(NUMBER)
        named_by = [setting for setting, value in settings.items() if value == name]
        if name == need or not named_by or name in pool.column_names:
            continue
        try:
            column_values(pool, name)
        except NotFoundError as error:
            raise NotFoundError(
                f"{selector.name}: {error}; name one with --set {named_by[0]}=COLUMN "
                f"(see 'thresher methods {selector.name}')"
            ) from None


def check_request(call: SelectCall, read: Callable[[], Dataset], whole: Callable[[], Dataset] | None = None) -> Request:
    """Check what `select` was given against the rows of the pool.

    Args:
        call: of the user; its pool is not looked at.
        read: gives the pool, once the rest of the call has been looked at.
        whole: gives the rows for a method that looks at their labels or trains on them before it
            chooses, where `read` gives only what an identity and a manifest need; None for the rows
            of `read`.

    Raises:
        InputError: the budget or the rows do not fit.
    """
    from thresher.features import FeatureContext

    settings = call.settings
    _refuse_pilot(settings)
    selector = as_selector(call.method, settings.method_settings)
    budget = parse_budget(settings.budget, method=selector.name)
    quota = None if settings.quota is None else parse_quota(settings.quota)
    pool = read()
    roles = {role for role in ROLES if getattr(settings, role) is not None}
    read_whole = whole or (lambda: pool)
    selector = selector.adapt(PoolFacts(kind=pool.kind, roles=roles, read=lambda: read_whole().frame))
    if quota is not None and not selector.takes_quota:
        raise InputError(
            f"quota: {selector.name} decides the number of rows per label itself, got --quota {quota}; leave it out, "
            f"or name a method"
        )
    if budget.unit == "threshold" and selector.ranks_only:
        raise InputError(
            f"budget: {selector.name} ranks rows and has no scores to compare with {budget}; "
            f"give rows (500), a share (30%) or tokens (200ktok)"
        )
    if budget.unit in ("rows", "share"):
        budget.n_rows(len(pool), unusable=pool.rejected_by_reason)
    check_roles(selector, vars(settings))
    others = {role: _load_side_rows(getattr(settings, role), call.given) for role in ROLES}
    feature_settings = selector.requirements.feature_settings
    # a pool of shards has no rows here, and nothing is given beside them
    known = hash_given(pool) if isinstance(pool, Dataset) else {}
    context = FeatureContext(
        models=call.models, on_progress=call.on_progress, given=known, **feature_settings
    ).resolved()
    rows = whole() if whole is not None and selector.requirements.adapters else pool
    planned: tuple[PlannedAdapter, ...] = ()
    if selector.requirements.adapters:
        from thresher.selection.pool_adapters import plan_adapters

        planned, context = plan_adapters(selector, rows, context, seed=int(settings.seed))
    return Request(
        pool=pool,
        selector=selector,
        budget=budget,
        quota=quota,
        **others,
        context=context,
        planned_adapters=planned,
        order=settings.order,
        seed=int(settings.seed),
        strict=settings.strict,
    )


def _refuse_pilot(settings: SelectSettings) -> None:
    """Refuse a pilot that trains: `th.select` has run it, and names the method here.

    Raises:
        InputError: one is asked for.
    """
    if settings.pilot != "none":
        raise InputError(
            f"pilot: only thresher select and th.select train to decide on a method, got '{settings.pilot}'; leave it "
            f"out here"
        )


def check_roles_first(method: str | Selector, settings: SelectSettings) -> None:
    """Check the rows beside the pool before anything is read, as far as that can be told then.

    Raises:
        InputError: the method does not look at such rows, or needs others.
    """
    given = {role for role in ROLES if getattr(settings, role) is not None}
    facts = PoolFacts(kind="unknown", roles=given, read=pl.DataFrame)
    check_roles(as_selector(method, settings.method_settings).adapt(facts), vars(settings))


def check_roles(selector: Selector, given: Mapping[str, Any]) -> None:
    """Check that a selector takes the rows that are given beside the pool, and has those it needs.

    Args:
        selector: the method.
        given: rows by role, or whatever names them; None where there are none; other names count
            nothing.

    Raises:
        InputError: the selector does not look at such rows, or needs others.
    """
    for role in ROLES:
        rows = given.get(role)
        if rows is None and role in selector.requirements.required_roles:
            raise InputError(f"{role}: {selector.name} needs {ROLES[role]}, found none; give --{role} FILE")
        if rows is not None and role not in selector.requirements.side_features:
            raise InputError(
                f"{role}: {selector.name} does not use {ROLES[role]}; leave them out, or choose a method that "
                f"does (thresher methods NAME lists what a method needs)"
            )


def _load_side_rows(rows: Any, given: GivenSettings) -> Dataset | None:
    """Return rows beside the pool, with their own vectors where these are named, too."""
    if rows is None:
        return None
    rows = rows if isinstance(rows, Dataset) else load(rows)
    return given.attach_to_others(rows)
