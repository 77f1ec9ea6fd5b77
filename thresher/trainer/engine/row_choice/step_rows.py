"""The rows of one optimizer step: which are learned from, how much each counts, their losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from thresher.numeric.arrays import Float64, Int64
from thresher.trainer.engine.tokenization import IGNORED, Example

MASKING = 37  # of the draws


@dataclass
class StepRows:
    """The rows of a step.

    Attributes:
        step: counted from 0.
        rows: (k,) that are learned from.
        factor: how much each of them counts beside its own weight; None where all count once.
        losses: (rows, mean loss) of each forward pass; None where nobody asks.
    """

    step: int
    rows: Int64
    factor: dict[int, float] | None = None
    losses: list[tuple[Int64, list[torch.Tensor]]] | None = field(default=None)

    def weigh(self, example: Example, row: int) -> Example:
        """Return a row with its weight in this step."""
        factor = 1.0 if self.factor is None else self.factor.get(row, 1.0)
        return example if factor == 1 else replace(example, weight=example.weight * factor)

    def open_losses(self, piece: Int64) -> list[torch.Tensor] | None:
        """Return where a forward pass is to put the mean losses of its rows."""
        if self.losses is None or not len(piece):
            return None
        self.losses.append((piece, []))
        return self.losses[-1][1]

    def collect(self, rows: Int64, reduce: Callable[[torch.Tensor], torch.Tensor]) -> Float64:
        """Return the mean loss of some rows, (k,), nan where no process measured it.

        Args:
            rows: (k,).
            reduce: sums a tensor over all processes.
        """
        place = {int(row): k for k, row in enumerate(rows)}
        values = torch.zeros((2, len(rows)))
        for piece, measured in self.losses or ():
            at = [place[int(row)] for row in piece]
            values[0, at], values[1, at] = torch.cat(measured).float().cpu(), 1.0
        total, n = reduce(values).double().numpy()
        return np.where(n > 0, total, np.nan)


def mask_answer(example: Example, share: float, *, pad_id: int, seed: Sequence[int]) -> Example:
    """Return a row in which the model reads some tokens of the answer as padding, and learns all.

    Source: Masked Thought (Chen et al. 2024, arXiv:2403.02178).

    Args:
        example: the row.
        share: chance of each learned token.
        pad_id: what is read in its place.
        seed: of the draws.
    """
    if not share or len(example.labels) == 1:
        return example
    is_masked = np.random.default_rng([*seed, MASKING]).random(len(example.labels)) < share
    ids = [
        pad_id if masked and label != IGNORED else token
        for token, label, masked in zip(example.input_ids, example.labels, is_masked, strict=True)
    ]
    return replace(example, input_ids=ids)
