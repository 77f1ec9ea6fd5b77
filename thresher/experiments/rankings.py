"""Rankings of the pool, computed once per method and seed, as far as they are needed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from thresher.dataset import Dataset
from thresher.errors import InputError, SettingsError, did_you_mean
from thresher.experiments.own.method_file import list_methods
from thresher.experiments.settings import BASELINE, MethodSettings
from thresher.numeric.arrays import Int64
from thresher.progress import OnProgress
from thresher.selection.run import select
from thresher.selectors import Selector, available, create
from thresher.selectors.contract import PoolFacts
from thresher.selectors.registry import as_selector
from thresher.selectors.uniform import hash_rows
from thresher.subset.quota import parse_quota

LENGTH = "length"  # methods may win by reading more, so this one is always beside them
TARGET = "target"  # role of the rows of a task
_REDRAW = 0x5EED  # keeps the draw of the pool apart from that of random rows


def name_methods(options: Mapping[str, Any], command: str) -> tuple[dict[str, Any], dict[str, Selector]]:
    """Replace the selectors and functions among the methods of an experiment by their names.

    Args:
        options: what the experiment was given; `methods` may be a text, a selector, a function, or
            a list of these.
        command: that asks, for the message.

    Returns:
        The options with names alone, and the settings of the selectors among `method_settings`; the
        selectors by name.

    Raises:
        InputError: a name occurs twice, or settings are given for a selector that has its own.
    """
    methods = options.get("methods") or ()
    methods = [methods] if isinstance(methods, str | Selector) or callable(methods) else list(methods)
    named = [method if isinstance(method, str) else as_selector(method) for method in methods]
    selectors = {each.name: each for each in named if isinstance(each, Selector)}
    names = [each if isinstance(each, str) else each.name for each in named]
    if not selectors:
        return dict(options), {}
    settings = dict(options.get("method_settings") or {})
    for name in selectors:
        if names.count(name) > 1 or name == BASELINE:
            raise InputError(f"{command}: each method needs a name of its own, found '{name}' twice")
        if name in settings:
            raise InputError(f"{command}: the settings of {name} are those of the selector, got others for it")
    settings |= {name: selector.settings() for name, selector in selectors.items()}
    return {**options, "methods": names, "method_settings": settings}, selectors


def check_methods(
    names: Sequence[str], settings: MethodSettings, command: str, selectors: Mapping[str, Selector]
) -> None:
    """Refuse names and settings of methods that do not exist, before anything is read or run.

    Args:
        names: of the methods.
        settings: by method.
        command: that asks, for the message.
        selectors: methods that were given as selectors, by name.

    Raises:
        InputError: a method is not named in the form of `MethodName`.
        NotFoundError: there is no such method.
        SettingsError: a method has no such setting, or settings are given for a method that is not
            asked for.
    """
    parsed = {name: MethodName.parse(name) for name in names if name not in selectors}
    base_names = {method.name for method in parsed.values()} | set(selectors)
    unknown = [name for name in settings if name not in base_names]
    if unknown:
        raise SettingsError(
            f"{command}: settings must be of the methods {', '.join(names)}, got some of {unknown[0]}"
            f"{did_you_mean(unknown[0], names)}"
        )
    for method in parsed.values():
        if not method.build(settings).takes_quota and method.quota is not None:
            raise InputError(f"{command}: {method.name} takes no quota, got quota={method.quota}; leave it out")


def choose_methods(
    names: str | Sequence[str], settings: MethodSettings, selectors: Mapping[str, Selector]
) -> list[str]:
    """Return the methods of a comparison; "all" are those that ask no language model.

    Raises:
        InputError: there is nothing to compare random with.
        NotFoundError: there is no such method.
        SettingsError: a method has no such setting.
    """
    if names == "all":
        names = [name for name in available() if not _needs_model(name, settings)]
    methods = list_methods(names, "compare")
    if methods == [BASELINE]:
        raise InputError(f"compare: at least one method besides {BASELINE} is needed, got {list(names)}")
    methods = list(dict.fromkeys([*methods, LENGTH]))
    check_methods(methods, settings, "compare", selectors)
    return methods


def _needs_model(name: str, settings: MethodSettings) -> bool:
    """Tell whether a method asks a language model, which "all" does not pay for unasked."""
    cheap = {"embedding", "length", "ngram"}
    needs = create(name, settings.get(name)).requirements.all_features
    return any(need not in cheap and not need.startswith("column:") for need in needs)


def has_columns(name: str, settings: MethodSettings, pool: Dataset) -> bool:
    """Tell whether the pool has the columns that a method groups rows by."""
    columns = {"source", *pool.column_names, *(["label"] if pool.kind == "classification" else [])}
    needs = create(name, settings.get(name)).requirements.features
    return {need.removeprefix("column:") for need in needs if need.startswith("column:")} <= columns


@dataclass(frozen=True, kw_only=True)
class MethodName:
    """A method as people name it, with settings, a quota and the number of a repetition.

    `facility-location quota=label=sqrt`, `stratified balance=sqrt`, `random#2`.

    Attributes:
        name: of the selector.
        settings: of it, over those that all of this name get.
        quota: as `select` takes it, or None.
        number: 2 for the second of equal methods, which draws anew.
    """

    name: str
    settings: Mapping[str, str]
    quota: str | None
    number: int

    @staticmethod
    def parse(text: str) -> MethodName:
        """Return what a text means.

        Raises:
            InputError: it is not METHOD[#NUMBER] [NAME=VALUE ...].
        """
        first, *pairs = text.split()
        name, mark, number = first.partition("#")
        if not name or (mark and not (number.isdecimal() and int(number) >= 1)) or not all("=" in p for p in pairs):
            raise InputError(
                f"methods: must be METHOD, METHOD#2 or METHOD NAME=VALUE ..., got '{text}'; "
                f"for example 'facility-location quota=label=sqrt'"
            )
        values = dict(pair.split("=", 1) for pair in pairs)
        quota = values.pop("quota", None)
        settings = {setting.replace("-", "_"): value for setting, value in values.items()}
        if quota is not None:
            parse_quota(quota)
        return MethodName(name=name, settings=settings, quota=quota, number=int(number or 1))

    def build(self, settings: MethodSettings) -> Selector:
        """Return the selector, with the settings that all of its name get."""
        selector: Selector = create(self.name, {**settings.get(self.name, {}), **self.settings})
        return selector


class Plan(NamedTuple):
    """What a ranking depends on besides its method and seed.

    Attributes:
        n_drawn: rows that are drawn from the pool.
        n_chosen: rows of the choice, where the method decides by their number, else None.
    """

    n_drawn: int
    n_chosen: int | None


class Ranking(NamedTuple):
    """The first rows of a method's order.

    Attributes:
        rows: (k,) positions in the pool, best first.
        seconds: spent on features, next to nothing where they were cached, and on choosing.
    """

    rows: Int64
    seconds: float


@dataclass
class Rankings:
    """All rankings of one experiment.

    Attributes:
        pool: rows to rank.
        options: of `select`: encoder, model, device, ...
        settings: of the methods, by name.
        on_progress: listener.
        selectors: methods that were given as selectors, by name.
        target: rows of the task, for the methods that look at such rows, or None.
        redraw: share of the pool that each seed draws, to choose from; 1 for all of it. See
            `count_drawn`.
        known: by method, seed and what else the choice depends on; seed None where the method uses
            no random numbers, so that every seed has the same ranking.
    """

    pool: Dataset
    options: Mapping[str, Any]
    settings: MethodSettings = field(default_factory=dict)
    on_progress: OnProgress | None = None
    selectors: Mapping[str, Selector] = field(default_factory=dict)
    target: Dataset | None = None
    redraw: float = 1.0
    known: dict[tuple[str, int | None, Plan], Ranking] = field(default_factory=dict)

    def rank(self, method: str, n_rows: int, *, seed: int, largest: int = 0) -> Ranking:
        """Return the ranking whose first `n_rows` rows are the method's choice.

        Args:
            method: its name.
            n_rows: to be chosen.
            seed: of the choice.
            largest: most rows that will be chosen, so that a method ranks once for all sizes where
                the choices are nested: not where it decides by their number, nor where more rows
                are drawn for more to choose.

        Raises:
            InputError: the method ranks fewer rows, or not in a nested way.
        """
        started = time.monotonic()
        name = None if method in self.selectors else MethodName.parse(method)
        number = 1 if name is None else name.number
        selector = self.selectors[method] if name is None else name.build(self.settings)
        plan = self._plan(selector, n_rows)
        shorter = self.known.get((method, seed, plan)) or self.known.get((method, None, plan))
        if shorter is not None and len(shorter.rows) >= n_rows:
            return shorter
        if plan == self._plan(selector, max(n_rows, largest)):
            n_rows = max(n_rows, largest)
        if plan.n_chosen == len(self.pool):  # nothing is to be decided
            selector = create(BASELINE)
        # a repetition draws all that is drawn anew
        own_seed = seed if number == 1 else int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
        rows = self._draw_pool(plan.n_drawn, own_seed)
        subset = select(
            self.pool if rows is None else self.pool.take(rows),
            selector,
            target=self._choose_target(selector),
            budget=n_rows,
            quota=None if name is None else name.quota,
            order="rank",
            seed=own_seed,
            on_progress=self.on_progress,
            **self.options,
        )
        kept = subset.kept if rows is None else rows[subset.kept]
        ranking = Ranking(kept, time.monotonic() - started)
        n_ranked = len(ranking.rows)
        if n_ranked < n_rows:
            raise InputError(
                f"{method}: ranks only {n_ranked:,} rows, and {n_rows:,} are needed; ask for at most "
                f"{n_ranked:,}, or leave {method} out"
            )
        # the longer ranking must begin with the shorter one, or the subsets are not nested
        if shorter is not None and not np.array_equal(ranking.rows[: len(shorter.rows)], shorter.rows):
            raise InputError(
                f"{method}: its first {len(shorter.rows)} rows change with the budget; it cannot be compared"
            )
        uses_seed = rows is not None or number > 1 or subset.manifest.content["depends_on_seed"]
        self.known[method, seed if uses_seed else None, plan] = ranking
        return ranking

    def count_drawn(self, n_rows: int) -> int:
        """Return from how many rows each seed chooses so many: the share `redraw` of the pool.

        At least half of the rows that the choice leaves out are drawn, too: a method that must take
        nearly every row that is drawn would choose no other rows than random.
        """
        n = len(self.pool)
        return n if self.redraw >= 1 else min(n, max(round(self.redraw * n), n - (n - n_rows) // 2))

    def describe_choices(self, sizes: Sequence[int]) -> list[dict[str, int]]:
        """Return `n_rows` and `of`, the rows that each seed chooses from, at each size."""
        return [{"n_rows": size, "of": self.count_drawn(size)} for size in sizes]

    def _plan(self, selector: Selector, n_rows: int) -> Plan:
        is_decided = selector.adapt(self._facts).decides_by_budget
        return Plan(self.count_drawn(n_rows), n_rows if is_decided else None)

    @property
    def _facts(self) -> PoolFacts:
        roles = set() if self.target is None else {TARGET}
        return PoolFacts(kind=self.pool.kind, roles=roles, read=lambda: self.pool.frame)

    def _choose_target(self, selector: Selector) -> Dataset | None:
        """Return the rows of the task where a method looks at such rows."""
        if self.target is None:
            return None
        return self.target if TARGET in selector.adapt(self._facts).requirements.side_features else None

    def _draw_pool(self, n_drawn: int, seed: int) -> Int64 | None:
        """Return the rows that a seed chooses from, ascending; None for all of them.

        They follow from the rows' ids, whatever the order of the file; fewer are among more.
        """
        if n_drawn >= len(self.pool):
            return None
        value = hash_rows(self.pool.frame["row_id"], np.random.default_rng([_REDRAW, seed]))
        return np.sort(np.argsort(value, kind="stable")[:n_drawn])
