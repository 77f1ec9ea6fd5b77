"""Devices by name, checked before any model is loaded."""

from __future__ import annotations

import importlib.util

from thresher.errors import SettingsError


def check_device(name: str | None) -> None:
    """Refuse a device that torch does not know or that is not there; None and "cpu" are always right.

    Raises:
        SettingsError: there is no such device.
    """
    if name is None or name == "cpu" or importlib.util.find_spec("torch") is None:
        return
    import torch

    try:
        device = torch.device(name)
    except RuntimeError:
        raise SettingsError(f"device: must be cpu, cuda, cuda:1 or mps, got '{name}'") from None
    if device.type == "cuda":
        n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= n_gpus:
            raise SettingsError(
                f"device: '{name}' must be one of the CUDA GPUs of this machine, found {n_gpus} of them"
            )
    elif device.type == "mps" and not torch.backends.mps.is_available():
        raise SettingsError(f"device: '{name}' needs an Apple GPU, found none; leave it out")
