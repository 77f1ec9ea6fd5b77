"""Losses, summed over what is learned; the loop divides by the count of the whole step."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn.functional import cross_entropy, pad

from thresher.models.chosen_logits import compute_chosen_logits
from thresher.trainer.engine.batches import Batch
from thresher.trainer.engine.tokenization import IGNORED

RowLosses = list[torch.Tensor]  # takes the mean loss of each row of a batch, (rows,), unweighted


def token_loss(model: Any, batch: Batch, of_rows: RowLosses | None = None) -> torch.Tensor:
    """Return the cross-entropy of the next token, summed over learned tokens by weight."""
    targets = batch.labels[:, 1:]
    is_learned = targets != IGNORED
    # nothing follows the last token
    logits = compute_chosen_logits(model, batch.inputs, pad(is_learned, (0, 1)))
    weights = None if batch.weights is None else batch.weights[:, 1:][is_learned]
    if of_rows is not None:
        of_rows.append(_average_rows(logits, targets[is_learned], is_learned))
    return _sum_losses(logits, targets[is_learned], weights)


def class_loss(model: Any, batch: Batch, of_rows: RowLosses | None = None) -> torch.Tensor:
    """Return the cross-entropy of the class, summed over rows by weight, as a float32 scalar."""
    logits = model(**batch.inputs).logits
    if of_rows is not None:
        of_rows.append(cross_entropy(logits.detach().float(), batch.labels, reduction="none"))
    return _sum_losses(logits, batch.labels, batch.weights)


def _average_rows(logits: torch.Tensor, targets: torch.Tensor, is_learned: torch.Tensor) -> torch.Tensor:
    """Return the mean loss of the learned tokens of each row, (rows,), without gradients."""
    losses = cross_entropy(logits.detach().float(), targets, reduction="none")
    row = is_learned.nonzero()[:, 0]
    total = torch.zeros(len(is_learned), device=losses.device).index_add(0, row, losses)
    return total / is_learned.sum(dim=1).clamp(min=1)


def _sum_losses(logits: torch.Tensor, targets: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """Return the weighted sum of the losses of (m, k) logits."""
    if weights is None:
        return cross_entropy(logits.float(), targets, reduction="sum")
    return (weights * cross_entropy(logits.float(), targets, reduction="none")).sum()
