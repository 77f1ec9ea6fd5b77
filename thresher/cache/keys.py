"""Keys of cached values: a hash of each text."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import xxhash
from numpy.typing import NDArray

KEY_BYTES = 16


def text_keys(texts: Iterator[str] | list[str]) -> NDArray[np.bytes_]:
    """Return the (n,) S16 xxh3-128 of each text's UTF-8."""
    digest = xxhash.xxh3_128_digest
    return np.frombuffer(b"".join(digest(text.encode()) for text in texts), dtype=f"S{KEY_BYTES}")
