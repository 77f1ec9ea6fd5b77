"""The process that runs cells for another one: `python -m thresher.experiments.cells.worker_process DESCRIPTOR`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Connection

PARENT_S = 1.0  # between two looks whether the parent is still there


def main(descriptor: int) -> None:
    """Run the cells that come over the socket, until it is closed; an experiment comes before its first cell."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers itself
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    line = Connection(descriptor)
    experiment = store = None
    try:
        line.send(None)  # the first word: this process has started
        while True:
            message = line.recv()
            if isinstance(message, tuple):
                experiment, store = message
                continue
            line.send(_answer(experiment, message, store))
    except (EOFError, ConnectionError):
        return


def _answer(experiment: object, cell: object, store: object) -> object:
    from thresher.experiments.cells.worker_pool import run_cell

    try:
        return run_cell(experiment, cell, store)  # type: ignore[arg-type]
    except OSError as error:  # the disk: it ends the experiment, and so belongs to the parent
        return error


def _leave_with(parent: int) -> None:
    """End this process when its parent is gone, as after kill -9: nobody would read what it makes."""
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]))
