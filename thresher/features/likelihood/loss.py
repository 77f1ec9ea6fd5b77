"""How likely a language model finds the responses: `loss`, `loss_unconditional`, and how many tokens that is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.cache.batch import Batch, ComputeBatches
from thresher.cache.by_text import compute_cached
from thresher.cache.fingerprint import combine_fingerprints
from thresher.errors import InputError
from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider, FeatureValues
from thresher.models.causal_lm.language_model import language_model
from thresher.models.causal_lm.likelihood import score_rows
from thresher.models.causal_lm.tokenized_rows import (
    DEFAULT_MAX_LENGTH,
    PROBLEMS,
    RECIPE,
    RowTokenizer,
    row_texts,
    without_prompt,
)
from thresher.progress import Progress

if TYPE_CHECKING:
    from thresher.dataset import Dataset

WINDOW_ROWS = 4096  # rows tokenized and sorted by length together
LOSS, N_SCORED, N_CUT, PROBLEM = range(4)  # columns of the cached (n, 4) float64


class Loss(FeatureProvider):
    """Mean negative log-likelihood of a row's response tokens given all before them, in nats per token.

    The response is the last assistant turn with the token that ends it, or all assistant turns
    (`loss_on`); a plain text is all response. A response that is cut at `max_length` is scored on
    what is there, and counted.
    """

    name: ClassVar[str] = "loss"
    passes: ClassVar[str] = "the language model reads each of the n rows once"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model, what is scored, and the fingerprint of both."""
        return _describe(load_row_tokenizer(context))

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n,) float64, NaN with its reason for a row without a scored token."""
        self._reader = load_row_tokenizer(
            context
        )  # kept, so that the features computed after this one share the loaded model
        reader = self._reader

        def batches(texts: pl.Series) -> Iterator[Batch]:
            return _loss_batches(reader, texts, context.models.batch_tokens, is_conditional=True)

        return _measured(self.name, reader, dataset, context, batches)


class LossUnconditional(FeatureProvider):
    """Mean negative log-likelihood of the same response tokens behind BOS alone, in nats per token.

    The tokens are those that `loss` scores, cut where it cuts. Of several assistant turns it reads
    one after the other.
    """

    name: ClassVar[str] = "loss_unconditional"
    passes: ClassVar[str] = "the language model reads the responses of the n rows once"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model, what is scored, and the fingerprint of both."""
        return _describe(load_row_tokenizer(context))

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n,) float64, NaN with its reason for a row without a scored token.

        Raises:
            InputError: the rows are plain text, which has no prompt to leave out.
        """
        if dataset.kind == "text":
            raise InputError("loss_unconditional: rows need a prompt and a response, found plain text")
        self._reader = load_row_tokenizer(
            context
        )  # kept, so that the features computed after this one share the loaded model
        reader = self._reader

        def batches(texts: pl.Series) -> Iterator[Batch]:
            return _loss_batches(reader, texts, context.models.batch_tokens, is_conditional=False)

        return _measured(self.name, reader, dataset, context, batches)


class NResponseTokens(FeatureProvider):
    """Number of response tokens that `loss` is the mean of; 0 for a row that has no loss. Needs no weights."""

    name: ClassVar[str] = "n_response_tokens"
    passes: ClassVar[str] = "none: the rows are tokenized, and no weights are needed"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model, what is scored, and the fingerprint of both."""
        return _describe(load_row_tokenizer(context))

    def compute(self, dataset: Dataset, context: FeatureContext) -> NDArray[np.int64]:
        """Return (n,) int64."""
        return _token_counts(dataset, context)[:, N_SCORED]


class NTruncatedTokens(FeatureProvider):
    """Number of response tokens behind `max_length`, which `loss` does not know of. Needs no weights."""

    name: ClassVar[str] = "n_truncated_tokens"
    passes: ClassVar[str] = "none: the rows are tokenized, and no weights are needed"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model, what is scored, and the fingerprint of both."""
        return _describe(load_row_tokenizer(context))

    def compute(self, dataset: Dataset, context: FeatureContext) -> NDArray[np.int64]:
        """Return (n,) int64."""
        return _token_counts(dataset, context)[:, N_CUT]


def load_row_tokenizer(context: FeatureContext) -> RowTokenizer:
    """Return how rows are read under these settings: by which model, which turns, how far."""
    lm = language_model(context.models.model, device=context.models.device, dtype=context.models.dtype)
    limits = (context.models.max_length or DEFAULT_MAX_LENGTH, lm.max_positions)
    return RowTokenizer(
        lm=lm, loss_on=context.models.loss_on, max_length=min(limit for limit in limits if limit is not None)
    )


def _describe(reader: RowTokenizer) -> dict[str, str]:
    how = f"{RECIPE}-{reader.loss_on}-{reader.max_length}"
    return {
        "model": reader.lm.name,
        "loss_on": reader.loss_on,
        "max_length": str(reader.max_length),
        "dtype": reader.lm.dtype,
        "fingerprint": combine_fingerprints(reader.lm.fingerprint, how),
    }


def _loss_batches(
    reader: RowTokenizer, texts: pl.Series, batch_tokens: int | None, *, is_conditional: bool
) -> Iterator[Batch]:
    """Yield (b, 4) float64: loss, tokens scored, tokens cut, problem."""
    for start in range(0, len(texts), WINDOW_ROWS):
        readings = reader.read(texts[start : start + WINDOW_ROWS].to_list())
        rows = [reading.row for reading in readings]
        if not is_conditional:
            rows = [without_prompt(row, reader.lm.start_id) if row.is_scored.any() else row for row in rows]
        counts = np.array([(np.nan, each.n_scored, each.n_cut, each.problem) for each in readings], dtype=np.float64)
        for positions, log_probs in score_rows(reader.lm, rows, batch_tokens=batch_tokens):
            values = counts[positions]
            values[:, LOSS] = [-float(each.mean(dtype=np.float64)) if len(each) else np.nan for each in log_probs]
            yield Batch(start + positions, values)


def _token_counts(dataset: Dataset, context: FeatureContext) -> NDArray[np.int64]:
    """Return (n, 4) int64: nothing, tokens scored, tokens cut, problem."""
    reader = load_row_tokenizer(context)

    def batches(texts: pl.Series) -> Iterator[Batch]:
        for start in range(0, len(texts), WINDOW_ROWS):
            readings = reader.read(texts[start : start + WINDOW_ROWS].to_list())
            counts = [(0, each.n_scored, each.n_cut, each.problem) for each in readings]
            yield Batch(np.arange(start, start + len(readings)), np.array(counts, dtype=np.int32))

    values = _cached("response_tokens", reader, dataset, context, batches)
    return np.zeros((0, 4), dtype=np.int64) if values is None else values.astype(np.int64)


def _cached(
    feature: str, reader: RowTokenizer, dataset: Dataset, context: FeatureContext, batches: ComputeBatches
) -> NDArray[Any] | None:
    partition = None
    if context.cache is not None:
        partition = context.cache.partition(feature, reader.lm.name, _describe(reader)["fingerprint"])
    return compute_cached(
        row_texts(dataset), batches, feature=feature, partition=partition, on_progress=context.on_progress
    )


def _measured(
    feature: str, reader: RowTokenizer, dataset: Dataset, context: FeatureContext, batches: ComputeBatches
) -> FeatureValues:
    values = _cached(feature, reader, dataset, context, batches)
    values = np.zeros((0, 4)) if values is None else values
    problem = values[:, PROBLEM].astype(np.int64)
    n_cut = values[:, N_CUT]
    missing = pl.Series("missing", [PROBLEMS[code] or None for code in problem], dtype=pl.String)
    notes = {
        "rows": len(values),
        "rows_missing": int((problem > 0).sum()),
        "rows_truncated": int(((n_cut > 0) & (problem == 0)).sum()),
        "tokens_scored": int(values[:, N_SCORED].sum()),
        "tokens_truncated": int(n_cut[problem == 0].sum()),
    }
    for note in (*reader.lm.notes(), *_sentences(feature, reader.max_length, notes, missing)):
        if context.on_progress is not None:
            context.on_progress(Progress(stage=feature, done=len(values), total=len(values), note=note))
    return FeatureValues(values=np.ascontiguousarray(values[:, LOSS]), missing=missing, notes=notes)


def _sentences(feature: str, max_length: int, notes: dict[str, int], missing: pl.Series) -> Iterator[str]:
    """Yield what the user should know of rows that were cut or have no value."""
    if notes["rows_truncated"]:
        yield (
            f"{feature}: {notes['rows_truncated']:,} of {notes['rows']:,} rows are longer than {max_length:,} tokens; "
            f"{notes['tokens_truncated']:,} tokens of their responses were not scored"
        )
    for reason, count in missing.drop_nulls().value_counts().sort("count", "missing", descending=[True, False]).rows():
        yield f"{feature}: {count:,} of {notes['rows']:,} rows have no value: {reason}"
