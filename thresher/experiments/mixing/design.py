"""The mixes that are trained: which shares, how many rows, which rows of each source."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from thresher.dataset import Dataset
from thresher.errors import InputError
from thresher.evaluation.mixture_law import cap_shares, spread_shares
from thresher.experiments.mixing.settings import MOST_SOURCES
from thresher.features.compute import column_values
from thresher.numeric.arrays import Float64, Int64

CELLS_PER_SOURCE = 8
SPARE = 3  # mixes beyond the linear part of the law, at least
MOST_ROWS = 500  # of the largest mixes, where no number is given
REPLAY = "replay"


@dataclass(frozen=True)
class Sources:
    """The rows of a pool by source.

    Attributes:
        names: of the sources, the replay last.
        places: positions in the pool of the rows of each.
        n_rows: of the largest mixes.
    """

    names: tuple[str, ...]
    places: tuple[Int64, ...]
    n_rows: int

    @staticmethod
    def read(pool: Dataset, by: str, n_rows: int | None, *, n_task: int | None = None) -> Sources:
        """Group a pool by a column.

        Args:
            pool: rows, those of the task first.
            by: column of the sources.
            n_rows: of the largest mixes, fewer than the pool has; None: half of it, at most 500.
            n_task: rows that are of the task, where those behind them are the replay.

        Raises:
            InputError: there are too few or too many sources, or the largest mixes take all rows.
            NotFoundError: there is no such column.
        """
        n_task = len(pool) if n_task is None else n_task
        values = column_values(pool.take(np.arange(n_task)), by).to_numpy().astype(str)
        names, codes = np.unique(values, return_inverse=True)
        places = [np.flatnonzero(codes == code).astype(np.int64) for code in range(len(names))]
        found = [str(name) for name in names]
        if n_task < len(pool):
            places, found = [*places, np.arange(n_task, len(pool), dtype=np.int64)], [*found, REPLAY]
        if not 2 <= len(found) <= MOST_SOURCES:
            raise InputError(
                f"mix: needs 2 to {MOST_SOURCES} sources, found {len(found)} by {by}; give several --source, or "
                f"another column with --by"
            )
        if n_rows is None:
            n_rows = min(MOST_ROWS, len(pool) // 2)
        if n_rows >= len(pool):  # every mix of all rows has the same shares
            raise InputError(
                f"mix: rows must be fewer than the {len(pool):,} rows of all sources together, so that shares can "
                f"differ, got {n_rows:,}; leave --rows out for half of them, at most 500"
            )
        return Sources(tuple(found), tuple(places), n_rows)

    @property
    def short_names(self) -> list[str]:
        """The names as they are shown: of files without their folders, where that is enough."""
        short = [name.rstrip("/").rpartition("/")[2] or name for name in self.names]
        return short if len(set(short)) == len(short) else list(self.names)

    @property
    def counts(self) -> Int64:
        """Rows of each source: (m,)."""
        return np.array([len(own) for own in self.places], dtype=np.int64)

    @property
    def limits(self) -> Float64:
        """Largest share of each source in the largest mixes: (m,)."""
        return np.minimum(1.0, self.counts / self.n_rows)

    @property
    def equal_shares(self) -> Float64:
        """Equal shares, as far as each source has so many rows: (m,)."""
        m = len(self.names)
        return cap_shares(np.full(m, 1 / m), self.limits)

    @property
    def least_mixes(self) -> int:
        """The fewest mixes that the law can be fitted to."""
        return len(self.names) + 1 + SPARE

    def plan(self, n_mixes: int | None) -> tuple[Float64, Int64]:
        """Return the shares and the rows of each mix that is trained: (n, m) and (n,).

        Every third mix has half of the rows, so that the law learns what more rows bring.
        """
        n = CELLS_PER_SOURCE * len(self.names) if n_mixes is None else n_mixes
        if n < self.least_mixes:
            raise InputError(
                f"mix: mixes must be at least {self.least_mixes} for the law of {len(self.names)} sources, got {n}; "
                f"leave --mixes out for {CELLS_PER_SOURCE * len(self.names)}"
            )
        shares = spread_shares(len(self.names), n, self.limits)
        return shares, np.where(np.arange(n) % 3 == 2, self.n_rows // 2, self.n_rows).astype(np.int64)

    def sample(self, shares: Float64, n_rows: int, *, seed: int) -> Int64:
        """Return random rows in these shares, as near as whole rows allow.

        The same seed gives nested draws of each source.
        """
        rng = [np.random.default_rng([seed, number, 3]) for number in range(len(self.names))]
        counts = count_rows(shares, n_rows, self.counts)
        parts = [own.permutation(at)[:n] for own, at, n in zip(rng, self.places, counts, strict=True)]
        return np.concatenate(parts)


def count_rows(shares: Float64, n_rows: int, available: Sequence[int] | Int64) -> Int64:
    """Return whole numbers of rows in these shares, by the largest remainders: (m,)."""
    exact = np.minimum(shares * n_rows, np.asarray(available))
    counts: Int64 = np.floor(exact + 1e-9).astype(np.int64)
    missing = min(round(float(exact.sum())), n_rows) - int(counts.sum())
    order = np.argsort(-(exact - counts), kind="stable")
    for code in [code for code in order if counts[code] < available[code]][: max(0, missing)]:
        counts[code] += 1
    return counts
