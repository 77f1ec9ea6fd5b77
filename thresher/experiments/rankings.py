"""Rankings of the pool, computed once per method and seed, as far as they are needed."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from thresher.dataset import Dataset
from thresher.errors import InputError, SettingsError, did_you_mean
from thresher.selection.run import select
from thresher.selectors import create

if TYPE_CHECKING:
    from thresher.features import Progress


def check_methods(names: Sequence[str], settings: Mapping[str, Mapping[str, Any]], command: str) -> None:
    """Refuse names and settings of methods that do not exist, before anything is read or run.

    Args:
        names: of the methods.
        settings: by method.
        command: that asks, for the message.

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
    for name in names:
        create(name, settings.get(name))


@dataclass(frozen=True)
class Ranking:
    """The first rows of a method's order.

    Attributes:
        rows: (k,) positions in the pool, best first.
        feature_seconds: spent on features; next to nothing when they were cached.
        select_seconds: spent on scoring and cutting.
    """

    rows: NDArray[np.int64]
    feature_seconds: float
    select_seconds: float


@dataclass
class Rankings:
    """All rankings of one experiment.

    Attributes:
        pool: rows to rank.
        options: of `select`: encoder, model, device, ...
        settings: of the methods, by name.
        on_progress: listener.
        known: by method and seed; seed None where the method does not draw, so that every seed has
            the same ranking.
    """

    pool: Dataset
    options: Mapping[str, Any]
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    on_progress: Callable[[Progress], None] | None = None
    known: dict[tuple[str, int | None], Ranking] = field(default_factory=dict)

    def first(self, method: str, n_rows: int, *, seed: int) -> Ranking:
        """Return the ranking, at least `n_rows` long.

        Raises:
            InputError: the method ranks fewer rows, or not in a nested way.
        """
        have = self.known.get((method, seed)) or self.known.get((method, None))
        if have is not None and len(have.rows) >= n_rows:
            return have
        began = time.monotonic()
        subset = select(
            self.pool,
            method,
            budget=n_rows,
            settings=self.settings.get(method),
            order="rank",
            seed=seed,
            on_progress=self.on_progress,
            **self.options,
        )
        spent = subset.manifest.content["run"]["seconds"]
        made = Ranking(subset.kept, spent["features"], time.monotonic() - began - spent["features"])
        if len(made.rows) < n_rows:
            raise InputError(f"{method}: ranks only {len(made.rows)} of the {n_rows} rows that are wanted")
        if have is not None and not np.array_equal(made.rows[: len(have.rows)], have.rows):
            raise InputError(f"{method}: its first {len(have.rows)} rows change with the budget; it cannot be compared")
        is_for_all = not subset.manifest.content["depends_on_seed"]
        self.known[method, None if is_for_all else seed] = made
        return made
