"""Rankings of the pool, computed once per method and seed, as far as they are needed."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from thresher.dataset import Dataset
from thresher.errors import InputError, SettingsError, did_you_mean
from thresher.experiments.settings import BASELINE, MethodSettings
from thresher.numeric.arrays import Int64
from thresher.progress import OnProgress
from thresher.selection.run import select
from thresher.selectors import Selector, create
from thresher.selectors.registry import as_selector


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
    methods = options.get("methods", ())
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
        NotFoundError: there is no such method.
        SettingsError: a method has no such setting, or settings are given for a method that is not
            asked for.
    """
    unknown = [name for name in settings if name not in names]
    if unknown:
        raise SettingsError(
            f"{command}: settings must be of the methods {', '.join(names)}, got some of {unknown[0]}"
            f"{did_you_mean(unknown[0], names)}"
        )
    for name in set(names).difference(selectors):
        create(name, settings.get(name))


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
        known: by method and seed; seed None where the method uses no random numbers, so that every
            seed has the same ranking.
    """

    pool: Dataset
    options: Mapping[str, Any]
    settings: MethodSettings = field(default_factory=dict)
    on_progress: OnProgress | None = None
    selectors: Mapping[str, Selector] = field(default_factory=dict)
    known: dict[tuple[str, int | None], Ranking] = field(default_factory=dict)

    def rank(self, method: str, n_rows: int, *, seed: int) -> Ranking:
        """Return the ranking, at least `n_rows` long.

        Raises:
            InputError: the method ranks fewer rows, or not in a nested way.
        """
        shorter = self.known.get((method, seed)) or self.known.get((method, None))
        if shorter is not None and len(shorter.rows) >= n_rows:
            return shorter
        started = time.monotonic()
        subset = select(
            self.pool,
            self.selectors.get(method, method),
            budget=n_rows,
            settings=None if method in self.selectors else self.settings.get(method),
            order="rank",
            seed=seed,
            on_progress=self.on_progress,
            **self.options,
        )
        ranking = Ranking(subset.kept, time.monotonic() - started)
        n_ranked = len(ranking.rows)
        if n_ranked < n_rows:
            raise InputError(f"{method}: ranks only {n_ranked} rows; {n_rows} are needed")
        # the longer ranking must begin with the shorter one, or the subsets are not nested
        if shorter is not None and not np.array_equal(ranking.rows[: len(shorter.rows)], shorter.rows):
            raise InputError(
                f"{method}: its first {len(shorter.rows)} rows change with the budget; it cannot be compared"
            )
        uses_seed = subset.manifest.content["depends_on_seed"]
        self.known[method, seed if uses_seed else None] = ranking
        return ranking
