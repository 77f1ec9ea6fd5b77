"""The embedding feature: where each row lies in meaning."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import NDArray

from thresher.features.cached import values_of
from thresher.features.context import FeatureContext
from thresher.features.encoders import Encoder, load_encoder
from thresher.features.progress import Progress

if TYPE_CHECKING:
    from thresher.dataset import Dataset


class Embedding:
    """Unit vectors of the rows' texts under the encoder of the context."""

    name: ClassVar[str] = "embedding"
    passes: ClassVar[str] = "the encoder reads each of the n rows once"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the encoder's name and fingerprint; the context must be `resolved`."""
        encoder = _encoder(context)
        return {"encoder": encoder.name, "fingerprint": encoder.fingerprint}

    def compute(self, dataset: Dataset, context: FeatureContext) -> NDArray[np.float32]:
        """Return (n, d) float32. Texts that the cache knows are not encoded, and no model loads if it knows all."""
        texts = dataset.texts()
        encoder = _encoder(context.resolved(len(texts)))
        shelf = None if context.cache is None else context.cache.shelf(self.name, encoder.name, encoder.fingerprint)
        values = values_of(
            texts, encoder.encode_batches, feature=self.name, shelf=shelf, on_progress=context.on_progress
        )
        if context.on_progress is not None:
            for note in encoder.notes():
                context.on_progress(Progress(stage=self.name, done=len(texts), total=len(texts), note=note))
        return np.zeros((0, encoder.dimension), dtype=np.float32) if values is None else values


def _encoder(context: FeatureContext) -> Encoder:
    return load_encoder(context.encoder, device=context.device, dtype=context.dtype, batch_tokens=context.batch_tokens)
