"""In which precision models run, and float32 products in float32.

torch may round factors where a process has asked for speed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thresher.errors import InputError

if TYPE_CHECKING:
    import torch

# Root mean square of a difference of logits, in their standard deviations, that rounding may make.
ROUNDING = 1e-3
ROUNDING_16 = 0.05  # of 16 bits; a token may then go to another expert of a mixture
CPU_INFO = Path("/proc/cpuinfo")
# how Linux names the instructions, on x86 and on Arm
NATIVE_BFLOAT16 = frozenset({"avx512_bf16", "amx_bf16", "bf16", "svebf16"})
SMALL_BYTES = 50 * 10**6  # of weights on the disk


@cache
def multiplies_bfloat16() -> bool:
    """Tell whether this processor multiplies bfloat16 natively, 2 to 4 times as fast as float32.

    By its flags, not by a clock: the precision is part of what values are cached under, and must
    not change with the load of the machine. Where the system does not tell, it does not.
    """
    try:
        text = CPU_INFO.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    lines = (line.partition(":") for line in text.splitlines())
    flags = {flag for name, _, value in lines if name.strip() in ("flags", "Features") for flag in value.split()}
    return bool(flags & NATIVE_BFLOAT16)


def gains_from_bfloat16(folder: Path) -> bool:
    """Tell whether a model runs in bfloat16 on this processor where nobody asks for a precision.

    Small models stay in float32, which is soon done with them.

    Args:
        folder: of its weights.
    """
    n_bytes = sum(path.stat().st_size for path in folder.glob("*.safetensors"))
    return n_bytes > SMALL_BYTES and multiplies_bfloat16()


@contextmanager
def full_precision() -> Iterator[None]:
    """Keep torch from rounding float32 in matrix products, whatever the process has set.

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


@contextmanager
def inference(batch: str) -> Iterator[None]:
    """Run a model without gradients and in full precision.

    Args:
        batch: what it reads, for the message where that does not fit the device.

    Raises:
        InputError: the device's memory is too small.
    """
    with exact_inference(
        f"{batch} must fit the device's memory and does not; set batch_tokens lower, or use another device"
    ):
        yield


@contextmanager
def exact_inference(problem: str) -> Iterator[None]:
    """Keep torch to full precision without gradients, and raise `problem` where memory is short.

    Raises:
        InputError: the device's memory is too small.
    """
    import torch

    try:
        with torch.inference_mode(), full_precision():
            yield
    except torch.OutOfMemoryError:
        raise InputError(problem) from None


def same_logits(one: torch.Tensor, other: torch.Tensor, *, itemsize: int) -> bool:
    """Tell whether logits of the same tokens, read in two ways, differ by rounding only.

    Args:
        one: of any shape, float32.
        other: of the same shape.
        itemsize: bytes of a number of the model that made them.
    """
    difference = (one - other).square().mean().sqrt()
    return not bool(difference > (ROUNDING if itemsize >= 4 else ROUNDING_16) * one.std())
