"""Run a command on each of many folders in a process of its own, with limits of time and memory.

Reads a JSON list of [name, arguments] from standard input, and writes a JSON object of name ->
[exit code, seconds of processor time, megabytes, standard error] to standard output. The processes
are forked from one that has imported what takes long; an exit code below 0 is the signal that ended
one.
"""

import contextlib
import io
import json
import os
import resource
import signal
import sys
import tempfile
import traceback
from pathlib import Path

SECONDS = 900  # of waiting: other work on the machine counts
MEGABYTES = 3000  # of address space beyond what the imports take


def main():
    """Run all cases."""
    import peft  # noqa: F401
    import sentence_transformers  # noqa: F401
    import transformers  # noqa: F401
    from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401

    import thresher.cli.main  # noqa: F401
    from thresher.cli.commands import build_app

    build_app()  # imports all commands

    results = {}
    for name, arguments in json.load(sys.stdin):
        results[name] = run_limited(arguments)
        print(name, results[name][:3], results[name][3][-300:].strip(), file=sys.stderr, flush=True)
    json.dump(results, sys.stdout)


def run_limited(arguments):
    with tempfile.TemporaryFile() as errors:
        child = os.fork()
        if child == 0:
            run_here(arguments, errors)
        _, status, usage = os.wait4(child, 0)
        seconds = usage.ru_utime + usage.ru_stime
        errors.seek(0)
        return [
            os.waitstatus_to_exitcode(status),
            seconds,
            usage.ru_maxrss / 1024,
            errors.read().decode(errors="replace"),
        ]


def run_here(arguments, errors):
    """Run the command in a forked process, and leave."""
    os.setsid()
    os.dup2(errors.fileno(), 2)
    signal.alarm(SECONDS)
    mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (mapped + (MEGABYTES << 20),) * 2)
    code = 1
    try:
        from thresher.cli.main import main as thresher
        from thresher.models.untrusted.client import Worker

        with contextlib.redirect_stdout(io.StringIO()):
            code = thresher(arguments)
        Worker.stop()
    except BaseException:  # noqa: BLE001 - shown, and not 2
        traceback.print_exc()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
