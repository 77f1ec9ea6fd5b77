"""The heartbeat of a lock: a process that counts in a file for as long as its parent lives.

Run as a script, with the standard library alone. It ends when its standard input closes, which the
operating system does when the parent dies in whatever way.
"""

from __future__ import annotations

import os
import select
import sys

WIDTH = 20  # digits: the file keeps its size, so that a full disk does not stop it


def beat(path: str, interval_s: float) -> None:
    """Count in the file until standard input ends; reopen it each time, so that shares sync it."""
    count, parent = 0, os.getppid()
    while True:
        ready, _, _ = select.select([sys.stdin], [], [], interval_s)
        if ready and not os.read(sys.stdin.fileno(), 1):
            return
        if os.getppid() != parent:
            return  # it died, and a process that it had forked keeps our input open
        count += 1
        try:
            descriptor = os.open(path, os.O_WRONLY)
        except FileNotFoundError:
            return  # the lock was taken away
        except OSError:
            continue  # a share that is away for a moment
        try:
            os.pwrite(descriptor, str(count).zfill(WIDTH).encode(), 0)
            os.fsync(descriptor)
        except OSError:
            continue
        finally:
            os.close(descriptor)


if __name__ == "__main__":
    beat(sys.argv[1], float(sys.argv[2]))
