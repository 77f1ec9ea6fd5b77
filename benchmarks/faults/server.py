"""A process that has imported everything, and forks for each command: a run costs no start.

Started with the library of faults.c preloaded. Reads one JSON object per line of its input:
{"arguments", "folder", "environment", "at", "action", "error", "trace", "stderr"}; answers with one
line: {"status": exit code, or -9 when the command was killed, "changes", "modules"}. The command
runs in a fork, with the faults armed for `folder`, as if the shell had started it.
"""

import ctypes
import errno
import gc
import importlib
import io
import json
import os
import sys
import tempfile
import traceback

PRELOADED = ctypes.CDLL(os.environ["LD_PRELOAD"])
PRELOADED.faults_count.restype = ctypes.c_long


def run_command(task, answer):
    """Run one command in a fork, and leave the process with its exit code."""
    from thresher.cli import main

    os.environ.update(task["environment"])
    tempfile.tempdir = None
    sys.stdin.close()
    errors = os.open(task["stderr"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(errors, 2)
    os.dup2(errors, 1)
    trace = os.open(task["trace"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND) if task["trace"] else -1
    sys.argv = ["thresher", *task["arguments"]]
    action, error = ord(task["action"] or "e"), getattr(errno, task["error"] or "EIO")
    PRELOADED.faults_arm(task["folder"].encode(), ctypes.c_long(task["at"]), action, error, trace)
    end = os._exit

    def leave(status):
        content = {"changes": PRELOADED.faults_count(), "modules": list(sys.modules) if task["trace"] else []}
        os.write(answer, json.dumps(content).encode())
        end(status)

    os._exit = leave  # as the command ends when it is done
    try:
        main.run()
    except BaseException:  # noqa: BLE001 - what the interpreter would do with it
        traceback.print_exc()
    leave(1)


def run_task(task):
    """Return how a command ended."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        run_command(task, writing)
    os.close(writing)
    with open(reading, "rb") as stream:
        answer = stream.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return {"status": status, **(json.loads(answer) if answer else {"changes": 0, "modules": []})}


def import_modules(names):
    """Import what a command had imported, so that the next fork has it already."""
    for name in names:
        if name not in sys.modules and name != "__main__":
            try:
                importlib.import_module(name)
            except Exception:  # noqa: BLE001 - made at run time, or no module of its own
                continue


def load_kernels():
    """Let numba read its registries and our compiled kernels: half of the time of a small run."""
    from numba.core.dispatcher import Dispatcher
    from numba.core.registry import cpu_target

    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
    modules = [module for name, module in list(sys.modules.items()) if name.startswith("thresher.")]
    for kernel in {value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)}:
        if not kernel.targetoptions.get("parallel"):  # these start threads, which no fork survives
            for signature, *_ in kernel._cache._cache_file._load_index():
                kernel.compile(signature)


def preheat():
    """Do once what a process of transformers and matplotlib does once: 0.5 s of each run."""
    if "transformers.conversion_mapping" in sys.modules:
        from transformers.conversion_mapping import get_checkpoint_conversion_mapping

        get_checkpoint_conversion_mapping("bert")
    if "matplotlib.figure" in sys.modules:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

        figure = Figure(layout="constrained")
        FigureCanvasAgg(figure)
        figure.add_subplot().plot([0, 1], [1, 2], label="-0.5")
        figure.savefig(io.BytesIO(), format="png")


def serve():
    """Answer until the input ends."""
    from thresher.cli.commands import VERBS

    import_modules(["thresher.cli.main", *(f"thresher.cli.{verb.home}" for verb in VERBS.values())])
    for line in sys.stdin:
        answer = run_task(json.loads(line))
        modules = answer.pop("modules")
        if modules:
            import_modules(modules)
            load_kernels()
            preheat()
            gc.collect()
            gc.freeze()  # a collection in a fork would copy every page
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
