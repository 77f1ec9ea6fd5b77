"""Which pick stood for each row after any number of picks: how a long ranking is cut shorter."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from thresher.numeric.arrays import Float32, Float64, Int32, Int64
from thresher.subset.scores import EXISTING


@dataclass(frozen=True, kw_only=True)
class CoverHistory:
    """The nearest pick of each row, over the course of a greedy run.

    Rows that are equal may have one place together: there are u <= n places.

    Attributes:
        start: (u + 1,) place i has the entries `start[i]:start[i + 1]`.
        rank: (m,) ascending within a place: the picks that became its nearest, 0 for the first.
        similarity: (m,) of the place to that pick.
        floor: (u,) similarity to the nearest existing row, at least 0.
        group: (n,) place of each row; None where each has its own.
        marks: name -> ascending ranks of picks at which something happened once, counted in the
            manifest; -1 for before the first.
    """

    start: Int64
    rank: Int32
    similarity: Float32
    floor: Float64
    group: Int64 | None = None
    marks: Mapping[str, Int64] = field(default_factory=dict)

    def cover(self, ranking: Int64, n_picks: int) -> tuple[Int64, Float32]:
        """Return what stands for each row after some picks, and how similar that is.

        A pick stands for itself.

        Args:
            ranking: (k,) rows in the order of the picks.
            n_picks: how many of them count.

        Returns:
            (n,) a row, EXISTING for an existing one, or -1 for neither; (n,) float32.
        """
        n_before = np.concatenate([[0], np.cumsum(self.rank < n_picks)])[self.start]
        last = self.start[:-1] + np.diff(n_before) - 1
        is_covered = last >= self.start[:-1]
        by = np.where(self.floor > 0, EXISTING, -1)
        similarity = self.floor.astype(np.float32)
        by[is_covered] = ranking[self.rank[last[is_covered]]]
        similarity[is_covered] = self.similarity[last[is_covered]]
        if self.group is not None:
            by, similarity = by[self.group], similarity[self.group]
        picks = ranking[:n_picks]
        by[picks], similarity[picks] = picks, 1.0
        return by, similarity

    def count_marks(self, n_picks: int) -> dict[str, int]:
        """Return how often each thing had happened after some picks."""
        return {name: int(np.searchsorted(ranks, n_picks)) for name, ranks in self.marks.items()}
