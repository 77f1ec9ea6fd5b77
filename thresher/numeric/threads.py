"""How many threads this process may use for computing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any


def count_cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_threads() -> int:
    """Return OMP_NUM_THREADS where it is set, as other libraries do, else the number of cores.

    Asking numba would start its threads, which also sets the number that torch uses.
    """
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(setting)) if setting.isdigit() else count_cores()


@contextmanager
def limit_blas() -> Iterator[None]:
    """Let matrix products use one thread, for what makes thousands of small ones in a row.

    The threads of a product wait for each other in a busy loop, numpy and scipy have separate ones,
    and where another process needs a core, a small product takes ten times as long as on one
    thread. Sums also have the same order on any number of cores. The limit is that of the process:
    one thread at a time may be inside.
    """
    with _find_blas().limit(limits=1):
        yield


@cache
def _find_blas() -> Any:
    """Return the BLAS libraries of numpy and scipy; finding them takes milliseconds."""
    import scipy.linalg  # noqa: F401  (loads the second of them)
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController().select(user_api="blas")
