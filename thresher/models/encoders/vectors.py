"""What all encoders do with their vectors: put them on the unit sphere and back into the order of the texts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.errors import InputError

if TYPE_CHECKING:
    from thresher.models.encoders.encoder import Encoder


def finite_unit_rows(vectors: NDArray[Any], *, by: str) -> NDArray[np.float32]:
    """Return (n, d) float32 with rows of norm 1; a zero row stays zero.

    Divides by float32 norms, as all embeddings in users' caches were; `numeric.vectors.unit_rows`
    multiplies by the inverse norm and can differ in the last bit.

    Raises:
        InputError: a vector holds NaN or infinity.
    """
    x = vectors.astype(np.float32)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    if not np.isfinite(norm).all():
        n_bad = int((~np.isfinite(norm)).sum())
        raise InputError(f"encoder '{by}' must give finite vectors, got {n_bad} of {len(x)} with NaN or infinity")
    np.divide(x, norm, out=x, where=norm > 0)
    return x


def encode_in_order(encoder: Encoder, texts: Sequence[str] | pl.Series) -> NDArray[np.float32]:
    """Return the encoder's vectors in the order of the texts: (n, d) float32."""
    series = texts if isinstance(texts, pl.Series) else pl.Series("text", list(texts), dtype=pl.String)
    out = np.zeros((len(series), encoder.dimension), dtype=np.float32)
    for positions, values in encoder.encode_batches(series):
        out[positions] = values
    return out
