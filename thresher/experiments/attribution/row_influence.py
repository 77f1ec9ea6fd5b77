"""How much each training row pushed an adapter towards an answer, by gradients.

The score of a row is the cosine between its loss gradient and that of the answer, both at the
trained adapter and sketched: a step on the row lowers the answer's loss by the inner product
(TracIn, Pruthi et al. 2020, arXiv:2002.08484), and the norms are divided out so that rows which
pull at everything do not come first. Preconditioning by the second moment of the rows (TRAK, Park
et al. 2023, arXiv:2303.14186) found planted rows less well: where only a part of a class has the
wrong label, these rows are themselves the directions with the largest second moment, which it takes
away (`benchmarks/why.py --partly`).

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
    """Return how much each row pulls towards an answer: (n,) cosines, higher is more.

    Args:
        rows: (n, dim) sketches of the training rows.
        answer: (dim,) of the answer.
    """
    g, a = rows.astype(np.float64), answer.astype(np.float64)
    size = np.linalg.norm(g, axis=1) * np.linalg.norm(a)
    scores: Float64 = np.divide(g @ a, size, out=np.zeros(len(g)), where=size > 0)
    return scores
