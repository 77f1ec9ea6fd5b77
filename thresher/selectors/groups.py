"""Selectors that divide the rows into groups: by a column, or into clusters."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from thresher.errors import SettingsError
from thresher.features.container import Features
from thresher.numeric.arrays import Int64
from thresher.numeric.kmeans import spherical_kmeans
from thresher.selectors.contract import Selector
from thresher.validation import option


@dataclass(frozen=True, kw_only=True)
class GroupedSelector(Selector):
    """A selector whose setting `by` names what the rows are divided by."""

    by: str = option("label", ge=1)
    n_clusters: int | None = option(None, ge=1)

    def __post_init__(self) -> None:
        """Check the settings.

        Raises:
            SettingsError: a setting has an illegal value.
        """
        super().__post_init__()
        if self.n_clusters is not None and self.by != "cluster":
            raise SettingsError(
                f"{self.name}: n_clusters is for by='cluster' only, got n_clusters={self.n_clusters} "
                f"with by='{self.by}'; leave one of them out"
            )

    def _group(self, features: Features, rng: np.random.Generator) -> Int64:
        """Return the group of each row, (n,) int64, 0..n_groups - 1 without gaps."""
        if self.by == "cluster":
            n_clusters = self.n_clusters or max(1, round((features.n_rows / 2) ** 0.5))
            return spherical_kmeans(features["embedding"], n_clusters, rng).group
        _, group = np.unique(features[f"column:{self.by}"], return_inverse=True)
        return group.reshape(-1).astype(np.int64)
