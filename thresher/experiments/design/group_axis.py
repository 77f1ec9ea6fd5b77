"""Groups as the axis of a curve: how many sources, languages or tasks are enough, at equal rows?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.dataset import Dataset
from thresher.errors import InputError
from thresher.experiments.design.hold_out import read_groups
from thresher.numeric.arrays import Int64


@dataclass(frozen=True)
class GroupAxis:
    """Rows of a pool by group; every size has as many rows, of so many groups.

    Attributes:
        column: of the groups.
        places: positions in the pool of each group's rows.
        n_rows: of every size.
        n_left_out: groups that have fewer rows than that.
    """

    column: str
    places: tuple[Int64, ...]
    n_rows: int
    n_left_out: int

    @staticmethod
    def read(pool: Dataset, column: str, n_rows: int | None) -> GroupAxis:
        """Group a pool.

        Args:
            pool: rows to choose from.
            column: of the groups.
            n_rows: of every size; None for the lower quartile of the groups' sizes, so that three
                of four groups are large enough to stand alone.

        Raises:
            InputError: too few groups have so many rows.
            NotFoundError: there is no such column.
        """
        groups = read_groups(pool, column).to_numpy()
        names, codes = np.unique(groups, return_inverse=True)
        places = [np.flatnonzero(codes == code).astype(np.int64) for code in range(len(names))]
        least = n_rows or int(np.quantile([len(own) for own in places], 0.25, method="lower"))
        large = tuple(own for own in places if len(own) >= least)
        if len(large) < 4:
            raise InputError(
                f"axis: needs at least 4 values of {column} with {least:,} rows each, to see a law of 1, 2 and 4 "
                f"groups, found {len(large)}; choose fewer rows (max_rows) or another column"
            )
        return GroupAxis(column, large, least, len(places) - len(large))

    @property
    def unit(self) -> str:
        """What the sizes count."""
        return f"{self.column} groups"

    def list_sizes(self) -> tuple[int, ...]:
        """Return numbers of groups that double up to all of them."""
        n_groups = len(self.places)
        sizes = [2**power for power in range(n_groups.bit_length()) if 2**power <= n_groups / 1.5]
        return (*sizes, n_groups)

    def sample(self, n_groups: int, *, seed: int) -> Int64:
        """Return rows of so many random groups, as many of each as the number allows.

        Groups are nested in the number for a seed.

        Args:
            n_groups: how many.
            seed: of groups and rows.
        """
        rng = np.random.default_rng([seed, 0])
        chosen = rng.permutation(len(self.places))[:n_groups]
        share, rest = divmod(self.n_rows, n_groups)
        parts = [
            np.random.default_rng([seed, 1, group]).permutation(self.places[group])[: share + (place < rest)]
            for place, group in enumerate(chosen)
        ]
        return np.concatenate(parts)
