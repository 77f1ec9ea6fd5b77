"""Which of a model's layers are adapted: all, a range, or those with the most Fisher information.

The Fisher information of a layer is estimated by the sum of squared gradients of its weights over
rows, one at a time (as in FISH masks, Sung et al. 2021, arXiv:2111.09839). Layers are the numbered
blocks of a model.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import torch

from thresher.errors import InputError
from thresher.trainer.engine.batches import Batch, pad_rows
from thresher.trainer.engine.tokenization import Example

N_ROWS = 200
SHARE = 0.25  # of the layers that are kept
NUMBER = re.compile(r"\.(\d+)\.")


def list_left_out(
    model: Any,
    choice: str,
    rows: Sequence[Example],
    loss_sum: Callable[[Any, Batch], torch.Tensor],
    *,
    device: Any,
    named: Any = None,
) -> list[str]:
    """Return the linear layers that a choice leaves out, by name in `named`.

    Args:
        model: the base, which rows are read by.
        choice: "all", "fisher", or layers from 0, as "8-15".
        rows: of the training.
        loss_sum: model, batch -> loss summed over what is learned.
        device: that the rows are read on.
        named: the part of the model that gets the adapter; default: the model.

    Raises:
        InputError: the model has no such layers.
    """
    if choice == "all":
        return []
    body = model if named is None else named
    linear = {name: part for name, part in body.named_modules() if isinstance(part, torch.nn.Linear)}
    number = {name: int(match[1]) for name in linear if (match := NUMBER.search(f".{name}."))}
    n_layers = 1 + max(number.values(), default=-1)
    if choice == "fisher":
        if not n_layers:
            raise InputError("lora_layers: 'fisher' needs a model of numbered layers, found none; leave it out")
        if not rows:
            raise InputError("lora_layers: 'fisher' needs rows, got none")
        kept = _choose_by_fisher(model, {linear[name]: layer for name, layer in number.items()}, rows, loss_sum, device)
    else:
        first, _, last = choice.partition("-")
        kept = set(range(int(first), int(last or first) + 1))
        if not kept or max(kept) >= n_layers:
            raise InputError(
                f"lora_layers: must be layers of the model, which are 0-{n_layers - 1}, got '{choice}'; the first one "
                f"comes first"
            )
    return [name for name in linear if number.get(name) not in kept]


def _choose_by_fisher(
    model: Any,
    layer_of: dict[torch.nn.Linear, int],
    rows: Sequence[Example],
    loss_sum: Callable[[Any, Batch], torch.Tensor],
    device: Any,
) -> set[int]:
    """Return the layers with the largest sums of squared gradients per weight."""
    totals, sizes = dict.fromkeys(layer_of.values(), 0.0), dict.fromkeys(layer_of.values(), 0)
    was_trained = {parameter: parameter.requires_grad for parameter in model.parameters()}
    for parameter in was_trained:
        parameter.requires_grad_(False)
    weights = {part.weight: number for part, number in layer_of.items() if part.weight.is_floating_point()}
    for weight, number in weights.items():
        weight.requires_grad_(True)
        sizes[number] += weight.numel()
    model.eval()
    try:
        for row in rows[:N_ROWS]:
            loss = loss_sum(model, pad_rows([row], pad_id=0).to_device(device))
            gradients = torch.autograd.grad(loss, list(weights), allow_unused=True)
            for number, gradient in zip(weights.values(), gradients, strict=True):
                totals[number] += 0.0 if gradient is None else float(gradient.float().square().sum())
    finally:
        for parameter, is_trained in was_trained.items():
            parameter.requires_grad_(is_trained)
    mean = {number: totals[number] / max(1, sizes[number]) for number in totals}
    n_kept = max(1, round(SHARE * len(mean)))
    return set(sorted(mean, key=lambda number: (-mean[number], number))[:n_kept])
