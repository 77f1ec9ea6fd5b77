"""Losses, summed over what is learned; the loop divides by the count of the whole step."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy

from thresher.trainer.engine.batches import Batch
from thresher.trainer.engine.tokenization import IGNORED


def token_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return the cross-entropy of the next token, summed over learned tokens: float32 scalar."""
    logits = model(**batch.inputs).logits[:, :-1]  # (rows, t - 1, vocabulary)
    targets = batch.labels[:, 1:]
    is_learned = targets != IGNORED
    # only learned positions are copied to float32: the vocabulary is wide and prompts are long
    return cross_entropy(logits[is_learned].float(), targets[is_learned], reduction="sum")


def class_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return the cross-entropy of the class, summed over rows, as a float32 scalar."""
    return cross_entropy(model(**batch.inputs).logits.float(), batch.labels, reduction="sum")
