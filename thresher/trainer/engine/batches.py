"""Which rows make which optimizer step, and how they are laid out for the model.

The order is a pure function of (seed, epoch): nothing about it is stored, and a run can start at
any step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from thresher.models.token_batches import token_batches
from thresher.trainer.engine.tokenization import IGNORED, Example

# Rows of this many steps are sorted by length together: fewer would pad more, all would order the
# training by length.
BUCKET_STEPS = 16
CPU_PASS_TOKENS = 1024  # keep a core busy; more would only take more memory


@dataclass(frozen=True)
class Batch:
    """Tensors of one forward pass.

    Attributes:
        inputs: arguments of the model.
        labels: (rows, tokens) int64 with IGNORED, or (rows,) classes.
        weights: of the labels, float32 of their shape; None where all are 1.
    """

    inputs: dict[str, torch.Tensor]
    labels: torch.Tensor
    weights: torch.Tensor | None = None

    def to_device(self, device: torch.device) -> Batch:
        """Return the batch on a device."""
        weights = None if self.weights is None else self.weights.to(device)
        return Batch({name: value.to(device) for name, value in self.inputs.items()}, self.labels.to(device), weights)


Collate = Callable[[Sequence[Example]], Batch]  # rows -> tensors


def count_epoch_steps(n_rows: int, batch_size: int) -> int:
    """Return the optimizer steps of one epoch; the last may hold fewer rows."""
    return -(-n_rows // batch_size)


def order_epoch(lengths: NDArray[np.int64], *, batch_size: int, seed: int, epoch: int) -> list[NDArray[np.int64]]:
    """Return the rows of each optimizer step of an epoch.

    Rows are shuffled, sorted by length within stretches of BUCKET_STEPS steps, cut into steps, and
    the steps are shuffled. Only the last step of the shuffled rows can be smaller, wherever it then
    falls.

    Args:
        lengths: (n,) tokens of each row.
        batch_size: rows per step.
        seed: of the run.
        epoch: counted from 0.
    """
    # every step of the run can be found again from (seed, epoch) and its number
    rng = np.random.default_rng([seed, epoch])
    shuffled = rng.permutation(len(lengths))
    steps: list[NDArray[np.int64]] = []
    for start in range(0, len(shuffled), batch_size * BUCKET_STEPS):
        stretch = shuffled[start : start + batch_size * BUCKET_STEPS]
        stretch = stretch[np.argsort(lengths[stretch], kind="stable")]
        steps.extend(stretch[i : i + batch_size] for i in range(0, len(stretch), batch_size))
    return [steps[i] for i in rng.permutation(len(steps))]


def split_step(step: NDArray[np.int64], *, rank: int, n_ranks: int, n_pieces: int) -> list[NDArray[np.int64]]:
    """Return this process's share of a step, cut into forward passes; all shares make up the step.

    A share can be empty when the step has fewer rows than there are forward passes.
    """
    width = n_ranks * n_pieces
    return [step[rank * n_pieces + piece :: width] for piece in range(n_pieces)]


def split_by_length(piece: NDArray[np.int64], lengths: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return a forward pass cut into several, of rows of like length and of 1,024 tokens at most.

    The gradients are summed, so that only time and memory change: little is padded, and the
    activations of few tokens are held at once. A row alone may have more tokens.
    """
    return [piece[batch] for batch in token_batches(lengths[piece], CPU_PASS_TOKENS)]


def pad_rows(rows: Sequence[Example], *, pad_id: int) -> Batch:
    """Lay rows side by side, padded on the right to the longest."""
    width = max(len(row.input_ids) for row in rows)
    ids = torch.full((len(rows), width), pad_id, dtype=torch.long)
    mask = torch.zeros((len(rows), width), dtype=torch.long)
    is_class = all(len(row.labels) == 1 for row in rows)
    labels = torch.full((len(rows), width), IGNORED, dtype=torch.long)
    for i, row in enumerate(rows):
        n = len(row.input_ids)
        ids[i, :n] = torch.tensor(row.input_ids)
        mask[i, :n] = 1
        labels[i, : len(row.labels)] = torch.tensor(row.labels)
    labels = labels[:, 0] if is_class else labels
    weights = None
    if any(row.weight != 1 for row in rows):
        each = torch.tensor([row.weight for row in rows])
        weights = each if is_class else each[:, None].expand(labels.shape)
    return Batch({"input_ids": ids, "attention_mask": mask}, labels, weights)


def pack_first_fit(lengths: Sequence[int], width: int) -> list[list[int]]:
    """Pack rows into sequences of `width` tokens, first-fit decreasing (11/9 of the optimum)."""
    packs: list[list[int]] = []  # rows of each sequence
    room: list[int] = []  # tokens that each sequence can still take
    # longest rows first; each goes into the first sequence with room for it
    for row in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        slot = next((i for i, free in enumerate(room) if free >= lengths[row]), None)
        if slot is None:
            slot = len(packs)
            packs.append([])
            room.append(width)
        packs[slot].append(row)
        room[slot] -= lengths[row]
    return packs


def pack_rows(rows: Sequence[Example], *, pad_id: int, max_length: int, dtype: torch.dtype) -> Batch:
    """Lay rows end to end so that none sees another.

    Positions start again at 0 in each row, and the mask is block-diagonal and causal: (packs, 1,
    tokens, tokens), 0 where attention is allowed and the lowest number of `dtype` where it is not.
    The first token of each row is never a target, since the token before it belongs to another row.
    Padding attends to itself.
    """
    packs = pack_first_fit([len(row.input_ids) for row in rows], max_length)
    width = max(sum(len(rows[i].input_ids) for i in members) for members in packs)
    ids = torch.full((len(packs), width), pad_id, dtype=torch.long)
    labels = torch.full((len(packs), width), IGNORED, dtype=torch.long)
    position = torch.zeros((len(packs), width), dtype=torch.long)
    owner = torch.full((len(packs), width), -1, dtype=torch.long)
    weights = torch.ones((len(packs), width)) if any(row.weight != 1 for row in rows) else None
    for number, members in enumerate(packs):
        start = 0
        for i in members:  # row i takes the places start..end of its sequence
            end = start + len(rows[i].input_ids)
            ids[number, start:end] = torch.tensor(rows[i].input_ids)
            labels[number, start:end] = torch.tensor(rows[i].labels)
            labels[number, start] = IGNORED
            position[number, start:end] = torch.arange(end - start)
            owner[number, start:end] = i
            if weights is not None:
                weights[number, start:end] = rows[i].weight
            start = end
    # a token sees the tokens before it that have the same owner; padding (owner -1) sees padding
    is_visible = (owner[:, :, None] == owner[:, None, :]).tril()
    mask = torch.zeros(is_visible.shape, dtype=dtype).masked_fill(~is_visible, torch.finfo(dtype).min)
    return Batch({"input_ids": ids, "position_ids": position, "attention_mask": mask[:, None]}, labels, weights)


class BatchSampler:
    """Which rows each optimizer step of a run learns from.

    Attributes:
        rows: the examples.
        batch_size: rows per step.
        seed: of the order.
        n_steps: of the run.
        n_epoch_steps: of one epoch.
        lengths: (n,) tokens of each row.
        n_learned: (n,) predictions of each row that count.
        mass: (n,) float64, their number times the row's weight.
    """

    def __init__(self, rows: Sequence[Example], *, batch_size: int, seed: int, n_steps: int) -> None:
        self.rows = rows
        self.batch_size = batch_size
        self.seed = seed
        self.n_steps = n_steps
        self.n_epoch_steps = count_epoch_steps(len(rows), batch_size)
        self.lengths = np.array([len(row.input_ids) for row in rows], dtype=np.int64)
        self.n_learned = np.array([row.n_learned for row in rows], dtype=np.int64)
        self.mass = self.n_learned * np.array([row.weight for row in rows])
        self._epoch = -1
        self._order: list[NDArray[np.int64]] = []

    def get_step_rows(self, step: int) -> NDArray[np.int64]:
        """Return the positions of the rows of a step, counted from 0 over all epochs."""
        epoch, within = divmod(step, self.n_epoch_steps)
        if epoch != self._epoch:
            self._order = order_epoch(self.lengths, batch_size=self.batch_size, seed=self.seed, epoch=epoch)
            self._epoch = epoch
        return self._order[within]
