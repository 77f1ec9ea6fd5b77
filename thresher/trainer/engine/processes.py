"""The processes of `accelerate launch` or `torchrun`: one, or several that share each step."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from thresher.errors import OutputError, SettingsError
from thresher.models.device import use_device
from thresher.trainer.settings import TrainSettings

Item = TypeVar("Item")

SHARDING = {  # way of dividing a model -> the variable by which accelerate's launcher asks for it
    "FSDP": "ACCELERATE_USE_FSDP",
    "DeepSpeed": "ACCELERATE_USE_DEEPSPEED",
    "Megatron-LM": "ACCELERATE_USE_MEGATRON_LM",
}


def open_accelerator(settings: TrainSettings) -> Any:
    """Return accelerate's Accelerator for the processes and devices that the launcher gave us.

    Raises:
        SettingsError: the launcher's configuration divides the model among the processes, or a
            device is chosen where the launcher gives one to each process.
    """
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin, parse_flag_from_env

    for name, flag in SHARDING.items():
        if parse_flag_from_env(flag):
            raise SettingsError(
                f"train: each process holds the whole base model, and the launcher asks for {name}, which divides it; "
                f"launch with --multi_gpu or on one GPU (load_in_4bit and gradient_checkpointing save memory)"
            )
    n_processes = int(os.environ.get("WORLD_SIZE", "1"))
    if settings.device is not None and n_processes > 1:
        raise SettingsError(
            f"train: device must be left to the launcher, which gives each of its {n_processes} processes one, got "
            f"'{settings.device}'; leave it out"
        )
    # one process may train in float32 and then in bfloat16, or on a CPU after a GPU; the state that
    # is shared by all Accelerators refuses that
    AcceleratorState._reset_state(reset_partial_state=n_processes == 1)
    use_device(settings.device)
    return Accelerator(
        cpu=settings.device == "cpu",
        mixed_precision="bf16" if settings.precision == "bf16" else "no",
        # the loop weighs its pieces itself; a number from the launcher's configuration would scale
        # the gradients again
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )


def broadcast_from_main(value: Any) -> Any:
    """Return the main process's value on all processes."""
    from accelerate.utils import broadcast_object_list

    box = [value]
    broadcast_object_list(box)
    return box[0]


def require_shared(folder: Path, accelerator: Any) -> None:
    """Make sure that all processes see the folder of the main one, where checkpoints are read from.

    Raises:
        OutputError: at least one process does not, as on nodes without shared storage.
    """
    if accelerator.num_processes == 1:
        return
    from accelerate.utils import gather_object

    blind = [rank for rank, sees in enumerate(gather_object([folder.is_dir()])) if not sees]
    if blind:
        raise OutputError(
            f"{folder}: all processes must see the output folder, and {len(blind)} of {accelerator.num_processes} do "
            f"not (first: rank {blind[0]}); choose an --out on storage that all nodes share"
        )


def take_share(items: Sequence[Item], accelerator: Any) -> list[Item]:
    """Return this process's items: every n-th, from its rank on."""
    return list(items[accelerator.process_index :: accelerator.num_processes])


def gather_results(results: list[Item], accelerator: Any) -> list[Item]:
    """Return the results of all processes, in the order of the items before `take_share`."""
    if accelerator.num_processes == 1:
        return results
    from accelerate.utils import gather_object

    shares = gather_object([results])
    whole: list[Any] = [None] * sum(len(part) for part in shares)
    for rank, part in enumerate(shares):
        whole[rank :: len(shares)] = part
    return whole
