"""Losses, summed over what is learned; the loop divides by the count of the whole step."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad

from thresher.models.chosen_logits import compute_chosen_logits
from thresher.trainer.engine.batches import Batch
from thresher.trainer.engine.tokenization import IGNORED


def token_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return the cross-entropy of the next token, summed over learned tokens: float32 scalar."""
    targets = batch.labels[:, 1:]
    is_learned = targets != IGNORED
    # nothing follows the last token
    logits = compute_chosen_logits(model, batch.inputs, pad(is_learned, (0, 1)))
    return cross_entropy(logits.float(), targets[is_learned], reduction="sum")


def class_loss(model: Any, batch: Batch) -> torch.Tensor:
    """Return the cross-entropy of the class, summed over rows, as a float32 scalar."""
    return cross_entropy(model(**batch.inputs).logits.float(), batch.labels, reduction="sum")
