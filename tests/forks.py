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
# a `thresher` that asks the server; it starts in 20 ms
SHIM = """#!{python} -IS
import json, os, socket, sys
if sys.argv[1:2] == ["-c"]:
    code, arguments = sys.argv[2], sys.argv[3:]
else:
    code, arguments = None, sys.argv[1:]
task = {{"arguments": arguments, "code": code, "folder": os.getcwd(), "environment": dict(os.environ)}}
connection = socket.socket(socket.AF_UNIX)
connection.connect({address!r})
socket.send_fds(connection, [json.dumps(task).encode()], [0, 1, 2])
process, status = connection.makefile().read().split()
os._exit(int(status) if int(status) >= 0 else 128 - int(status))
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
    """

    def __init__(self, folder: Path, general: Sequence[Path] = ()) -> None:
        self._address, self._folder = str(folder / "socket"), folder
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, HERE / "fork_server.py", self._address, *general],
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

    def write_command(self, path: Path) -> Path:
        """Write a program that runs in a fork what `thresher`, or `python -c`, would run."""
        path.write_text(SHIM.format(python=sys.executable, address=self._address))
        path.chmod(0o755)
        return path

    def start(
        self,
        arguments: Sequence[object],
        *,
        code: str | None = None,
        folder: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> Fork:
        """Start a command of thresher, or code with arguments; `environment` is added to ours."""
        ours = {**os.environ, "OMP_NUM_THREADS": "1", **(environment or {})}
        task = {
            "arguments": list(map(str, arguments)),
            "code": code,
            "folder": str(folder or Path.cwd()),
            "environment": ours,
        }
        streams = [tempfile.TemporaryFile("w+", errors="replace") for _ in range(2)]  # noqa: SIM115 - of the fork
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(self._address)
        with open(os.devnull) as nothing:
            socket.send_fds(connection, [json.dumps(task).encode()], [one.fileno() for one in (nothing, *streams)])
        answers = connection.makefile()
        return Fork(int(answers.readline()), *streams, connection, answers)

    def run(self, arguments: Sequence[object], **options: Any) -> subprocess.CompletedProcess[str]:
        """Run a command, or code, to its end; takes what `start` takes."""
        process = self.start(arguments, **options)
        stdout, stderr = process.communicate()
        return subprocess.CompletedProcess(list(arguments), process.wait(), stdout, stderr)
