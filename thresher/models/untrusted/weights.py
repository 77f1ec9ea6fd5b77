"""The headers of safetensors: which tensors a file says it holds, and whether it can.

A file is 8 bytes of the header's length, the header as JSON, and the tensors without gaps
(github.com/huggingface/safetensors, "Format").
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thresher.errors import InputError

MAX_HEADER_BYTES = 100_000_000  # as the library has it
BITS = {
    **dict.fromkeys(("F4", "F6_E2M3", "F6_E3M2"), 0),  # packed: counted by their bytes
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("I16", "U16", "F16", "BF16"), 16),
    **dict.fromkeys(("I32", "U32", "F32"), 32),
    **dict.fromkeys(("I64", "U64", "F64", "C64"), 64),
}


@dataclass(frozen=True)
class Weights:
    """What the files of a model hold.

    Attributes:
        shapes: of each tensor that has numbers, by name.
        n_bytes: of all files.
    """

    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    n_bytes: int = 0

    @property
    def n_numbers(self) -> int:
        """How many numbers all tensors have."""
        return sum(math.prod(shape) for shape in self.shapes.values())

    @property
    def widest(self) -> int:
        """The largest dimension of any tensor."""
        return max((size for shape in self.shapes.values() for size in shape), default=0)


def read_weights(paths: Sequence[Path], *, owner: str) -> Weights:
    """Read the headers of safetensors files.

    Raises:
        InputError: a header is damaged, or tells of other tensors than the file can hold.
    """
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        try:
            shapes |= _read_header(path)
        except (ValueError, TypeError, KeyError, RecursionError, OSError) as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            raise InputError(
                f"{owner}: {path.name} must be a whole safetensors file, found that {reason[:200]}; copy it again"
            ) from None
    return Weights(shapes, sum(path.stat().st_size for path in paths))


def _read_header(path: Path) -> dict[str, tuple[int, ...]]:
    n_file = path.stat().st_size
    with path.open("rb") as file:
        head = file.read(8)
        if len(head) < 8:
            raise ValueError("it is shorter than a header")
        (n_header,) = struct.unpack("<Q", head)
        if n_header > min(MAX_HEADER_BYTES, n_file - 8):
            raise ValueError(f"its header should have {n_header} bytes, and the file has {n_file}")
        header = json.loads(file.read(n_header))
    if not isinstance(header, dict):
        raise ValueError("its header is no object")
    header.pop("__metadata__", None)
    spans = sorted(_check_tensor(name, about) for name, about in header.items())
    place = 0
    for start, end in spans:
        if start != place:
            raise ValueError("its tensors overlap or leave gaps")
        place = end
    if place != n_file - 8 - n_header:
        raise ValueError(f"its tensors should have {place} bytes, and {n_file - 8 - n_header} are there")
    return {name: tuple(about["shape"]) for name, about in header.items() if 0 not in about["shape"]}


def _check_tensor(name: str, about: Any) -> tuple[int, int]:
    """Return where a tensor begins and ends."""
    shape, (start, end), kind = about["shape"], about["data_offsets"], about["dtype"]
    if kind not in BITS or not all(type(size) is int and size >= 0 for size in (*shape, start, end)) or end < start:
        raise ValueError(f"the tensor '{name[:80]}' has an unknown type, or sizes that are no numbers from 0 on")
    if BITS[kind] and math.prod(shape) * BITS[kind] != 8 * (end - start):
        raise ValueError(f"the tensor '{name[:80]}' of shape {shape[:8]} does not fit its {end - start} bytes")
    return start, end
