"""A process that has imported what commands need, and forks for each: a start costs no imports.

    python tests/fork_server.py ADDRESS [FILES of the set that forgetting is measured on]

Listens on the Unix socket ADDRESS until its input ends. A client sends one JSON object with its
stdin, stdout and stderr: {"arguments", "code", "folder", "environment"}. The command of thresher
(or the code, with the arguments) then runs in a fork, as if a shell had started it. The answers are
two lines: its process id, and its exit code once it has ended, negative for a signal.
"""

import gc
import importlib
import json
import os
import pkgutil
import select
import signal
import socket
import sys
import tempfile
import types
from pathlib import Path

import thresher

N_STREAMS = 3
# what commands import as late as they can
LATE = (
    "accelerate",
    "faiss",
    "jinja2",
    "PIL.GifImagePlugin",
    "PIL.JpegImagePlugin",
    "PIL.PpmImagePlugin",
    "matplotlib.backends.backend_agg",
    "matplotlib.backends.backend_svg",
    "matplotlib.figure",
    "numba.core.typing.builtins",
    "peft",
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


def prepare():
    """Do once what each command would do first: import, read numba's registries, know transformers' models."""
    import_all()
    from numba.core.registry import cpu_target
    from transformers.conversion_mapping import get_checkpoint_conversion_mapping

    cpu_target.typing_context.refresh()
    cpu_target.target_context.refresh()
    get_checkpoint_conversion_mapping("bert")
    gc.collect()
    gc.freeze()  # a collection in a fork would copy every page


def build_task(connection):
    """Read what to run, take on the client's streams, folder and environment, and return it as a function."""
    line, streams, *_ = socket.recv_fds(connection, 2**20, N_STREAMS)
    task = json.loads(line)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(task["environment"])
    os.chdir(task["folder"])
    tempfile.tempdir = None
    if task["code"] is None:
        sys.argv = ["thresher", *task["arguments"]]
        return importlib.import_module("thresher.__main__").run
    sys.argv = ["-c", *task["arguments"]]
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    return lambda: exec(compile(task["code"], "<string>", "exec"), vars(main))


def serve(address):
    """Fork for each client until the input ends; return what the fork has to run, or None."""
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
            ready, *_ = select.select([listener, woken, 0], [], [])
            if 0 in ready:
                return None
            if woken in ready:
                woken.recv(4096)
                report_ends(clients)
            if listener in ready:
                connection, _ = listener.accept()
                process = os.fork()
                if process == 0:
                    signal.set_wakeup_fd(-1)
                    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
                    for other in clients.values():
                        other.close()
                    with connection:
                        return build_task(connection)
                clients[process] = connection
                answer(connection, process)


def report_ends(clients):
    """Tell the clients of processes that have ended how they did."""
    for process in list(clients):
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            with clients.pop(process) as connection:
                answer(connection, os.waitstatus_to_exitcode(status))


def answer(connection, number):
    """Send a number, unless the client has gone."""
    try:
        connection.sendall(f"{number}\n".encode())
    except (BrokenPipeError, ConnectionResetError):
        return


if __name__ == "__main__":
    prepare()
    if files := sys.argv[2:]:
        sys.modules["thresher.trainer.untouched.settings"].EMBEDDED = tuple(map(Path, files))
    run = serve(sys.argv[1])
    if run:
        run()
