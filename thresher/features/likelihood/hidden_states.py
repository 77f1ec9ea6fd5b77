"""Where a language model places a row: the position-weighted mean of its last hidden states."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import polars as pl

from thresher.cache.batch import Batch
from thresher.cache.fingerprint import combine_fingerprints
from thresher.features.context import FeatureContext
from thresher.features.likelihood.loss import WINDOW_ROWS, load_row_tokenizer
from thresher.features.registry import FeatureProvider, FeatureValues, describe_missing
from thresher.models.causal_lm.language_model import LanguageModel
from thresher.models.causal_lm.likelihood import TokenRow, padded
from thresher.models.causal_lm.tokenized_rows import RowTokenizer, describe_problems, row_texts
from thresher.models.precision import inference
from thresher.models.stages import Stage
from thresher.models.token_batches import token_batches

if TYPE_CHECKING:
    from thresher.dataset import Dataset

OWN_RECIPE = "hidden-1"
STORED_AS = "hidden"  # in the cache, from before a renaming
N_CUT, PROBLEM = -2, -1  # columns behind the vector in the cached (n, d + 2) float32


class HiddenState(FeatureProvider):
    """Unit vectors of whole rows: sum of i h_i / sum of i over the tokens i = 1, 2, ...

    h_i is the last hidden state of a token. Later tokens have seen more of the row, so they weigh
    more (Ivison et al. 2025, arXiv:2503.01807). A row is read as `loss` reads it, and has no value
    where it has no loss.
    """

    name: ClassVar[str] = "hidden_state"
    passes: ClassVar[str] = "the language model reads each of the n rows once"

    def describe(self, context: FeatureContext) -> dict[str, str]:
        """Return the model, what is read of a row, and the fingerprint of both."""
        tokenizer = load_row_tokenizer(context)
        return {
            "model": tokenizer.lm.name,
            "max_length": str(tokenizer.max_length),
            "dtype": tokenizer.lm.dtype,
            "fingerprint": _fingerprint(tokenizer),
        }

    def compute(self, dataset: Dataset, context: FeatureContext) -> FeatureValues:
        """Return (n, d) float32 of length 1, NaN with its reason without a response token."""
        tokenizer = load_row_tokenizer(context)
        # referenced, so that the features computed after this one share the loaded model
        self._lm = tokenizer.lm

        def batches(texts: pl.Series) -> Iterator[Batch]:
            return _batches(tokenizer, texts, context.models.batch_tokens)

        stage = Stage(
            name=self.name,
            texts=row_texts(dataset),
            compute=batches,
            feature=STORED_AS,
            model=tokenizer.lm.name,
            fingerprint=_fingerprint(tokenizer),
        )
        values = context.run_stage(stage)
        values = np.zeros((0, 3), dtype=np.float32) if values is None else values
        problem, n_cut = values[:, PROBLEM].astype(np.int64), values[:, N_CUT]
        notes = {
            "rows": len(values),
            "rows_missing": int((problem > 0).sum()),
            "rows_truncated": int(((n_cut > 0) & (problem == 0)).sum()),
        }
        sentences = (*tokenizer.lm.notes(), *_sentences(notes, tokenizer.max_length))
        context.report_notes(self.name, len(values), sentences)
        vectors = np.ascontiguousarray(values[:, :N_CUT])
        return FeatureValues(values=vectors, missing=describe_problems(problem), notes=notes)


def _batches(tokenizer: RowTokenizer, texts: pl.Series, batch_tokens: int | None) -> Iterator[Batch]:
    """Yield (b, d + 2) float32: the vector, tokens cut, problem."""
    lm = tokenizer.lm
    for start in range(0, len(texts), WINDOW_ROWS):
        tokenized = tokenizer.tokenize(texts[start : start + WINDOW_ROWS].to_list())
        facts = np.array([(each.n_cut, each.problem) for each in tokenized], dtype=np.float32)
        fine = np.flatnonzero(facts[:, PROBLEM] == 0)
        for batch in weighted_means(lm, [tokenized[i].row for i in fine], batch_tokens=batch_tokens):
            at = fine[batch.positions]
            yield Batch(start + at, np.concatenate([batch.values, facts[at]], axis=1))
        rest = np.flatnonzero(facts[:, PROBLEM])
        if len(rest):
            nothing = np.full((len(rest), _hidden_width(lm)), np.nan, np.float32)
            yield Batch(start + rest, np.concatenate([nothing, facts[rest]], axis=1))


def weighted_means(lm: LanguageModel, rows: Sequence[TokenRow], *, batch_tokens: int | None) -> Iterator[Batch]:
    """Yield (b, d) float32 unit vectors of rows of at least one token, the longest first.

    Rows are padded on the right, where causal attention never looks, and padding has no weight.

    Raises:
        InputError: a batch does not fit the device's memory.
    """
    import torch

    n_tokens = np.array([len(row.ids) for row in rows], dtype=np.int64)
    body = lm.body
    for batch in token_batches(n_tokens, lm.limit_batch_tokens(batch_tokens)):
        ids = padded(lm, [rows[i].ids for i in batch])
        position = np.arange(1, ids.shape[1] + 1, dtype=np.float32)
        weight = np.where(position <= n_tokens[batch, None], position, np.float32(0))  # (b, w)
        weight /= weight.sum(axis=1, keepdims=True)
        lm.choose_attention(ids.shape[1])
        with inference(f"model '{lm.name}': a batch of {ids.shape} tokens"):
            hidden = body(input_ids=torch.from_numpy(ids).to(lm.device), use_cache=False).last_hidden_state
            mean = torch.einsum("bwd,bw->bd", hidden.float(), torch.from_numpy(weight).to(lm.device))
            vectors = torch.nn.functional.normalize(mean, dim=1).cpu().numpy()
        lm.n_tokens += int(n_tokens[batch].sum())
        yield Batch(batch, vectors)


def _hidden_width(lm: LanguageModel) -> int:
    """Return the length of a hidden state, which the configuration need not tell (OPT)."""
    import torch

    with torch.inference_mode():  # for its shape alone
        ids = torch.zeros((1, 1), dtype=torch.long, device=lm.device)
        return int(lm.body(input_ids=ids, use_cache=False).last_hidden_state.shape[-1])


def _fingerprint(tokenizer: RowTokenizer) -> str:
    return combine_fingerprints(tokenizer.lm.fingerprint, f"{OWN_RECIPE}-{tokenizer.how}")


def _sentences(notes: dict[str, int], max_length: int) -> Iterator[str]:
    """Yield what the user should know of rows that were cut or have no value."""
    if notes["rows_truncated"]:
        count = f"{notes['rows_truncated']:,} of {notes['rows']:,}"
        yield f"hidden_state: {count} rows are longer than {max_length:,} tokens"
    yield from describe_missing("hidden_state", notes)
