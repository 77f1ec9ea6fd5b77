"""Types of arrays, named once for the whole package; a docstring gives the shape."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
"""An array of any type, objects and strings included."""

Float32 = NDArray[np.float32]
"""Embeddings, similarities, log-probabilities: what is stored for each row."""

Float64 = NDArray[np.float64]
"""Scores, sums and statistics: what is accumulated over rows."""

Floats = Float32 | Float64
"""Either precision."""

Int32 = NDArray[np.int32]
"""Token ids, and positions in graphs of fewer than 2^31 rows."""

Int64 = NDArray[np.int64]
"""Positions of rows, and counts."""

Ints = NDArray[np.integer[Any]]
"""Positions or counts in any integer type."""

UInt8 = NDArray[np.uint8]
"""Marks of words."""

UInt32 = NDArray[np.uint32]
"""Signatures of shingles, and row hashes of 32 bits."""

UInt64 = NDArray[np.uint64]
"""Row hashes of 64 bits."""

Bool = NDArray[np.bool_]
"""Masks."""
