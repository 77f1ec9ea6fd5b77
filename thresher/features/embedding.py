"""The embedding feature: where each row lies in meaning."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch
from thresher.dataset.own_text.own_text import find_own_texts
from thresher.errors import InputError
from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider
from thresher.models.encoders.encoder import MINILM, STATIC, Encoder, count_other_script
from thresher.models.encoders.load import missing_for_minilm
from thresher.models.stages import Stage
from thresher.numeric.arrays import Bool, Float32
from thresher.numeric.vectors import unit_rows

if TYPE_CHECKING:
    from thresher.cache.batch import ComputeBatches
    from thresher.dataset import Dataset

# a core, 57 tokens a row, float32 (benchmarks/encoders.py)
MINILM_ROWS_PER_S = 88
EMBEDDING, GIVEN = "embedding", "given"  # given by the user
WINDOWS = "windows-1"  # recipe of the vectors of long texts


class Embedding(FeatureProvider):
    """Unit vectors of the rows' texts under the context's encoder, rounded where it says so.

    A text that is longer than the encoder reads at once is read in windows, whose vectors are
    averaged: rows that differ only at their ends have different vectors. Rules read what the rows
    say of their own (`own_text` of the context); selectors, the whole rows.
    """

    name: ClassVar[str] = "embedding"
    passes: ClassVar[str] = "the encoder reads each of the n rows once"
    _known: tuple[Dataset, pl.Series, Bool] | None = None  # what was looked up last

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the encoder, stored precision and fingerprint; `context` is `resolved`.

        Of the user's own vectors, their hash.
        """
        if EMBEDDING in context.given:
            return {"encoder": GIVEN, "fingerprint": context.given[EMBEDDING]}
        encoder = context.load_encoder()
        return {
            "encoder": encoder.name,
            "storage_dtype": context.models.embedding_dtype,
            "fingerprint": _fingerprint(encoder, context),
        }

    def facts(self, dataset: Dataset, context: FeatureContext) -> dict[str, int]:
        """Return how many texts an embedded, English encoder cannot read, and how many are long.

        The numbers are of all texts, whatever the cache knows. None are where the user brought the
        vectors.
        """
        if EMBEDDING in dataset.given:
            return {}
        texts, is_long = self._read_texts(dataset, context)
        is_english = context.resolved().models.encoder in (STATIC, MINILM)
        counts = {
            "rows_in_other_letters": count_other_script(texts) if is_english else 0,
            "rows_read_in_windows": int(is_long.sum()),
        }
        return {name: n for name, n in counts.items() if n}

    def compute(self, dataset: Dataset, context: FeatureContext) -> NDArray[np.floating]:
        """Return (n, d) of the context's `embedding_dtype`; texts in the cache are not encoded.

        No model loads if it knows all, or if the user brought the vectors.

        Raises:
            InputError: the vectors of some rows are the user's own, and these rows have none.
        """
        if EMBEDDING in dataset.given:
            return np.asarray(dataset.given[EMBEDDING])
        if EMBEDDING in context.given:
            raise InputError(
                "embeddings: rows outside the pool need vectors of the same model, found none; name a column that they "
                "have too, or a Parquet file with the row_id of all of them"
            )
        texts, is_long = self._read_texts(dataset, context)
        context = context.resolved()
        encoder, dtype = context.load_encoder(), context.models.embedding_dtype
        values = None
        for rows, encode, recipe in (
            (np.flatnonzero(~is_long), encoder.encode_batches, ""),
            (np.flatnonzero(is_long), encoder.encode_long, f"-{WINDOWS}"),
        ):
            stage = Stage(
                name=self.name,
                texts=texts if len(rows) == len(texts) else texts.gather(rows),
                compute=_round(encode, dtype),
                feature=self.name,
                model=encoder.name,
                fingerprint=_fingerprint(encoder, context) + recipe,
            )
            part = context.run_stage(stage) if len(rows) else None
            if part is not None and len(part) == len(texts):
                values = part
            elif part is not None:
                values = np.empty((len(texts), part.shape[1]), part.dtype) if values is None else values
                values[rows] = part
        context.report_notes(self.name, len(texts), self._sentences(dataset, context))
        return np.zeros((0, encoder.dimension), dtype) if values is None else values

    def _read_texts(self, dataset: Dataset, context: FeatureContext) -> tuple[pl.Series, Bool]:
        """Return the texts, and which are longer than the encoder reads at once."""
        if self._known is None or self._known[0] is not dataset:
            texts = _select_texts(dataset, is_own=context.own_text)
            is_long = context.resolved().load_encoder().find_long(texts)
            self._known = (dataset, texts, is_long)
        return self._known[1:]

    def _sentences(self, dataset: Dataset, context: FeatureContext) -> Iterator[str]:
        """Yield what the user should know of texts that are long or not English."""
        encoder, n = context.load_encoder(), len(dataset.texts())
        counts = self.facts(dataset, context)
        if context.is_default_encoder and context.models.encoder == STATIC and missing_for_minilm() is None:
            yield _describe_alternative()
        if n_long := counts.get("rows_read_in_windows"):
            yield (
                f"{n_long:,} of {n:,} texts exceed the limit of encoder '{encoder.name}'; each is read in "
                f"windows, whose vectors are averaged"
            )
        yield from encoder.notes()
        if n_other := counts.get("rows_in_other_letters"):
            yield (
                f"encoder '{encoder.name}' reads English, and {n_other:,} of {n:,} texts are mostly in "
                f"non-Latin scripts, about which it knows little; name one for their language with --encoder"
            )


def _describe_alternative() -> str:
    """Say what MiniLM would cost and bring in place of the default encoder, whatever the rows."""
    seconds = 1000 / (MINILM_ROWS_PER_S * (os.cpu_count() or 1))
    return (
        "encoder: static, the default on a CPU; --encoder minilm also reads the order of words (93 % of Banking77 "
        f"intents right, static 90 %) and takes about {max(seconds, 1):,.0f} s per 1,000 rows"
    )


def _select_texts(dataset: Dataset, *, is_own: bool) -> pl.Series:
    """Return what an encoder reads, (n,): whole rows, or what they say of their own."""
    if not is_own:
        return dataset.texts()
    columns = {"sft": ("prompt", "response"), "classification": ("prompt",), "text": ("response",)}[dataset.kind]
    own = [find_own_texts([dataset.frame[column]])[0].texts.alias(column) for column in columns]
    return pl.DataFrame(own).select(pl.concat_str(columns, separator="\n").alias("text")).to_series()


def _round(encode: ComputeBatches, dtype: str) -> ComputeBatches:
    """Return what `encode` does, with vectors of another precision."""

    def batches(part: pl.Series) -> Iterator[Batch]:
        for batch in encode(part):
            yield batch._replace(values=batch.values.astype(dtype, copy=False))

    return batches


def _fingerprint(encoder: Encoder, context: FeatureContext) -> str:
    """Return what the values depend on: the encoder, and how they are rounded."""
    if context.models.embedding_dtype == "float32":
        return encoder.fingerprint
    return f"{encoder.fingerprint}-{context.models.embedding_dtype}"


def embed_texts(texts: Sequence[str], context: FeatureContext, *, stage: str) -> Float32:
    """Return the unit vectors of p texts, (p, d); the cache is that of `embedding`."""
    encoder = context.load_encoder()
    values = context.run_stage(
        Stage(
            name=stage,
            texts=pl.Series("text", texts, dtype=pl.String),
            compute=encoder.encode_batches,
            feature="embedding",
            model=encoder.name,
            fingerprint=encoder.fingerprint,
        )
    )
    return np.zeros((0, 1), dtype=np.float32) if values is None else unit_rows(values)
