"""Telling people that kernels are compiled: it takes some seconds, once per installation."""

from __future__ import annotations

from collections.abc import Callable

COMPILING = "compiling kernels, once for this installation: 2 to 20 s (`thresher warm-up` does it beforehand)"

_tell: Callable[[str], None] | None = None


def announce_compilation(tell: Callable[[str], None]) -> None:
    """Have the first compilation of this process told; call it before a kernel is imported."""
    global _tell
    _tell = tell


def take_listener() -> Callable[[str], None] | None:
    """Return who is to be told, and forget them: one sentence is enough."""
    global _tell
    tell, _tell = _tell, None
    return tell
