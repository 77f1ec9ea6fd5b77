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


class StaticEncoder:
    """Mean of the static vectors of a text's tokens, normalised (model2vec, github.com/MinishLab/model2vec).

    The whole text counts, whatever its length. The vectors are int8, so a sum is exact and a text's value does not
    depend on its neighbours at all. Cost: O(tokens * 256), thousands of rows per second and core.
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
            mean = self._model.encode(part, max_length=None, normalize=False, use_multiprocessing=False)
            yield Batch(np.arange(start, start + len(part)), unit_rows(mean, by=self.name))

    def encode(self, texts: Sequence[str] | pl.Series) -> NDArray[np.float32]:
        """Return (n, 256) float32."""
        return gathered(self, texts)

    def notes(self) -> list[str]:
        """Return nothing: no text is ever cut."""
        return []
