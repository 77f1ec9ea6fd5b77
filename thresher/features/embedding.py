"""The embedding feature: where each row lies in meaning."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch
from thresher.features.context import FeatureContext
from thresher.models.encoders.encoder import MINILM, STATIC, Encoder, count_other_script
from thresher.models.stages import Stage

if TYPE_CHECKING:
    from thresher.dataset import Dataset
from thresher.features.registry import FeatureProvider


class Embedding(FeatureProvider):
    """Unit vectors of the rows' texts under the context's encoder, rounded where it says so."""

    name: ClassVar[str] = "embedding"
    passes: ClassVar[str] = "the encoder reads each of the n rows once"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the encoder, stored precision and fingerprint; `context` is `resolved`."""
        encoder = context.load_encoder()
        return {
            "encoder": encoder.name,
            "storage_dtype": context.models.embedding_dtype,
            "fingerprint": _fingerprint(encoder, context),
        }

    def facts(self, dataset: Dataset, context: FeatureContext) -> dict[str, int]:
        """Return how many texts an embedded, English encoder cannot read; else nothing.

        The number is of all texts, whatever the cache knows.
        """
        texts = dataset.texts()
        if context.resolved(len(texts)).models.encoder not in (STATIC, MINILM):
            return {}
        n = count_other_script(texts)
        return {"rows_in_other_letters": n} if n else {}

    def compute(self, dataset: Dataset, context: FeatureContext) -> NDArray[np.floating]:
        """Return (n, d) of the context's `embedding_dtype`; texts in the cache are not encoded.

        No model loads if it knows all.
        """
        texts = dataset.texts()
        context = context.resolved(len(texts))
        encoder, dtype = context.load_encoder(), context.models.embedding_dtype

        def batches(part: pl.Series) -> Iterator[Batch]:
            for batch in encoder.encode_batches(part):
                yield batch._replace(values=batch.values.astype(dtype, copy=False))

        stage = Stage(
            name=self.name,
            texts=texts,
            compute=batches,
            feature=self.name,
            model=encoder.name,
            fingerprint=_fingerprint(encoder, context),
        )
        values = context.run_stage(stage)
        context.report_notes(self.name, len(texts), self._sentences(dataset, context))
        return np.zeros((0, encoder.dimension), dtype) if values is None else values

    def _sentences(self, dataset: Dataset, context: FeatureContext) -> Iterator[str]:
        """Yield what the user should know of texts that were cut or are not English."""
        encoder, n = context.load_encoder(), len(dataset.texts())
        yield from encoder.notes()
        for count in self.facts(dataset, context).values():
            yield (
                f"encoder '{encoder.name}' reads English, and {count:,} of {n:,} texts are mostly in other "
                f"letters than Latin ones, of which it tells little; name one for their language with --encoder"
            )


def _fingerprint(encoder: Encoder, context: FeatureContext) -> str:
    """Return what the values depend on: the encoder, and how they are rounded."""
    if context.models.embedding_dtype == "float32":
        return encoder.fingerprint
    return f"{encoder.fingerprint}-{context.models.embedding_dtype}"
