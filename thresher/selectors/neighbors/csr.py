"""Types of a sparse graph in compressed rows."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Int32 = NDArray[np.int32]


Int64 = NDArray[np.int64]


Floats = NDArray[np.float32] | NDArray[np.float64]


class Graph(NamedTuple):
    """Sparse similarities by row: row i has entries `start[i]:start[i + 1]`, in a symmetric graph itself included."""

    start: Int64  # (n + 1,)
    row: Int32  # (nnz,)
    similarity: Floats  # (nnz,), > 0
