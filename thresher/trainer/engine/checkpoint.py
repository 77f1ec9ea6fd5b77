"""Checkpoints: one safetensors file each, written whole; the last two stay.

No random state is stored: the order of the rows follows from (seed, epoch), dropout from (seed,
step).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from thresher.artifacts.folder import write_atomic

N_CHECKPOINTS = 2
PREFIX = "checkpoint-"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")


@dataclass
class History:
    """What has been measured so far.

    Attributes:
        step: optimizer steps done.
        losses: one per step: `step`, `epoch`, `learning_rate`, `loss` (mean over learned tokens),
            `n_learned`.
        evaluations: `step`, `loss`, `stderr`, `n` of each held-out evaluation during training.
        best_step: step of the lowest held-out loss, with early stopping.
        is_stopped: early stopping has ended the run.
    """

    step: int = 0
    losses: list[dict[str, float]] = field(default_factory=list)
    evaluations: list[dict[str, float]] = field(default_factory=list)
    best_step: int | None = None
    is_stopped: bool = False


def save(folder: Path, parameters: Mapping[str, torch.nn.Parameter], optimizer: Any, history: History) -> Path:
    """Write a checkpoint and delete all but the last two.

    Args:
        folder: of the run; made if it is missing.
        parameters: trained parameters by name.
        optimizer: AdamW over exactly these, in this order.
        history: so far.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter/{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for moment, tensor in optimizer.state.get(value, {}).items():
            tensors[f"{moment}/{name}"] = tensor
    path = folder / f"{PREFIX}{history.step:08d}.safetensors"
    write_atomic(path, _to_bytes(tensors, {"history": json.dumps(vars(history))}))
    for old in _list_checkpoints(folder)[:-N_CHECKPOINTS]:
        old.unlink()
    return path


def restore(folder: Path, parameters: Mapping[str, torch.nn.Parameter], optimizer: Any) -> History:
    """Load the newest checkpoint into parameters and optimizer; without one, return no history."""
    from safetensors import safe_open

    paths = _list_checkpoints(folder)
    if not paths:
        return History()
    with safe_open(paths[-1], framework="pt") as file:
        history = History(**json.loads(file.metadata()["history"]))
        with torch.no_grad():
            for name, value in parameters.items():
                value.copy_(file.get_tensor(f"parameter/{name}"))
        stored = set(file.keys())
        for name, value in parameters.items():
            moments = {m: file.get_tensor(f"{m}/{name}") for m in MOMENTS if f"{m}/{name}" in stored}
            if moments:  # the step count of AdamW stays on the CPU
                optimizer.state[value] = {m: t if m == "step" else t.to(value.device) for m, t in moments.items()}
    return history


def save_weights(path: Path, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Write the trained parameters alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _to_bytes({name: value.detach() for name, value in parameters.items()}, {}))


def load_weights(path: Path, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Load what `save_weights` wrote."""
    from safetensors.torch import load_file

    stored = load_file(path)
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(stored[name])


def _list_checkpoints(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob(f"{PREFIX}*.safetensors"))


def _to_bytes(tensors: Mapping[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    from safetensors.torch import save as to_bytes

    content: bytes = to_bytes({name: tensor.cpu().contiguous() for name, tensor in tensors.items()}, metadata or None)
    return content
