"""A process that has imported what commands need, and forks for each: a start costs no imports.

    python tests/fork_server.py ADDRESS PROGRAM [FILES of the set that forgetting is measured on]

Listens on the Unix socket ADDRESS until its input ends. A client sends one JSON line with its
open files: {"words": of the command line, "files": their numbers, "folder", "environment"}. The
words `-c CODE ...`, `-m MODULE ...` or those of thresher then run in a fork, as if a shell had
started it. The answers are two lines: its process id, and its exit code once it has ended, negative
for a signal. It is killed when its client has gone. PROGRAM is such a client, which runs the
workers of experiments.
"""

import fcntl
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import signal
import socket
import sys
import tempfile
import types
from pathlib import Path

import thresher

MOST_FILES = 64
# what commands import as late as they can
LATE = (
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PpmImagePlugin",
    "accelerate",
    "faiss",
    "jinja2",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "peft",
    "s3fs",
    "polars",
    "pyarrow.parquet",
    "scipy.stats",
    "sentence_transformers",
    "sklearn.linear_model",
    "sklearn.manifold",
    "torch.distributed.tensor",
    "transformers.conversion_mapping",
    "transformers.models.bert.modeling_bert",
    "transformers.models.bert.tokenization_bert",
    "transformers.models.llama.modeling_llama",
)


def import_all():
    """Import thresher's modules and what they import late."""
    for module in pkgutil.walk_packages(thresher.__path__, "thresher."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)
    for name in LATE:
        importlib.import_module(name)


def prepare(program, general):
    """Do once what each command would do first, and set what all of them share."""
    import_all()
    from numba.core.registry import cpu_target
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    from thresher.experiments.cells import worker_pool
    from thresher.numeric.memory import freeze_for_good
    from thresher.trainer.untouched import settings

    worker_pool.sys = types.SimpleNamespace(executable=program, stderr=sys.stderr)
    if general:
        settings.EMBEDDED = tuple(map(Path, general))
    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
    get_checkpoint_conversion_mapping("bert")
    gc.collect()
    freeze_for_good()  # a collection in a fork would copy every page


def receive(connection):
    """Return what a client wants, and its open files as they are numbered here."""
    line, files, *_ = socket.recv_fds(connection, 2**20, MOST_FILES)
    while not line.endswith(b"\n"):
        line += connection.recv(2**20)
    return json.loads(line), files


def build_task(task, files):
    """Take on a client's files, folder and environment, and return as a function what to run."""
    # beyond all numbers that are wanted
    kept = [fcntl.fcntl(file, fcntl.F_DUPFD, 1000) for file in files]
    for file, copy, number in zip(files, kept, task["files"], strict=True):
        os.close(file)
        os.dup2(copy, number, inheritable=number < 3)
        os.close(copy)
    os.environ.clear()
    os.environ.update(task["environment"])
    os.chdir(task["folder"])
    tempfile.tempdir = None
    option, *words = task["words"]
    if option == "-m":
        sys.modules.pop(words[0], None)
        sys.argv = words
        return lambda: runpy.run_module(words[0], run_name="__main__", alter_sys=True)
    if option == "-c":
        sys.argv = [option, *words[1:]]
        main = sys.modules["__main__"] = types.ModuleType("__main__")
        return lambda: exec(compile(words[0], "<string>", "exec"), vars(main))
    sys.argv = ["thresher", option, *words]
    return importlib.import_module("thresher.__main__").run


def serve(address):
    """Fork for each client until the input ends; return what a fork has to run, or None."""
    clients = {}
    woken, waking = socket.socketpair()
    with socket.socket(socket.AF_UNIX) as listener, woken, waking:
        waking.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(waking.fileno())
        listener.bind(address)
        listener.listen()
        print("ready", flush=True)
        while True:
            ready, *_ = select.select([listener, woken, 0, *clients.values()], [], [])
            if 0 in ready:
                return None
            if woken in ready:
                woken.recv(4096)
                report_ends(clients)
            for process in [process for process, client in clients.items() if client in ready]:
                os.kill(process, signal.SIGKILL)
                clients.pop(process).close()
            if listener in ready:
                connection, _ = listener.accept()
                task, files = receive(connection)
                process = os.fork()
                if process == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for other in (connection, *clients.values()):
                        other.close()
                    return task, files
                for file in files:
                    os.close(file)
                clients[process] = connection
                connection.sendall(f"{process}\n".encode())


def report_ends(clients):
    """Tell the clients of processes that have ended how they did."""
    while True:
        try:
            process, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if process == 0:
            return
        if process in clients:
            with clients.pop(process) as connection:
                connection.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())


if __name__ == "__main__":
    prepare(sys.argv[2], sys.argv[3:])
    wanted = serve(sys.argv[1])
    if wanted:
        build_task(*wanted)()
