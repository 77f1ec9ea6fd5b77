"""Devices by name, checked before any model is loaded."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from thresher.errors import SettingsError

if TYPE_CHECKING:
    import torch

# torch has names for more, on some of which nothing can be computed
DEVICES = ("cpu", "cuda", "mps")
SHARED = 0.1  # of a device's memory; what CUDA itself takes for a process is less
LINUX_ACCELERATORS = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def may_have_gpu() -> bool:
    """Tell without torch, whose import takes a second, whether it is worth asking for a GPU."""
    return sys.platform != "linux" or any(Path(path).exists() for path in LINUX_ACCELERATORS)


def free_bytes(device: torch.device) -> int | None:
    """Return the memory of a CUDA device that is free or reserved by torch; None for others."""
    import torch

    if device.type != "cuda":
        return None
    reserved = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return int(torch.cuda.mem_get_info(device)[0] + reserved)


def is_device_shared(device: torch.device) -> bool:
    """Tell whether other processes hold a tenth or more of the memory of a CUDA device."""
    import torch

    if device.type != "cuda":
        return False
    free, total = torch.cuda.mem_get_info(device)
    return bool(total - free - torch.cuda.memory_reserved(device) > SHARED * total)


def set_seed(seed: int, device: torch.device) -> None:
    """Seed what draws on a device.

    `torch.manual_seed` also notes, with the stack, the seed of every kind of device that is not
    there: a third of a millisecond, which small models notice at each step.
    """
    import torch

    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def check_device(name: str | None) -> None:
    """Refuse a device that torch does not know or that is missing; None and "cpu" are fine.

    Raises:
        SettingsError: there is no such device.
    """
    if name is None or name == "cpu" or importlib.util.find_spec("torch") is None:
        return
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in DEVICES:
        raise SettingsError(f"device: must be cpu, cuda, cuda:1 or mps, got '{name}'")
    if device.type == "cuda":
        n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= n_gpus:
            raise SettingsError(
                f"device: '{name}' needs a CUDA GPU of that number, found {n_gpus} on this machine; leave it out"
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError(f"device: '{name}' needs an Apple GPU, found none; leave it out")


def use_device(name: str | None) -> None:
    """Make a GPU that is named by its number the one that torch takes where none is named.

    Raises:
        SettingsError: there is no such device.
    """
    check_device(name)
    if name is not None and name.startswith("cuda:"):
        import torch

        torch.cuda.set_device(name)
