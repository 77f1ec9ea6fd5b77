"""How many threads this process may use for computing."""

from __future__ import annotations

import os


def count_cores() -> int:
    """Return the cores that this process may run on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def count_threads() -> int:
    """Return OMP_NUM_THREADS where it is set, as other libraries do, else the number of cores.

    Asking numba would start its threads, which also sets the number that torch uses.
    """
    setting = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(setting)) if setting.isdigit() else count_cores()
