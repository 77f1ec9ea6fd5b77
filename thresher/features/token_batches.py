"""Batches of rows of like length under a budget of tokens."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

MAX_BATCH_ROWS = 512


def token_batches(tokens: NDArray[np.int64], budget: int) -> Iterator[NDArray[np.int64]]:
    """Yield positions, longest texts first, in batches of at most `budget` tokens with padding, and of one at least."""
    order = np.argsort(-tokens, kind="stable")
    start = 0
    while start < len(order):
        longest = max(int(tokens[order[start]]), 1)
        size = min(max(budget // longest, 1), MAX_BATCH_ROWS)
        yield order[start : start + size]
        start += size
