"""A GPU that computes one batch while the host reads the last and prepares the next.

Work is launched batch by batch; its inputs and results travel through pinned memory without anybody
waiting for them. On other devices the same code computes at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from numpy.typing import NDArray

if TYPE_CHECKING:
    import torch

T = TypeVar("T")


def to_device_async(tensor: torch.Tensor, device: torch.device) -> torch.Tensor:
    """Return a tensor of the host on a device; on a GPU it is on its way when this returns."""
    if device.type != "cuda":
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


class PendingTensor:
    """A result that is being computed and copied to the host."""

    def __init__(self, result: torch.Tensor) -> None:
        """Ask for the copy; nothing waits for it on a GPU."""
        import torch

        self._arrived: torch.cuda.Event | None = None
        if result.device.type != "cuda":
            self._host = result.cpu()
            return
        self._host = torch.empty(result.shape, dtype=result.dtype, pin_memory=True)
        self._host.copy_(result, non_blocking=True)
        self._arrived = torch.cuda.Event()  # type: ignore[no-untyped-call]
        self._arrived.record(torch.cuda.current_stream(result.device))

    def array(self) -> NDArray[Any]:
        """Wait for the result and return it."""
        if self._arrived is not None:
            self._arrived.synchronize()
        array: NDArray[Any] = self._host.numpy()
        return array


def prefetch_one(launched: Iterable[T]) -> Iterator[T]:
    """Yield each item when the next one has been launched."""
    waiting: list[T] = []
    for item in launched:
        yield from waiting
        waiting = [item]
    yield from waiting
