"""How much each training row pushed an adapter towards an answer, by gradients.

For the loss L_q of the answer and L_i of row i, both at the trained adapter, an influence function
(Koh and Liang 2017, arXiv:1703.04730) says that training on i lowers L_q by g_q^T H^-1 g_i. With g
sketched to d numbers, H is the second moment of the rows' sketches, (1/n) sum_i g_i g_i^T, damped
(TRAK, Park et al. 2023, arXiv:2303.14186). Dividing by sqrt(g_i^T H^-1 g_i) keeps rows that pull at
everything from coming first (RelatIF, Barshan et al. 2020, arXiv:2003.11630).

A score says which rows pull towards the answer now, not what would happen without them: that is
what the proof is for.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch

from thresher.features.gradients.per_example import make_sketch
from thresher.numeric.arrays import Float32, Float64
from thresher.trainer.engine.batches import pad_rows
from thresher.trainer.engine.losses import class_loss, token_loss
from thresher.trainer.engine.tokenization import Example

# times the mean second moment: with fewer rows than entries, a weak damping would let directions in
# which few rows differ decide (`benchmarks/why.py`)
DAMPING = 10.0
# names of what an adapter trains: its matrices, whole layers, the head of a classifier; not lm_head
TRAINED = re.compile(r"(?:^|\.)(?:lora_|modules_to_save\.)|^head\.")


class GradientSketcher:
    """Sketches the gradients of single rows at a trained adapter."""

    def __init__(self, model: Any, *, task: str, dim: int, device: Any) -> None:
        """Watch the trained weights of a model in evaluation mode."""
        self._model, self._device, self._dim = model, device, dim
        self._loss_sum: Callable[[Any, Any], torch.Tensor] = class_loss if task == "classification" else token_loss
        for name, value in model.named_parameters():
            value.requires_grad_(TRAINED.search(name) is not None)
        self._parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
        self._sketch = {
            name: make_sketch(name, value.numel(), dim=dim, number=0) for name, value in self._parameters.items()
        }

    def sketch(self, row: Example) -> Float32:
        """Return the sketch of the gradient of a row's mean loss: (dim,)."""
        batch = pad_rows([row], pad_id=0).to_device(self._device)
        loss = self._loss_sum(self._model, batch) / row.n_learned
        gradients = torch.autograd.grad(loss, list(self._parameters.values()), allow_unused=True)
        total = torch.zeros(self._dim)
        for name, gradient in zip(self._parameters, gradients, strict=True):
            if gradient is not None:
                place, sign = self._sketch[name]
                total.index_add_(0, place, gradient.detach().float().cpu().flatten() * sign)
        values: Float32 = total.numpy()
        return values

    def sketch_all(self, rows: Sequence[Example], on_row: Callable[[int], None] = lambda _: None) -> Float32:
        """Return the sketches of all rows, (n, dim)."""
        out = np.zeros((len(rows), self._dim), np.float32)
        for number, row in enumerate(rows):
            out[number] = self.sketch(row)
            on_row(number + 1)
        return out


def score_rows(rows: Float32, answer: Float32) -> Float64:
    """Return how much each row pulls towards an answer: (n,), higher is more.

    Args:
        rows: (n, dim) sketches of the training rows.
        answer: (dim,) of the answer.
    """
    g = rows.astype(np.float64)
    moments = g.T @ g / len(g)
    damping = DAMPING * np.trace(moments) / len(moments) + np.finfo(np.float64).tiny
    chol = np.linalg.cholesky(moments + damping * np.eye(len(moments)))
    whitened = np.linalg.solve(chol, g.T).T  # (n, dim): inner products of these are those by H^-1
    size = np.linalg.norm(whitened, axis=1)
    pull = whitened @ np.linalg.solve(chol, answer.astype(np.float64))
    scores: Float64 = np.divide(pull, size, out=np.zeros_like(pull), where=size > 0)
    return scores
