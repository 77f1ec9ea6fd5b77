"""How the process of a command ends: at once, when everything is written and said.

Python takes seconds to take down torch, polars and their like. A signal in that time would turn the
exit code of a command that is done into that of one that was ended.
"""

from __future__ import annotations

import atexit
import os
import signal
import sys
from contextlib import suppress
from typing import NoReturn

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)]

_is_command = False


def begin() -> None:
    """Note that this process is a command, and not one that calls `main` and lives on."""
    global _is_command
    _is_command = True


def hold_signals() -> None:
    """Let no signal but a kill come between what a command has said and its exit code."""
    if _is_command:
        for number in SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def leave(code: int) -> NoReturn:
    """End this process with an exit code: clear up, flush, and skip the interpreter's teardown.

    What was registered for the exit runs: temporary folders, child processes, Ray. Processes of one
    training leave in the usual way, since they may still hear from each other.
    """
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        sys.exit(code)
    hold_signals()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # its reader has gone, or it is closed
            stream.flush()
    os._exit(code)
