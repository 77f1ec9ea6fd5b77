"""Running a model over held-out rows: losses, classes and answers, one per row."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch.nn.functional import cross_entropy, log_softmax, pad

from thresher.errors import InputError
from thresher.models.chosen_logits import compute_chosen_logits
from thresher.models.generation.decoding_loop import generate_plainly, ignores_padding, read_stop_ids
from thresher.numeric.arrays import Float64, Int64

IGNORED = -100  # label of a token that does not count, as in torch
TOKENS_PER_BATCH = 8192  # padded tokens of one forward pass: bounds memory whatever the length
LOGITS_PER_BATCH = 1 << 28  # 1 GB of float32: the same whatever the vocabulary
ROWS_PER_BATCH = 64

Result = TypeVar("Result")


class Row(Protocol):
    """Token ids with labels: (t,) for a language model, (1,) for a classifier."""

    @property
    def input_ids(self) -> list[int]:
        """Return the tokens."""

    @property
    def labels(self) -> list[int]:
        """Return the targets, IGNORED where a token does not count towards the loss."""


@dataclass(frozen=True)
class TokenLosses:
    """Loss of each row summed over its learned tokens (nats), and their number: (n,) each."""

    total: Float64
    n_tokens: Int64


@dataclass(frozen=True)
class ClassGuesses:
    """Predicted class, its probability, and loss of the true class (NaN if unknown): (n,) each."""

    predicted: Int64
    confidence: Float64
    loss: Float64


def token_losses(model: Any, rows: Sequence[Row], *, pad_id: int, device: Any) -> TokenLosses:
    """Compute the losses of a language model on rows; the model must be in evaluation mode."""

    def measure(batch: list[Row]) -> list[tuple[float, int]]:
        ids, mask = _right_padded([row.input_ids for row in batch], pad_id, device)
        labels, _ = _right_padded([row.labels for row in batch], IGNORED, device)
        targets = labels[:, 1:]
        is_learned = targets != IGNORED
        loss = torch.zeros(targets.shape, device=device, dtype=torch.float32)
        logits = compute_chosen_logits(model, {"input_ids": ids, "attention_mask": mask}, pad(is_learned, (0, 1)))
        loss[is_learned] = cross_entropy(logits.float(), targets[is_learned], reduction="none")
        return list(zip(loss.double().sum(1).tolist(), is_learned.sum(1).tolist(), strict=True))

    n_tokens = min(TOKENS_PER_BATCH, LOGITS_PER_BATCH // int(model.config.get_text_config().vocab_size))
    losses = _map_by_length(rows, lambda row: len(row.input_ids), measure, tokens_at_once=n_tokens)
    return TokenLosses(
        total=np.array([total for total, _ in losses], np.float64),
        n_tokens=np.array([count for _, count in losses], np.int64),
    )


def classify(model: Any, rows: Sequence[Row], *, pad_id: int, device: Any) -> ClassGuesses:
    """Classify rows with a model in evaluation mode; a label beyond its classes has loss NaN."""

    def measure(batch: list[Row]) -> list[tuple[int, float, float]]:
        ids, mask = _right_padded([row.input_ids for row in batch], pad_id, device)
        log_p = log_softmax(model(input_ids=ids, attention_mask=mask).logits.float(), dim=-1)
        best, guess = log_p.max(dim=-1)
        known = [row.labels[0] if row.labels[0] < log_p.shape[1] else None for row in batch]
        loss = [float("nan") if code is None else -float(log_p[i, code]) for i, code in enumerate(known)]
        return list(zip(guess.tolist(), best.exp().tolist(), loss, strict=True))

    guesses = _map_by_length(rows, lambda row: len(row.input_ids), measure)
    return ClassGuesses(
        predicted=np.array([code for code, _, _ in guesses], np.int64),
        confidence=np.array([confidence for _, confidence, _ in guesses], np.float64),
        loss=np.array([loss for _, _, loss in guesses], np.float64),
    )


def generate(
    model: Any,
    prompts: Sequence[list[int]],
    tokenizer: Any,
    *,
    max_new_tokens: int,
    device: Any,
    ends: Collection[int] = (),
) -> list[str]:
    """Answer prompts greedily, with a key-value cache and left padding, without special tokens.

    A model that reads padding like any token answers one prompt at a time: transformers also mixes
    up the states that such models (RWKV) carry from token to token when several rows share a batch.
    The model's own generation settings are ignored, except for the tokens that end an answer.

    Args:
        model: a causal language model in evaluation mode.
        prompts: (n,) token ids, up to where the answer starts.
        tokenizer: of the model.
        max_new_tokens: limit of an answer.
        device: that holds the model.
        ends: tokens that end an answer, besides those that the model and the tokenizer name.
    """
    own = getattr(model.generation_config, "eos_token_id", None)
    stops = read_stop_ids(own) | {tokenizer.eos_token_id, *ends} - {None}

    def answer(batch: list[list[int]]) -> list[str]:
        width = max(len(ids) for ids in batch)
        ids = torch.tensor([[tokenizer.pad_token_id] * (width - len(row)) + row for row in batch], device=device)
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in batch], device=device)
        out = generate_plainly(
            model, ids, mask, max_new_tokens=max_new_tokens, pad_id=tokenizer.pad_token_id, stops=stops
        )
        texts: list[str] = tokenizer.batch_decode(out[:, width:], skip_special_tokens=True)
        return texts

    return _map_by_length(prompts, len, answer, at_once=ROWS_PER_BATCH if ignores_padding(model, device) else 1)


def _right_padded(rows: list[list[int]], pad: int, device: Any) -> tuple[torch.Tensor, torch.Tensor]:
    width = max(len(row) for row in rows)
    ids = torch.tensor([row + [pad] * (width - len(row)) for row in rows], device=device)
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows], device=device)
    return ids, mask


RowType = TypeVar("RowType")


def _map_by_length(
    rows: Sequence[RowType],
    length: Callable[[RowType], int],
    measure: Callable[[list[RowType]], list[Result]],
    *,
    at_once: int = ROWS_PER_BATCH,
    tokens_at_once: int = TOKENS_PER_BATCH,
) -> list[Result]:
    """Apply `measure` to batches of rows of similar length; results come in the order of rows.

    Raises:
        InputError: a batch does not fit the device.
    """
    order = sorted(range(len(rows)), key=lambda i: length(rows[i]), reverse=True)
    results: list[tuple[int, Result]] = []
    start = 0
    with torch.inference_mode():
        while start < len(order):
            longest = length(rows[order[start]])
            chosen = order[start : start + max(1, min(at_once, tokens_at_once // max(1, longest)))]
            try:
                results.extend(zip(chosen, measure([rows[i] for i in chosen]), strict=True))
            except torch.OutOfMemoryError:
                raise InputError(
                    f"eval: a batch of {len(chosen)} rows of up to {longest:,} tokens must fit the device's memory "
                    f"along with the model, and does not; lower max_length, or leave out --eval"
                ) from None
            start += len(chosen)
    return [result for _, result in sorted(results, key=lambda pair: pair[0])]
