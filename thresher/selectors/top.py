"""Top: the rows with the largest or smallest numbers in a column of the user's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from thresher.features.container import Features
from thresher.features.requirements import Requirements
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class Top(Selector):
    """Rank rows by a column of numbers, such as a rating or a score of your own.

    Optimizes the sum of the column over the picks, or of its negative.

    Source: top-k of a given score, what most published filters do at their end (Xia et al. 2024,
    arXiv:2410.09335, found few of them better than random rows at scale). Cost: O(n log n) time.
    Needs: `number:<by>`, a column of numbers. Ties: to the lowest row, so equal rows stay together.
    An empty pool is refused. A row without a number is excluded with its reason. Fails: rows with
    the best scores are often alike; `quality-diversity` weighs a column against coverage.

    Attributes:
        by: the column.
        order: "largest" or "smallest" numbers first.
    """

    name: ClassVar[str] = "top"

    by: str = option("score", ge=1)
    order: Literal["largest", "smallest"] = option("largest")

    @property
    def requirements(self) -> Requirements:
        """The column."""
        return Requirements(features={f"number:{self.by}"})

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row that has a number."""
        value = features[f"number:{self.by}"].astype(np.float64)  # (n,), NaN with a reason
        value = value if self.order == "largest" else -value
        return Scores(
            row_id=features.row_id,
            value=np.where(np.isfinite(value), value, -np.inf),
            by=self.name,
            excluded=features.missing.get(f"number:{self.by}"),
        )
