"""Splits of a pool into candidates, among which arms choose, and held-out rows, which judge."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from thresher.numeric.arrays import Float32, Int64

HELD_OUT = 4  # one row in four
MAX_CANDIDATES, MAX_HELD_OUT = 4_000, 2_000
NEAR_COPY = 0.98  # cosine from which a held-out row is a copy of a candidate


class Split(NamedTuple):
    """One division of the pool.

    Attributes:
        candidates: (c,) positions, ascending.
        held_out: (h,) positions, ascending; none is a near-copy of a candidate.
    """

    candidates: Int64
    held_out: Int64


def draw_split(unit: Float32, label: Int64, rng: np.random.Generator) -> Split:
    """Divide the rows at random, the same share of each class to both sides.

    Args:
        unit: (n, d) unit embeddings.
        label: (n,) class of each row.
        rng: of the draw.
    """
    n = len(label)
    rows = np.sort(rng.permutation(n)[: MAX_CANDIDATES + MAX_HELD_OUT])
    shuffled = rng.permutation(rows)
    by_class = shuffled[np.argsort(label[shuffled], kind="stable")]
    is_held_out = np.arange(len(by_class)) % HELD_OUT == int(rng.integers(HELD_OUT))
    candidates = np.sort(rng.permutation(by_class[~is_held_out])[:MAX_CANDIDATES])
    held_out = np.sort(rng.permutation(by_class[is_held_out])[:MAX_HELD_OUT])
    nearest = (unit[held_out] @ unit[candidates].T).max(axis=1) if len(candidates) else np.zeros(len(held_out))
    return Split(candidates, held_out[nearest < NEAR_COPY])
