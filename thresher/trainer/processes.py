"""The processes of `accelerate launch` or `torchrun`: one, or several that share each step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from thresher.trainer.base import wants_bf16
from thresher.trainer.settings import TrainSettings

Item = TypeVar("Item")


def open_accelerator(settings: TrainSettings) -> Any:
    """Return accelerate's Accelerator for the processes and devices that the launcher gave us."""
    from accelerate import Accelerator
    from accelerate.state import AcceleratorState
    from accelerate.utils import GradientAccumulationPlugin

    # one process may train in float32 and then in bfloat16; the state that is shared by all Accelerators refuses that
    AcceleratorState._reset_state(reset_partial_state=False)
    return Accelerator(
        mixed_precision="bf16" if wants_bf16(settings.precision) else "no",
        # the loop weighs its pieces itself; a number from the launcher's configuration would scale the gradients again
        gradient_accumulation_plugin=GradientAccumulationPlugin(num_steps=1),
    )


def from_main(value: Any) -> Any:
    """Return the main process's value on all processes."""
    from accelerate.utils import broadcast_object_list

    box = [value]
    broadcast_object_list(box)
    return box[0]


def share(items: Sequence[Item], accelerator: Any) -> list[Item]:
    """Return this process's items: every n-th, from its rank on."""
    return list(items[accelerator.process_index :: accelerator.num_processes])


def gather(results: list[Item], accelerator: Any) -> list[Item]:
    """Return the results of all processes, in the order of the items that `share` dealt out."""
    if accelerator.num_processes == 1:
        return results
    from accelerate.utils import gather_object

    shares = gather_object([results])
    whole: list[Any] = [None] * sum(len(part) for part in shares)
    for rank, part in enumerate(shares):
        whole[rank :: len(shares)] = part
    return whole
