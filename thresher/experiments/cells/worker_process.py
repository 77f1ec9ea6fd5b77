"""Runs cells for another process: `python -m thresher.experiments.cells.worker_process SOCKET`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

from thresher.printable import clean_foreign_messages

PARENT_S = 1.0  # between two looks whether the parent is still there


def main(descriptor: int) -> None:
    """Run the cells that come over the socket, after their experiment, until it is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers
    clean_foreign_messages()
    threading.Thread(target=_exit_when_orphaned, args=(os.getppid(),), daemon=True).start()
    connection = Connection(descriptor)
    experiment = cache = None
    try:
        connection.send(None)  # this process has started
        while True:
            message = connection.recv()
            if isinstance(message, tuple):
                experiment, cache = message
                continue
            connection.send(_run(experiment, message, cache))
    except (EOFError, ConnectionError):
        return


def _run(experiment: object, cell: object, cache: object) -> object:
    from thresher.experiments.cells.worker_pool import run_cell

    try:
        return run_cell(experiment, cell, cache)  # type: ignore[arg-type]
    except OSError as error:  # the disk: it ends the experiment, and so belongs to the parent
        return error


def _exit_when_orphaned(parent: int) -> None:
    """End this process when its parent is gone, as after kill -9: nobody would read its results."""
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
