"""Length: the longest, the shortest or the most ordinary rows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores


@dataclass(frozen=True, kw_only=True)
class Length(Selector):
    """Rank rows by their number of tokens.

    Optimizes the sum of length (longest), of -length (shortest), or of -|length - median| (middle)
    of the picks.

    Source: taking the longest responses is a strong baseline for instruction data (Zhao et al.
    2024, arXiv:2402.04833; Xia et al. 2024, arXiv:2410.09335). Cost: O(n) time, 8 n bytes. Needs:
    `length`. Ties: to the lowest row, so equal rows stay together. An empty pool is refused. Fails:
    from a large unfiltered pool it collects what is long for no reason: mean of seven tasks 17.8
    where random rows gave 40.7, with 5.8 million rows to choose from, though 43.5 against 40.9 with
    200 thousand (Ivison et al. 2025, arXiv:2503.01807). The longest rows also cost most to train
    on, so compare with random at an equal budget of tokens; on classification data it lost to
    random rows by 0.12 to 0.21 of accuracy on Banking77 at 5, 10 and 30 % of the rows, and by 0.23
    to 0.41 of the tokens (`benchmarks/selection_helps.py`).

    Attributes:
        order: "longest", "shortest" or "middle" (nearest to the median of the pool).
    """

    name: ClassVar[str] = "length"
    requirements: ClassVar[Requirements] = Requirements(features={"length"})

    order: Literal["longest", "shortest", "middle"] = "longest"

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row; all rows are ranked."""
        length = features["length"].astype(np.float64)  # (n,) tokens
        if self.order == "longest":
            value = length
        elif self.order == "shortest":
            value = -length
        else:
            value = -np.abs(length - np.median(length))
        return Scores(row_id=features.row_id, value=value, by=self.name)
