"""Ask the process with limits: one for this process, started when it is needed first."""

from __future__ import annotations

import atexit
import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from contextlib import suppress
from typing import Any, ClassVar

from thresher.models.untrusted.worker import MEMORY_KEY, SECONDS_KEY, SIZE, Answer

MEGABYTE = 1 << 20
STARTUP_SECONDS = 120  # of waiting, not of work: on a busy machine imports take long


class LimitError(Exception):
    """What was asked took more than its share; the text says of what."""


class Worker:
    """A process that answers one request at a time."""

    _current: ClassVar[Worker | None] = None
    _lock: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self) -> None:
        """Start the process. It is in a group of its own: Ctrl-C is for the one that asks."""
        self.owner = os.getpid()
        self._process = subprocess.Popen(
            # -P: the folder that the user is in holds data, not modules
            [sys.executable, "-P", "-m", "thresher.models.untrusted.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            env={**os.environ, "TOKENIZERS_PARALLELISM": "false", "TRANSFORMERS_VERBOSITY": "error"},
        )

    def ask(self, request: dict[str, Any], *, seconds: float) -> Answer:
        """Send a request and wait for its answer.

        Raises:
            LimitError: the process ended first.
        """
        content = pickle.dumps(request)
        pipes = self._process
        assert pipes.stdin is not None
        assert pipes.stdout is not None
        try:
            pipes.stdin.write(SIZE.pack(len(content)) + content)
            pipes.stdin.flush()
            wait = STARTUP_SECONDS + 10 * seconds
            (n_bytes,) = SIZE.unpack(self._read(SIZE.size, wait))
            answer: Answer = json.loads(self._read(n_bytes, wait))
        except (BrokenPipeError, EOFError):
            raise LimitError(self._explain_end(seconds)) from None
        return answer

    def _read(self, n_bytes: int, wait: float) -> bytes:
        assert self._process.stdout is not None
        descriptor = self._process.stdout.fileno()
        parts: list[bytes] = []
        while n_bytes:
            ready, _, _ = select.select([descriptor], [], [], wait)
            part = os.read(descriptor, n_bytes) if ready else b""
            if not part:
                raise EOFError
            parts.append(part)
            n_bytes -= len(part)
        return b"".join(parts)

    def _explain_end(self, seconds: float) -> str:
        try:
            code = self._process.wait(timeout=1)
        except subprocess.TimeoutExpired:
            code = -signal.SIGPROF  # it neither works nor ends
        if code == -signal.SIGPROF:
            return f"took more than {seconds:g} s"
        return "exceeded its memory limit" if code == -signal.SIGABRT else f"ended its process with code {code}"

    def close(self) -> None:
        """End the process."""
        if self.owner != os.getpid():
            return  # a forked process has no part in it
        self._process.kill()
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                # what it did not read any more is of no use
                with suppress(BrokenPipeError):
                    pipe.close()

    @classmethod
    def shared(cls) -> Worker:
        """Return the worker of this process."""
        if cls._current is None or cls._current.owner != os.getpid():
            cls._current = cls()
        return cls._current

    @classmethod
    def stop(cls) -> None:
        """End the worker of this process, if there is one."""
        if cls._current is not None:
            cls._current.close()
            cls._current = None


def ask(kind: str, *, seconds: float, megabytes: int, **content: Any) -> Answer:
    """Do something within limits, in another process.

    Args:
        kind: which task of `worker.py`.
        seconds: of processor time.
        megabytes: of memory, beyond what the process has.
        content: of the request.

    Returns:
        The answer; with "error" (the name of a class) and "message" where it raised.

    Raises:
        LimitError: it took more than that.
    """
    request = {"kind": kind, SECONDS_KEY: seconds, MEMORY_KEY: megabytes * MEGABYTE, **content}
    with Worker._lock:
        try:
            answer = Worker.shared().ask(request, seconds=seconds)
        except BaseException:
            Worker.stop()  # ended, or not read to the end of its answer
            raise
    if answer.get("problem") == "memory":
        raise LimitError(f"took more than {megabytes} MB of memory")
    if answer.get("problem") == "size":
        raise LimitError("produced a text much longer than its input")
    return answer


atexit.register(Worker.stop)
