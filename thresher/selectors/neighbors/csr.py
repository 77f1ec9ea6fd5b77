"""Types of a sparse graph in compressed rows."""

from __future__ import annotations

from typing import NamedTuple

from thresher.numeric.arrays import Floats, Int32, Int64


class Graph(NamedTuple):
    """Sparse similarities: row i has entries `start[i]:start[i + 1]`; if symmetric, also itself."""

    start: Int64  # (n + 1,)
    row: Int32  # (nnz,)
    similarity: Floats  # (nnz,), > 0
