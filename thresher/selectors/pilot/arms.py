"""Arms: the ways to choose rows that race in a pilot."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from thresher.features.container import Features
from thresher.numeric.arrays import Array, Bool, Int64
from thresher.selectors.contract import Selector, score_rows
from thresher.selectors.facility_location import FacilityLocation
from thresher.selectors.prototypes import Prototypes
from thresher.selectors.stratified import Stratified
from thresher.selectors.uncertainty_coverage import UncertaintyCoverage
from thresher.selectors.uniform import Uniform
from thresher.subset.quota import Quota

CONTROL = "random"
MAX_GREEDY_ROWS = 50_000  # greedy methods compare pairs, and a quota needs the ranking of all rows


@dataclass(frozen=True, kw_only=True)
class Arm:
    """One way to choose rows.

    Attributes:
        name: as people would type it: the method and what is not its default.
        selector: ranks the rows.
        quota: reorders the ranking.
        skips_doubtful: rows with a doubtful label come after all others.
    """

    name: str
    selector: Selector
    quota: Quota | None = None
    skips_doubtful: bool = False

    def rank(self, features: Features, is_doubtful: Bool, n_ranked: int, rng: np.random.Generator) -> Int64:
        """Return the first rows by this arm, (n_ranked,) positions.

        Args:
            features: of n rows.
            is_doubtful: (n,) whose label is doubtful.
            n_ranked: at most n.
            rng: of the selector.
        """
        n = features.n_rows
        rows = np.flatnonzero(~is_doubtful) if self.skips_doubtful else np.arange(n)
        rest = np.flatnonzero(is_doubtful) if self.skips_doubtful else np.zeros(0, np.int64)
        pool = take_rows(features, rows) if len(rest) else features
        n_first = min(n_ranked, len(rows))
        n_needed = len(rows) if self.quota is not None else n_first
        ranking = score_rows(self.selector, pool, n_ranked=n_needed, rng=rng).ranking()
        if self.quota is not None:
            names, codes = np.unique(pool[f"column:{self.quota.column}"], return_inverse=True)
            ranking = self.quota.reorder(ranking, codes, [str(name) for name in names])
        return np.concatenate([rows[ranking[:n_first]], rest])[:n_ranked]


def take_rows(features: Features, rows: Int64) -> Features:
    """Return the features of some rows; what is not aligned with rows stays."""
    arrays: dict[str, Array] = {name: array[rows] for name, array in features.arrays.items()}
    missing: dict[str, pl.Series] = {name: reasons.gather(rows) for name, reasons in features.missing.items()}
    return Features(
        row_id=features.row_id.gather(rows),
        arrays=arrays,
        context=features.context,
        missing=missing,
        products=features.products,
    )


def list_labeled_arms(n_rows: int) -> list[Arm]:
    """Return the arms for rows with labels; the first is the control, random rows."""
    by_root = Quota("label", "sqrt")
    arms: list[dict[str, Any]] = [
        {"name": CONTROL, "selector": Uniform()},
        {"name": "random without doubtful labels", "selector": Uniform(), "skips_doubtful": True},
        {"name": "stratified balance=proportional", "selector": Stratified(balance="proportional")},
        {"name": "stratified balance=sqrt", "selector": Stratified(balance="sqrt"), "skips_doubtful": True},
        {"name": "prototypes", "selector": Prototypes()},
        {"name": "prototypes doubtful=ignore", "selector": Prototypes(doubtful="ignore")},
        {"name": "prototypes balance=proportional", "selector": Prototypes(balance="proportional")},
    ]
    if n_rows <= MAX_GREEDY_ROWS:
        arms += [
            {"name": "facility-location quota=label=sqrt", "selector": FacilityLocation(), "quota": by_root},
            {
                "name": "uncertainty-coverage without doubtful labels",
                "selector": UncertaintyCoverage(),
                "skips_doubtful": True,
            },
        ]
    return [Arm(**arm) for arm in arms]
