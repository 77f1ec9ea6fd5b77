"""The embedding feature: where each row lies in meaning."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch
from thresher.cache.by_text import compute_cached
from thresher.features.context import FeatureContext
from thresher.models.encoders.encoder import MINILM, STATIC, Encoder, count_other_script
from thresher.models.encoders.load import load_encoder
from thresher.progress import Progress

if TYPE_CHECKING:
    from thresher.dataset import Dataset
from thresher.features.registry import FeatureProvider


class Embedding(FeatureProvider):
    """Unit vectors of the rows' texts under the encoder of the context, rounded to float16 where it says so."""

    name: ClassVar[str] = "embedding"
    passes: ClassVar[str] = "the encoder reads each of the n rows once"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the encoder's name, how its vectors are kept, and the fingerprint of both; `context` is `resolved`."""
        encoder = _encoder(context)
        return {
            "encoder": encoder.name,
            "storage_dtype": context.models.embedding_dtype,
            "fingerprint": _fingerprint(encoder, context),
        }

    def facts(self, dataset: Dataset, context: FeatureContext) -> dict[str, int]:
        """Return how many texts an embedded encoder, which reads English, tells little of; nothing where it is none.

        The number is of all texts, whatever the cache knows.
        """
        texts = dataset.texts()
        if context.resolved(len(texts)).models.encoder not in (STATIC, MINILM):
            return {}
        n = count_other_script(texts)
        return {"rows_in_other_letters": n} if n else {}

    def compute(self, dataset: Dataset, context: FeatureContext) -> NDArray[np.floating]:
        """Return (n, d) of the context's `embedding_dtype`. Texts that the cache knows are not encoded.

        No model loads if it knows all.
        """
        texts = dataset.texts()
        encoder = _encoder(context.resolved(len(texts)))
        partition = None
        if context.cache is not None:
            partition = context.cache.partition(self.name, encoder.name, _fingerprint(encoder, context))

        def encoded(part: pl.Series) -> Iterator[Batch]:
            for batch in encoder.encode_batches(part):
                yield batch._replace(values=batch.values.astype(context.models.embedding_dtype, copy=False))

        values = compute_cached(texts, encoded, feature=self.name, partition=partition, on_progress=context.on_progress)
        if context.on_progress is not None:
            for note in (*encoder.notes(), *_notes(self.facts(dataset, context), encoder.name, len(texts))):
                context.on_progress(Progress(stage=self.name, done=len(texts), total=len(texts), note=note))
        return np.zeros((0, encoder.dimension), context.models.embedding_dtype) if values is None else values


def _notes(facts: Mapping[str, int], encoder: str, n: int) -> Iterator[str]:
    """Return what the user should know of these facts, in sentences."""
    for count in facts.values():
        yield (
            f"encoder '{encoder}' reads English, and {count:,} of {n:,} texts are mostly in other letters than Latin "
            f"ones, of which it tells little; name one for their language with --encoder"
        )


def _fingerprint(encoder: Encoder, context: FeatureContext) -> str:
    """Return what the values depend on: the encoder, and how they are rounded."""
    if context.models.embedding_dtype == "float32":
        return encoder.fingerprint
    return f"{encoder.fingerprint}-{context.models.embedding_dtype}"


def _encoder(context: FeatureContext) -> Encoder:
    return load_encoder(
        context.models.encoder,
        device=context.models.device,
        dtype=context.models.dtype,
        batch_tokens=context.models.batch_tokens,
    )
