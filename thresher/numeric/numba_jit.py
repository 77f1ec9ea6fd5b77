"""Typed forms of numba's `njit`: compiled once, kept on disk, without the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit
from numba.core import event
from numba.core.dispatcher import Dispatcher

from thresher.numeric.compilation import COMPILING, take_listener

F = TypeVar("F", bound=Callable[..., Any])
# nobody calls a kernel from C: the way in for that need not be compiled
OPTIONS = {"cache": True, "nogil": True, "no_cfunc_wrapper": True}


def jit(function: F) -> F:
    """Compile a function with strict floating-point order."""
    return cast("F", njit(**OPTIONS)(function))


def jit_part(function: F) -> F:
    """Compile a part of kernels: the way in from Python, which takes much of the time, is left out.

    Only functions that are compiled, too, may call it: a call from Python ends the process with a
    segmentation fault, and no exception. `tests/numeric/test_jit_part.py` looks for such calls.
    """
    return cast("F", njit(**OPTIONS, no_cpython_wrapper=True)(function))


def jit_fastmath(function: F) -> F:
    """Compile a function whose float sums may be reordered to use vector instructions."""
    return cast("F", njit(**OPTIONS, fastmath=True)(function))


def get_uncompiled(function: F) -> F:
    """Return the Python function that a kernel is made of: for few rows, that is the faster."""
    return cast("F", function.py_func) if isinstance(function, Dispatcher) else function


class _Announcer(event.Listener):  # type: ignore[misc]
    """Tells of the first kernel that is compiled and not read from the disk."""

    def on_start(self, event: Any) -> None:
        """Tell whoever listens, once."""
        tell = take_listener()
        if tell is not None:
            tell(COMPILING)

    def on_end(self, event: Any) -> None:
        """Do nothing."""


event.register("numba:compile", _Announcer())
