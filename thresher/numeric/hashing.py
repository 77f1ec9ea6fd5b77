"""Hashing of numbers: the last step of a hash, which spreads every bit over all others."""

from __future__ import annotations

import numpy as np

from thresher.numeric.numba_jit import jit_part


@jit_part
def mix_bits(value: np.uint64) -> np.uint64:
    """Return 64 well mixed bits (the finalizer of MurmurHash3)."""
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xFF51AFD7ED558CCD)
    value ^= value >> np.uint64(33)
    value *= np.uint64(0xC4CEB9FE1A85EC53)
    return value ^ (value >> np.uint64(33))
