"""What every sentence encoder offers, the names of the embedded ones, and notes on unsuitable texts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch

STATIC = "static"
MINILM = "minilm"
AUTO = "auto"
EMBEDDED = (STATIC, MINILM, AUTO)
DTYPES = ("float32", "bfloat16", "float16")


class Encoder(Protocol):
    """Turns texts into unit vectors. Weights are loaded by the first `encode_batches`, not before.

    A vector depends on its text alone (batch neighbors change it by 1e-5 at most) and has norm 1,
    or 0 for a text of which the encoder knows no token.
    """

    @property
    def name(self) -> str:
        """The name for people and manifests."""

    @property
    def fingerprint(self) -> str:
        """Hash of everything that determines a vector: weights, tokenizer, pooling and our recipe."""

    @property
    def dimension(self) -> int:
        """Length of a vector; may load the weights."""

    def encode_batches(self, texts: pl.Series) -> Iterator[Batch]:
        """Yield (b,) positions and (b, d) float32 vectors in any order until every text has one."""

    def encode(self, texts: Sequence[str] | pl.Series) -> NDArray[np.float32]:
        """Return (n, d) float32."""

    def notes(self) -> list[str]:
        """Return what happened so far and the user should know, such as how many texts were cut."""


def has_mostly_unknown_tokens(n_unknown: NDArray[np.int64], n_tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of which texts at least half of the tokens are the one for unknown words, (n,)."""
    return (2 * n_unknown >= n_tokens) & (n_unknown > 0)


def count_other_script(texts: pl.Series) -> int:
    """Return how many texts are at least half in letters other than Latin ones, or in emoji.

    The embedded encoders read English: of such texts they know single letters, or nothing.

    Args:
        texts: (n,) string.
    """
    n_more = texts.str.len_bytes().cast(pl.Int64) - texts.str.len_chars()  # bytes beyond one for each character
    candidates = texts.filter(n_more * 8 >= texts.str.len_chars())  # texts in Latin letters need no closer look
    n_all = candidates.str.count_matches(r"[\p{L}\p{N}\p{So}]")
    n_latin = candidates.str.count_matches(r"[\p{Latin}0-9]")
    return int(((n_all > 0) & (2 * n_latin <= n_all)).sum())


def unknown_notes(name: str, n_unknown: int, n_read: int) -> list[str]:
    """Return what the user should know of texts whose words are mostly unknown to the encoder, if there are any.

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
