"""The process that runs cells for another one: `python -m thresher.experiments.worker SOCKET`."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from multiprocessing.connection import Client

MODULE = "thresher.experiments.worker"
PARENT_S = 1.0  # between two looks whether the parent is still there


def main(address: str) -> None:
    """Run the cells that come over the socket, until it is closed."""
    from thresher.experiments.workers import KEY_VARIABLE, run_cell

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends its workers itself
    threading.Thread(target=_leave_with, args=(os.getppid(),), daemon=True).start()
    line = Client(address, "AF_UNIX", authkey=bytes.fromhex(os.environ.pop(KEY_VARIABLE)))
    try:
        bench, store = line.recv()
        while True:
            cell = line.recv()
            try:
                answer = run_cell(bench, cell, store)
            except OSError as error:  # the disk: it ends the experiment, and so belongs to the parent
                line.send(error)
                continue
            line.send(answer)
    except (EOFError, ConnectionError):
        return


def _leave_with(parent: int) -> None:
    """End this process when its parent is gone, as after kill -9: nobody would read what it makes."""
    while os.getppid() == parent:
        time.sleep(PARENT_S)
    os._exit(1)


if __name__ == "__main__":
    main(sys.argv[1])
