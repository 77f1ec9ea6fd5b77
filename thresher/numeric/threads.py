"""How many threads this process may use for computing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any

# folders of the libraries of numpy and scipy
OWNERS = {"numpy", "numpy.libs", "scipy", "scipy.libs"}


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
    the first thread that is inside sets it, and the last that leaves restores what was before.
    """
    _limit.enter()
    try:
        yield
    finally:
        _limit.leave()


class _Limit:
    """One thread for products, as long as anybody is inside."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._n_inside = 0
        self._before: list[int] = []

    def enter(self) -> None:
        with self._lock:
            libraries = _find_blas().lib_controllers
            if not self._n_inside:
                self._before = [library.num_threads for library in libraries]
                _set_threads([1] * len(libraries))
            self._n_inside += 1

    def leave(self) -> None:
        with self._lock:
            self._n_inside -= 1
            if not self._n_inside:
                _set_threads(self._before)


_limit = _Limit()


def _set_threads(numbers: list[int]) -> None:
    """Set the threads of each library.

    Newer versions of threadpoolctl ignore all threads but the one that set them last, until that
    one gives it up; here, who leaves last need not be who came first.
    """
    _release_blas()
    for library, number in zip(_find_blas().lib_controllers, numbers, strict=True):
        library.set_num_threads(number)
    _release_blas()


def _release_blas() -> None:
    """Let any thread set the threads of OpenBLAS, as all did in older versions of threadpoolctl."""
    from threadpoolctl import OpenBLASController

    if hasattr(OpenBLASController, "clear_controlling_thread"):
        OpenBLASController.clear_controlling_thread(force=True)


@cache
def _find_blas() -> Any:
    """Return the BLAS libraries of numpy and scipy; finding them takes milliseconds.

    Others, such as that of faiss, may be loaded or not, and may count threads for each thread.
    """
    import scipy.linalg  # noqa: F401  (loads the second of them)
    from threadpoolctl import ThreadpoolController

    every = ThreadpoolController().select(user_api="blas")
    paths = [library.filepath for library in every.lib_controllers]
    own = [path for path in paths if OWNERS & set(Path(path).parts[-3:-1])]
    # where the system has one BLAS for all, it is in the folder of neither
    return every.select(filepath=own or paths)
