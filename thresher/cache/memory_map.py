"""Arrays that may be larger than memory: in a file without a name, used through its pages."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from thresher.errors import OutputError

MAPPED_BYTES = 256 << 20  # smaller arrays are in memory


def empty_array(shape: tuple[int, ...], dtype: DTypeLike, folder: Path | None) -> NDArray[Any]:
    """Return an array to fill; a large one lies in a file, whose pages the system may write back.

    Args:
        shape: of the array.
        dtype: of its entries.
        folder: where the file may be, for example of the cache that gets the same values; None for
            memory in any case. The file has no name, and is gone when the array is, or the process,
            however it ends.

    Raises:
        OutputError: there is no room for the file.
    """
    n_bytes = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    if folder is None or n_bytes < MAPPED_BYTES:
        return np.empty(shape, dtype)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            # without it, a full disk would end the process at the first touch
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), 0, n_bytes)
            return np.asarray(np.memmap(file, dtype=dtype, mode="w+", shape=shape))
    except OSError as error:
        raise OutputError(
            f"{folder}: {n_bytes / 1e9:.1f} GB of room are required for the features of this run, got "
            f"'{error.strerror}'; free space there, or point THRESHER_CACHE to another folder"
        ) from None
