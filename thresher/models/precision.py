"""Float32 products in float32: torch may round factors to TF32 or bfloat16 where a process has asked for speed."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

# Root mean square of a difference of logits, in their standard deviations, that rounding may make.
ROUNDING = 1e-3
ROUNDING_16 = 0.05  # of 16 bits; a token may then go to another expert of a mixture


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep torch from rounding float32 in matrix products, whatever the process has set and by whichever interface.

    torch 2.9 has a setting per backend beside its older ones, and refuses to read the older ones
    once the newer ones have been written; the newer ones show both.
    """
    import torch

    cuda: Any = torch.backends.cuda
    cpu: Any = torch.backends.mkldnn
    products = (cuda.matmul, cpu.matmul)
    before = [each.fp32_precision for each in products]
    for each in products:
        each.fp32_precision = "ieee"
    try:
        yield
    finally:
        for each, precision in zip(products, before, strict=True):
            each.fp32_precision = precision


def same_logits(one: torch.Tensor, other: torch.Tensor, *, itemsize: int) -> bool:
    """Tell whether logits of the same tokens, read in two ways, differ by rounding only.

    Args:
        one: of any shape, float32.
        other: of the same shape.
        itemsize: bytes of a number of the model that made them.
    """
    difference = (one - other).square().mean().sqrt()
    return not bool(difference > (ROUNDING if itemsize >= 4 else ROUNDING_16) * one.std())
