"""The other side of `server.py`: builds the library, starts the process, runs commands in it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).parent


class UnavailableError(Exception):
    """Faults cannot be injected here; the message says why."""


@dataclass(frozen=True)
class Fault:
    """What happens at one change of the files.

    Attributes:
        name: of the fault.
        action: as in faults.c.
        error: name of the errno.
    """

    name: str
    action: str
    error: str


FAULTS = {
    "full": Fault("full", "f", "ENOSPC"),  # from there on, as a disk is
    "error": Fault("error", "e", "EIO"),  # of this one call
    "kill": Fault("kill", "k", "EIO"),
}


@dataclass(frozen=True)
class Ending:
    """How a command ended.

    Attributes:
        status: its exit code; -9 when it was killed.
        changes: changes of files that it came to.
        output: what it wrote to stdout and stderr.
    """

    status: int
    changes: int
    output: str


def build_library(folder: Path) -> Path:
    """Compile faults.c.

    Raises:
        UnavailableError: this is not Linux, or there is no compiler.
    """
    if not sys.platform.startswith("linux"):
        raise UnavailableError("faults are injected by a preloaded library, which needs Linux")
    compiler = shutil.which(os.environ.get("CC", "cc")) or shutil.which("gcc")
    if compiler is None:
        raise UnavailableError("faults are injected by a preloaded library, which needs a C compiler; found none")
    library = folder / "faults.so"
    subprocess.run([compiler, "-O2", "-shared", "-fPIC", "-o", library, HERE / "faults.c", "-ldl"], check=True)
    return library


class ForkServer:
    """A process that has everything imported and runs each command in a fork. A context manager."""

    def __init__(self, scratch: Path) -> None:
        self._scratch = scratch
        environment = {**os.environ, "LD_PRELOAD": str(build_library(scratch)), "OMP_NUM_THREADS": "1"}
        environment |= {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
        self._process = subprocess.Popen(
            [sys.executable, HERE / "server.py"],
            env=environment,
            cwd=HERE.parents[1],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def __enter__(self) -> ForkServer:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()  # closes its input, which ends it

    def run(
        self, arguments: list[str], folder: Path, *, at: int = 0, fault: Fault | None = None, trace: Path | None = None
    ) -> Ending:
        """Run a command with the cache and temporary files in `folder`, whose changes count.

        Args:
            arguments: of thresher.
            folder: whose changes count.
            at: the number of the change where the fault happens, from 1; 0 for none.
            fault: what happens there.
            trace: file for a line per change: kind, path, other path.
        """
        for name in ("cache", "tmp"):
            (folder / name).mkdir(exist_ok=True, parents=True)
        errors = self._scratch / "stderr"
        task = {
            "arguments": arguments,
            "folder": str(folder),
            "environment": {"THRESHER_CACHE": str(folder / "cache"), "TMPDIR": str(folder / "tmp")},
            "at": at,
            "action": fault and fault.action,
            "error": fault and fault.error,
            "trace": trace and str(trace),
            "stderr": str(errors),
        }
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(task) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return Ending(answer["status"], answer["changes"], errors.read_text(errors="replace"))
