"""The embedded static encoder: mean of per-token vectors distilled from MiniLM, by numpy alone."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.features.cached import Batch
from thresher.features.fingerprint import fingerprint
from thresher.features.vectors import gathered, unit_rows

FOLDER = Path(__file__).parent / "models" / "static-minilm-256"
FILES = ("config.json", "model.safetensors", "tokenizer.json")
RECIPE = "static-1"
BATCH_ROWS = 1024
BLOCK_TOKENS = 8192


class StaticEncoder:
    """Mean of the static vectors of a text's tokens, normalised (model2vec, github.com/MinishLab/model2vec).

    The whole text counts, whatever its length. Each text is summed on its own, so its neighbours do not matter.
    Cost: O(tokens * 256), thousands of rows per second and core.
    """

    name = "static-minilm-256"

    @cached_property
    def fingerprint(self) -> str:
        """Hash of the shipped files."""
        return fingerprint(((name, FOLDER / name) for name in FILES), recipe=RECIPE)

    @property
    def dimension(self) -> int:
        """Length of a vector."""
        return int(self._model.dim)

    @cached_property
    def _model(self) -> Any:
        from model2vec import StaticModel

        return StaticModel.from_pretrained(FOLDER, force_download=False, max_length=None)

    def encode_batches(self, texts: pl.Series) -> Iterator[Batch]:
        """Yield the vectors of 1,024 texts at a time."""
        for start in range(0, len(texts), BATCH_ROWS):
            part = texts[start : start + BATCH_ROWS].to_list()
            pooled = np.stack([self._pooled(ids) for ids in self._model.tokenize(part)])
            yield Batch(np.arange(start, start + len(part)), unit_rows(pooled, by=self.name))

    def _pooled(self, ids: list[int]) -> NDArray[np.float32]:
        """Return the (256,) weighted sum of the tokens' vectors, in blocks: a text of 10 MB needs no GB of memory."""
        total = np.zeros(self.dimension, dtype=np.float32)
        for start in range(0, len(ids), BLOCK_TOKENS):
            block = ids[start : start + BLOCK_TOKENS]
            total += self._model.weights[block] @ self._model.embedding[block].astype(np.float32)
        return total

    def encode(self, texts: Sequence[str] | pl.Series) -> NDArray[np.float32]:
        """Return (n, 256) float32."""
        return gathered(self, texts)

    def notes(self) -> list[str]:
        """Return nothing: no text is ever cut."""
        return []
