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
from thresher.models.hub import check_embedded
from thresher.numeric.numba_jit import jit

FOLDER = Path(__file__).parents[1] / "weights" / "static-minilm-256"
FILES = {
    "config.json": "b98240b542958ee0e4486d807e2ad3b2feb51aa5d726b196bceb90e2c55aa0f9",
    "model.safetensors": "531f0bd7be5243e6d6e8ba2eabea2fa28f90695d6bd01062bf352927bbb87c88",
    "tokenizer.json": "f151cfac775f65871abaa05b9aa31b40a17c6c9df2040e9e5ced1c2d3d4a2711",
}
# for sentence-transformers, which also reads the folder
OTHER_FILES = {
    "1_Normalize/config.json": "ca3d163bab055381827226140568f3bef7eaac187cebd76878e0b63e9e442356",
    "modules.json": "a68dcbed0429dcdd5bfdca92b0b03cc30d09122c0a3fcf4758787d4b244e45b2",
}
RECIPE = "static-2"


def static_folder() -> Path:
    """Return the folder of the static encoder, after checking its files, once per process.

    Raises:
        InputError: a file is not the one that was published.
    """
    check_embedded(FOLDER, FILES | OTHER_FILES, "reinstall thresher")
    return FOLDER


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
        folder = static_folder()
        return fingerprint(((name, folder / name) for name in FILES), recipe=RECIPE)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.vectors.shape[1])

    @cached_property
    def _model(self) -> _Model:
        from safetensors.numpy import load_file

        folder = static_folder()
        pieces = WordPieces(folder / "tokenizer.json")
        tensors = load_file(folder / "model.safetensors")
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
