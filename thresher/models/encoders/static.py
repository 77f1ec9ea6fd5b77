"""The embedded static encoder: mean of token vectors distilled from MiniLM, without a library."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch
from thresher.cache.fingerprint import fingerprint
from thresher.models.encoders.encoder import Encoder, finite_unit_rows
from thresher.models.encoders.wordpiece import WordPieces
from thresher.numeric.numba_jit import jit

FOLDER = Path(__file__).parents[1] / "weights" / "static-minilm-256"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
RECIPE = "static-2"


class _Model(NamedTuple):
    """What the files hold.

    Attributes:
        pieces: the tokenizer.
        vectors: (v, d) int8, of each token.
        weights: (v,) float32, what a unit of its vector is worth; 0 for the token of unknown words.
    """

    pieces: WordPieces
    vectors: NDArray[np.int8]
    weights: NDArray[np.float32]


class StaticEncoder(Encoder):
    """Mean of the static vectors of a text's tokens, normalized (github.com/MinishLab/model2vec).

    The whole text counts, whatever its length. Each text is summed on its own, so its neighbors do
    not matter. Cost: O(tokens * 256), over a hundred thousand rows of 57 tokens per second and core
    (benchmarks/encoders.py).
    """

    name = "static-minilm-256"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the shipped files."""
        return fingerprint(((name, FOLDER / name) for name in FILES), recipe=RECIPE)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.vectors.shape[1])

    @cached_property
    def _model(self) -> _Model:
        from safetensors.numpy import load_file

        pieces = WordPieces(FOLDER / "tokenizer.json")
        tensors = load_file(FOLDER / "model.safetensors")
        weights = tensors["weights"].astype(np.float32)
        weights[pieces.unknown] = 0.0
        return _Model(pieces, tensors["embeddings"], weights)

    def encode_batches(self, texts: pl.Series) -> Iterator[Batch]:
        """Yield the vectors of about a megabyte of text at a time."""
        pieces, vectors, weights = self._model
        for runs in pieces.encode_batches(texts):
            pooled = np.zeros((len(runs.start) - 1, self.dimension), np.float32)
            _sum_vectors(runs.start, runs.ids, vectors, weights, pooled)
            yield Batch(np.arange(runs.first, runs.first + len(pooled)), finite_unit_rows(pooled, by=self.name))


@jit
def _sum_vectors(start: Any, ids: Any, vectors: Any, weights: Any, out: Any) -> None:
    """Add to each text's row the weighted vectors of its tokens, one token after the other."""
    for t in range(len(start) - 1):
        total = out[t]  # a view: the row is written in place
        for m in range(start[t], start[t + 1]):
            # int8, and what a unit of it is worth
            vector, weight = vectors[ids[m]], weights[ids[m]]
            for j in range(len(vector)):
                total[j] += weight * np.float32(vector[j])
