"""Checkpoints: one safetensors file each, written whole; the last two stay.

No random state is stored: the order of the rows follows from (seed, epoch), dropout from (seed,
step).

Each file carries the xxh3 of its tensors and its history. One that does not fit is never used: the
one before it is. Files of earlier versions carry none, and are read as they are.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import xxhash

from thresher.artifacts.folder import write_atomic
from thresher.errors import ManifestError

N_CHECKPOINTS = 2
PREFIX = "checkpoint-"
MOMENTS = ("exp_avg", "exp_avg_sq", "step")
CHECKSUM = "xxh3"
STATE = "state/"


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


def save(
    folder: Path,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: Any,
    history: History,
    *,
    state: Mapping[str, torch.Tensor] | None = None,
) -> Path:
    """Write a checkpoint and delete all but the last two.

    Args:
        folder: of the run; made if it is missing.
        parameters: trained parameters by name.
        optimizer: AdamW over exactly these, in this order.
        history: so far.
        state: what else a resumed run needs, by name.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter/{name}": value.detach() for name, value in parameters.items()}
    for name, value in parameters.items():
        for moment, tensor in optimizer.state.get(value, {}).items():
            tensors[f"{moment}/{name}"] = tensor
    tensors |= {f"{STATE}{name}": tensor for name, tensor in (state or {}).items()}
    path = folder / f"{PREFIX}{history.step:08d}.safetensors"
    write_atomic(path, _to_bytes(tensors, json.dumps(vars(history))))
    for old in _list_checkpoints(folder)[:-N_CHECKPOINTS]:
        old.unlink()
    return path


def restore(
    folder: Path,
    parameters: Mapping[str, torch.nn.Parameter],
    optimizer: Any,
    *,
    best: Path | None = None,
    on_damage: Callable[[Path], None] | None = None,
    on_state: Callable[[Mapping[str, torch.Tensor]], None] | None = None,
) -> History:
    """Load the newest whole checkpoint into parameters and optimizer; without one, no history.

    Args:
        folder: of the run.
        parameters: trained parameters by name.
        optimizer: AdamW over exactly these.
        best: weights of the best step; a checkpoint that names one needs them.
        on_damage: told of each checkpoint that cannot be used, which is the caller's to delete.
        on_state: given the state that the checkpoint was saved with.
    """
    for path in reversed(_list_checkpoints(folder)):
        try:
            stored = _read(path, parameters)
            if best is not None and stored.history.best_step is not None:
                _read(best, parameters, prefix="")
        except _DamagedError:
            if on_damage is not None:
                on_damage(path)
            continue
        _fill(parameters, stored, optimizer)
        if on_state is not None:
            tensors = stored.tensors.items()
            on_state({name.removeprefix(STATE): tensor for name, tensor in tensors if name.startswith(STATE)})
        return stored.history
    return History()


def is_whole(path: Path) -> bool:
    """Tell whether a file of this module is what was written."""
    try:
        _read(path, {})
    except _DamagedError:
        return False
    return True


def save_weights(path: Path, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Write the trained parameters alone."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, _to_bytes({name: value.detach() for name, value in parameters.items()}, "{}"))


def load_weights(path: Path, parameters: Mapping[str, torch.nn.Parameter]) -> None:
    """Load what `save_weights` wrote.

    Raises:
        ManifestError: the file is not what was written.
    """
    try:
        stored = _read(path, parameters, prefix="")
    except _DamagedError as error:
        raise ManifestError(f"{path}: {error}; run the same command again, which trains from before it") from None
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(stored.tensors[name])


class _DamagedError(Exception):
    """A file is not what was written."""


@dataclass(frozen=True)
class _Stored:
    history: History
    tensors: Mapping[str, torch.Tensor]


def _read(path: Path, parameters: Mapping[str, torch.nn.Parameter], *, prefix: str = "parameter/") -> _Stored:
    """Read a file whole, before anything of it is used.

    Raises:
        _DamagedError: it does not fit its checksum, or lacks a parameter.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no dict
        history = metadata.get("history", "{}")
        checksum = _hash_content(tensors, history)
        has_shapes = all(tensors[f"{prefix}{name}"].shape == value.shape for name, value in parameters.items())
        content = History(**json.loads(history))
    except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
        raise _DamagedError(f"must be a checkpoint, found '{error}'") from None
    if metadata.get(CHECKSUM, checksum) != checksum or not has_shapes:
        raise _DamagedError("must be unchanged, but its checksum differs")
    return _Stored(content, tensors)


def _fill(parameters: Mapping[str, torch.nn.Parameter], stored: _Stored, optimizer: Any) -> None:
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(stored.tensors[f"parameter/{name}"])
    for name, value in parameters.items():
        moments = {m: stored.tensors[f"{m}/{name}"] for m in MOMENTS if f"{m}/{name}" in stored.tensors}
        if moments:  # the step count of AdamW stays on the CPU
            optimizer.state[value] = {m: t if m == "step" else t.to(value.device) for m, t in moments.items()}


def _list_checkpoints(folder: Path) -> Sequence[Path]:
    return sorted(folder.glob(f"{PREFIX}*.safetensors"))


def _to_bytes(tensors: Mapping[str, torch.Tensor], history: str) -> bytes:
    from safetensors.torch import save as to_bytes

    stored = {name: tensor.cpu().contiguous() for name, tensor in tensors.items()}
    content: bytes = to_bytes(stored, {"history": history, CHECKSUM: _hash_content(stored, history)})
    return content


def _hash_content(tensors: Mapping[str, torch.Tensor], history: str) -> str:
    """Return the xxh3-128 of a history and of each tensor's name, kind and bytes."""
    total = xxhash.xxh3_128(history.encode())
    for name, tensor in sorted(tensors.items()):
        total.update(f"\0{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()
