"""Typed forms of numba's `njit`: compiled once, kept on disk, without the interpreter lock."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, cast

from numba import njit

F = TypeVar("F", bound=Callable[..., Any])


def jit(function: F) -> F:
    """Compile a function with strict floating-point order."""
    return cast("F", njit(cache=True, nogil=True)(function))


def jit_fastmath(function: F) -> F:
    """Compile a function whose float sums may be reordered to use vector instructions."""
    return cast("F", njit(cache=True, nogil=True, fastmath=True)(function))
