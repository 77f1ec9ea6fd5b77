"""What computes cached values yields: batches of values with their positions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.numeric.arrays import Array


class Batch(NamedTuple):
    """Values of some of the texts that a model was given.

    Attributes:
        positions: (b,) int64 into those texts.
        values: (b, ...).
    """

    positions: NDArray[np.int64]
    values: Array


ComputeBatches = Callable[[pl.Series], Iterator[Batch]]
