"""Uniform random choice: the baseline that every other method has to beat."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.features.container import Features
from thresher.selectors.contract import Selector
from thresher.subset.scores import Scores


@dataclass(frozen=True, kw_only=True)
class Uniform(Selector):
    """Rank rows at random, so that every prefix is a uniform sample without replacement.

    Optimizes nothing: it is the baseline, and hard to beat on large clean pools (Xia et al. 2024,
    arXiv:2410.09335). Each row's value is a hash of its `row_id` salted by the generator, in 0..1
    (XXH3, 64 bit). A row's value does not depend on the other rows: the picks are the same in any
    order of the file, and when 1 % new rows arrive, the old rows keep their values and about 99 %
    of the picks stay.

    Source: hashing instead of shuffling as in consistent sampling (Broder 1997,
    doi:10.1109/SEQUEN.1997.666900). Cost: O(n) time, 8 n bytes; a million rows take about half a
    second. Needs: nothing. Ties: to the lowest row (one pair in 10^16). Rows of equal content have
    different ids and are drawn apart. An empty pool is refused. Fails: rare kinds of rows are
    missed in small samples (`stratified` keeps them).
    """

    name: ClassVar[str] = "random"

    def score(self, features: Features, *, n_ranked: int, rng: np.random.Generator) -> Scores:
        """Score every row; all rows are ranked."""
        return Scores(row_id=features.row_id, value=hash_rows(features.row_id, rng), by=self.name)


def hash_rows(row_id: pl.Series, rng: np.random.Generator) -> NDArray[np.float64]:
    """Return one hash in 0..1 per row id, (n,) float64, salted by one draw of the generator."""
    from xxhash import xxh3_64_intdigest

    salt = int(rng.integers(1 << 62))
    digests = (xxh3_64_intdigest(text, salt) for text in row_id.cast(pl.Binary).to_list())
    digest = np.fromiter(digests, np.uint64, len(row_id))
    return (digest >> np.uint64(11)).astype(np.float64) * 2.0**-53
