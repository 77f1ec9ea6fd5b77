"""Commands as processes that start at once: `fork_server.py` forks them."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

HERE = Path(__file__).parent
# A `thresher` and a `python` that ask the server and start in 20 ms. It ends as the fork does, and
# the fork ends when it is killed.
PROGRAM = """#!{python} -IS
import json, os, signal, socket, sys

def is_open(number):
    try:
        os.fstat(number)
    except OSError:
        return False
    return True

files = [number for number in range(64) if is_open(number)]
task = {{"words": sys.argv[1:], "files": files, "folder": os.getcwd(), "environment": dict(os.environ)}}
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
socket.send_fds(connection, [json.dumps(task).encode() + b"\\n"], files)
for number in files[3:]:
    os.close(number)
_, status = connection.makefile().read().split()
if int(status) < 0:
    os.kill(os.getpid(), -int(status))
    signal.pause()
os._exit(int(status))
"""


class Fork:
    """A process of the server, with what tests use of `subprocess.Popen`."""

    def __init__(self, pid: int, stdout: IO[str], stderr: IO[str], connection: socket.socket, answers: IO[str]) -> None:
        self.pid, self.returncode = pid, None
        self._streams, self._connection, self._answers = (stdout, stderr), connection, answers

    def poll(self) -> int | None:
        """Return the exit code, or None while it runs."""
        if self.returncode is None and select.select([self._connection], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self) -> int:
        """Wait for the end, and return the exit code."""
        if self.returncode is None:
            self.returncode = int(self._answers.readline())
            self._answers.close()
            self._connection.close()
        return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it at once."""
        self.send_signal(signal.SIGKILL)

    def communicate(self) -> tuple[str, str]:
        """Wait for the end, and return what it wrote to stdout and stderr."""
        self.wait()
        written = []
        for stream in self._streams:
            with stream:
                stream.seek(0)
                written.append(stream.read())
        return written[0], written[1]


class ForkServer:
    """The server; a context manager.

    Args:
        folder: for its socket.
        general: files that forgetting is measured on instead of the embedded ones.

    Attributes:
        program: runs what `thresher` would run, or `python -c`, or `python -m`, in a fork.
    """

    def __init__(self, folder: Path, general: Sequence[Path] = ()) -> None:
        self._address, self.program = str(folder / "socket"), folder / "thresher"
        self.program.write_text(PROGRAM.format(python=sys.executable, address=self._address))
        self.program.chmod(0o755)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, HERE / "fork_server.py", self._address, self.program, *general],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, which ends it

    def start(
        self, words: Sequence[object], *, folder: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> Fork:
        """Start a command of thresher, or code with its arguments.

        Args:
            words: of the command; ["-c", code, ...] and ["-m", module, ...] as for Python.
            folder: where it runs; ours, if None.
            environment: added to ours.
        """
        ours = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        where = str(folder or Path.cwd())
        task = {"words": list(map(str, words)), "files": [0, 1, 2], "folder": where, "environment": ours}
        streams = [tempfile.TemporaryFile("w+", errors="replace") for _ in range(2)]  # noqa: SIM115 - of the fork
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        with open(os.devnull) as nothing:
            files = [one.fileno() for one in (nothing, *streams)]
            socket.send_fds(connection, [json.dumps(task).encode() + b"\n"], files)
        answers = connection.makefile()
        return Fork(int(answers.readline()), streams[0], streams[1], connection, answers)

    def run(self, words: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end; takes what `start` takes."""
        process = self.start(words, **options)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(list(words), process.wait(), stdout, stderr)
