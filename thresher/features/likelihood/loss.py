"""How likely a language model finds the responses, and how many tokens that is over."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl

from thresher.cache.batch import Batch, ComputeBatches
from thresher.cache.fingerprint import combine_fingerprints
from thresher.errors import InputError
from thresher.features.context import FeatureContext
from thresher.features.registry import FeatureProvider, FeatureValues
from thresher.models.causal_lm.likelihood import score_rows
from thresher.models.causal_lm.tokenized_rows import (
    RowTokenizer,
    TokenizedRow,
    describe_problems,
    row_texts,
    without_prompt,
)
from thresher.models.stages import Stage
from thresher.numeric.arrays import Array, Int64

if TYPE_CHECKING:
    from thresher.dataset import Dataset

WINDOW_ROWS = 4096  # rows tokenized and sorted by length together
LOSS, N_SCORED, N_CUT, PROBLEM = range(4)  # columns of the cached (n, 4) float64


class Loss(FeatureProvider):
    """Mean negative log-likelihood of a row's response tokens given all before, in nats per token.

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
        return self._compute(dataset, context, is_conditional=True)

    def _compute(self, dataset: Dataset, context: FeatureContext, *, is_conditional: bool) -> FeatureValues:
        tokenizer = load_row_tokenizer(context)
        # referenced, so that the features computed after this one share the loaded model
        self._lm = tokenizer.lm

        def batches(texts: pl.Series) -> Iterator[Batch]:
            return _loss_batches(tokenizer, texts, context.models.batch_tokens, is_conditional=is_conditional)

        values = _run_stage(self.name, tokenizer, dataset, context, batches)
        problem, n_cut = values[:, PROBLEM].astype(np.int64), values[:, N_CUT]
        missing = describe_problems(problem)
        notes = {
            "rows": len(values),
            "rows_missing": int((problem > 0).sum()),
            "rows_truncated": int(((n_cut > 0) & (problem == 0)).sum()),
            "tokens_scored": int(values[:, N_SCORED].sum()),
            "tokens_truncated": int(n_cut[problem == 0].sum()),
        }
        treated = tokenizer.count_markers(row_texts(dataset))
        sentences = (
            *tokenizer.lm.notes(),
            *_sentences(self.name, tokenizer.max_length, notes, missing),
            *(f"{self.name}: {count:,} of {len(values):,} rows: {note}" for note, count in treated.items()),
        )
        context.report_notes(self.name, len(values), sentences)
        return FeatureValues(values=np.ascontiguousarray(values[:, LOSS]), missing=missing, notes=notes)


class LossUnconditional(Loss):
    """Mean negative log-likelihood of the same response tokens behind BOS alone, in nats per token.

    The tokens are those that `loss` scores, cut where it cuts. Of several assistant turns it reads
    one after the other.
    """

    name: ClassVar[str] = "loss_unconditional"
    passes: ClassVar[str] = "the language model reads the responses of the n rows once"

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n,) float64, NaN with its reason for a row without a scored token.

        Raises:
            InputError: the rows are plain text, which has no prompt to leave out.
        """
        if dataset.kind == "text":
            raise InputError("loss_unconditional: rows need a prompt and a response, found plain text")
        return self._compute(dataset, context, is_conditional=False)


class NResponseTokens(FeatureProvider):
    """Number of response tokens that `loss` is the mean of; 0 without a loss. No weights needed."""

    name: ClassVar[str] = "n_response_tokens"
    passes: ClassVar[str] = "none: the rows are tokenized, and no weights are needed"
    _column: ClassVar[int] = N_SCORED

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model, what is scored, and the fingerprint of both."""
        return _describe(load_row_tokenizer(context))

    def compute(self, dataset: Dataset, context: FeatureContext) -> Int64:
        """Return (n,) int64."""
        tokenizer = load_row_tokenizer(context)

        def batches(texts: pl.Series) -> Iterator[Batch]:
            for start, rows in _windows(tokenizer, texts):
                counts = [(0, row.n_scored, row.n_cut, row.problem) for row in rows]
                yield Batch(np.arange(start, start + len(rows)), np.array(counts, dtype=np.int32))

        values = _run_stage("response_tokens", tokenizer, dataset, context, batches)
        return values[:, self._column].astype(np.int64)


class NTruncatedTokens(NResponseTokens):
    """Number of response tokens beyond `max_length`, unknown to `loss`. No weights needed."""

    name: ClassVar[str] = "n_truncated_tokens"
    _column: ClassVar[int] = N_CUT


def load_row_tokenizer(context: FeatureContext) -> RowTokenizer:
    """Return how rows are read under these settings: by which model, which turns, how far."""
    lm = context.load_language_model()
    return RowTokenizer(
        lm=lm,
        loss_on=context.models.loss_on,
        max_length=lm.limit_length(context.models.max_length),
        special_tokens=context.models.special_tokens,
    )


def _describe(tokenizer: RowTokenizer) -> dict[str, str]:
    return {
        "model": tokenizer.lm.name,
        "loss_on": tokenizer.loss_on,
        "max_length": str(tokenizer.max_length),
        "dtype": tokenizer.lm.dtype,
        "fingerprint": combine_fingerprints(tokenizer.lm.fingerprint, tokenizer.how),
    }


def _windows(tokenizer: RowTokenizer, texts: pl.Series) -> Iterator[tuple[int, list[TokenizedRow]]]:
    """Yield the tokens of some rows at a time, with the position of the first."""
    for start in range(0, len(texts), WINDOW_ROWS):
        yield start, tokenizer.tokenize(texts[start : start + WINDOW_ROWS].to_list())


def _loss_batches(
    tokenizer: RowTokenizer, texts: pl.Series, batch_tokens: int | None, *, is_conditional: bool
) -> Iterator[Batch]:
    """Yield (b, 4) float64: loss, tokens scored, tokens cut, problem."""
    lm = tokenizer.lm
    for start, tokenized in _windows(tokenizer, texts):
        rows = [each.row for each in tokenized]
        if not is_conditional:
            rows = [without_prompt(row, lm.start_id) if row.is_scored.any() else row for row in rows]
        counts = np.array([(np.nan, each.n_scored, each.n_cut, each.problem) for each in tokenized], dtype=np.float64)
        for positions, log_probs in score_rows(lm, rows, batch_tokens=batch_tokens):
            values = counts[positions]
            values[:, LOSS] = [-float(each.mean(dtype=np.float64)) if len(each) else np.nan for each in log_probs]
            yield Batch(start + positions, values)


def _run_stage(
    feature: str, tokenizer: RowTokenizer, dataset: Dataset, context: FeatureContext, compute: ComputeBatches
) -> Array:
    """Return (n, 4) values of the rows: loss or nothing, tokens scored, tokens cut, problem."""
    stage = Stage(
        name=feature,
        texts=row_texts(dataset),
        compute=compute,
        feature=feature,
        model=tokenizer.lm.name,
        fingerprint=_describe(tokenizer)["fingerprint"],
    )
    values = context.run_stage(stage)
    return np.zeros((0, 4)) if values is None else values


def _sentences(feature: str, max_length: int, notes: dict[str, int], missing: pl.Series) -> Iterator[str]:
    """Yield what the user should know of rows that were cut or have no value."""
    if notes["rows_truncated"]:
        yield (
            f"{feature}: {notes['rows_truncated']:,} of {notes['rows']:,} rows are longer than {max_length:,} tokens; "
            f"{notes['tokens_truncated']:,} tokens of their responses were not scored"
        )
    for reason, count in missing.drop_nulls().value_counts().sort("count", "missing", descending=[True, False]).rows():
        yield f"{feature}: {count:,} of {notes['rows']:,} rows have no value: {reason}"
