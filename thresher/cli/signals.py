"""Ctrl-C and SIGTERM: one sentence and an exit code, from the first import on.

Imports nothing but the standard library's smallest, so that a signal during the imports of the
command is met, too.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
_received: list[int] = []


def exit_on_signals() -> None:
    """Leave at once on a signal: nothing has begun, and nothing is to be cleared up."""
    _handle(_exit)


def unwind_on_signals() -> None:
    """Leave as by an error from now on, so that locks and temporary files are cleared up."""
    _handle(_unwind)


def find_received() -> int | None:
    """Return the exit code of the signal that came, or None."""
    return 128 + _received[0] if _received else None


def describe_signal(code: int) -> str:
    """Return the sentence for the exit code of a signal."""
    return f"{_WORDS[signal.Signals(code - 128)]}; run the same command again to resume"


def _handle(handler: object) -> None:
    for number in _WORDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # as nohup wants it
            signal.signal(number, handler)  # type: ignore[arg-type]


def _exit(number: int, _: FrameType | None) -> None:
    sentence, code = describe_signal(128 + number), 128 + number
    if "--log-json" in sys.argv:
        sentence = f'{{"level": "error", "event": "error", "message": "{sentence}", "exit_code": {code}}}'
    os.write(2, f"{sentence}\n".encode())
    os._exit(code)


def _unwind(number: int, _: FrameType | None) -> None:
    _received.append(number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    raise SystemExit(128 + number)
