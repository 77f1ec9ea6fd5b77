"""The contract of sentence encoders, the names of the embedded ones, and unsuitable texts."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch
from thresher.errors import InputError
from thresher.numeric.arrays import Bool, Float32

STATIC = "static"
MINILM = "minilm"
AUTO = "auto"
EMBEDDED = (STATIC, MINILM, AUTO)
DTYPES = ("float32", "bfloat16", "float16")


class Encoder(ABC):
    """Turns texts into unit vectors. Weights are loaded by the first `encode_batches`, not before.

    A text that is longer than `encode_batches` reads is for `encode_long`, which reads all of it.
    A vector depends on its text alone (batch neighbors change it by 1e-5 at most) and has norm 1,
    or 0 for a text of which the encoder knows no token.
    """

    @property
    @abstractmethod
    def name(self) -> str:
        """The name for people and manifests."""

    @property
    @abstractmethod
    def fingerprint(self) -> str:
        """Hash of everything that determines a vector: weights, tokenizer, pooling, recipe."""

    @property
    @abstractmethod
    def dimension(self) -> int:
        """Length of a vector; may load the weights."""

    @abstractmethod
    def encode_batches(self, texts: pl.Series) -> Iterator[Batch]:
        """Yield (b,) positions and (b, d) float32 vectors in any order until every text has one."""

    def encode(self, texts: Sequence[str] | pl.Series) -> Float32:
        """Return (n, d) float32, in the order of the texts."""
        series = texts if isinstance(texts, pl.Series) else pl.Series("text", list(texts), dtype=pl.String)
        out = np.zeros((len(series), self.dimension), dtype=np.float32)
        for positions, values in self.encode_batches(series):
            out[positions] = values
        return out

    def find_long(self, texts: pl.Series) -> Bool:
        """Tell which texts are longer than the encoder reads at once, (n,); loads no weights."""
        return np.zeros(len(texts), np.bool_)

    def encode_long(self, texts: pl.Series) -> Iterator[Batch]:
        """Yield the vectors of texts that are longer than what the encoder reads at once."""
        return self.encode_batches(texts)

    def notes(self) -> list[str]:
        """Return what happened so far and the user should know, such as unknown words."""
        return []


def finite_unit_rows(vectors: NDArray[Any], *, by: str) -> Float32:
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


def has_mostly_unknown_tokens(n_unknown: NDArray[np.int64], n_tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of which texts at least half of the tokens are the one for unknown words, (n,)."""
    return (2 * n_unknown >= n_tokens) & (n_unknown > 0)


def count_other_script(texts: pl.Series) -> int:
    """Return how many texts are at least half in letters other than Latin ones, or in emoji.

    The embedded encoders read English: of such texts they know single letters, or nothing.

    Args:
        texts: (n,) string.
    """
    # bytes beyond one for each character
    n_more = texts.str.len_bytes().cast(pl.Int64) - texts.str.len_chars()
    # texts in Latin letters need no closer look
    candidates = texts.filter(n_more * 8 >= texts.str.len_chars())
    n_all = candidates.str.count_matches(r"[\p{L}\p{N}\p{So}]")
    n_latin = candidates.str.count_matches(r"[\p{Latin}0-9]")
    return int(((n_all > 0) & (2 * n_latin <= n_all)).sum())


def unknown_notes(name: str, n_unknown: int, n_read: int) -> list[str]:
    """Return what the user should know of texts of mostly unknown words, if there are any.

    Args:
        name: of the encoder.
        n_unknown: texts that are `has_mostly_unknown_tokens`.
        n_read: texts.
    """
    if not n_unknown:
        return []
    return [
        f"encoder '{name}' does not know most words of {n_unknown} of {n_read} texts, and tells little of these; "
        f"name one for their language"
    ]
