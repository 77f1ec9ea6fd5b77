"""Running cells: in this process, or in several that can die one at a time.

Each worker is a Python process of its own (`python -m thresher.experiments.cells.worker_process`)
at the other end of a socket pair. It is not forked, so threads and GPUs are safe, and it does not
import the user's script, so scripts need no `__main__` guard.
"""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

from thresher.errors import OutputError
from thresher.experiments.cells.cache import CellCache
from thresher.experiments.cells.cell import Cell, Outcome, compute_cell_key, run
from thresher.experiments.experiment import Experiment
from thresher.numeric.threads import count_cores

CPU_WORKERS = 8  # at most, when nobody says how many
GB_PER_WORKER = 3  # a base model, its optimizer and a batch, on a CPU
_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def default_workers() -> int:
    """Return one worker per GPU; without a GPU one per core, as far as the memory reaches.

    Small models spend their time between operations, so that several single threads get more done
    than one process with several threads.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**9
    return max(1, min(count_cores(), CPU_WORKERS, memory // GB_PER_WORKER))


def is_of_the_disk(error: OSError) -> bool:
    """Tell an error that would meet every cell, and so ends the experiment, from one of a single cell."""
    return isinstance(error, OutputError) or error.errno in _DISK


def run_cell(experiment: Experiment, cell: Cell, store: CellCache) -> Outcome:
    """Run one cell, or find it done. Whatever goes wrong in it is its result, but for a disk that cannot be written."""
    request = cell.request(experiment)
    key = compute_cell_key(request)
    try:
        return store.make(key, lambda work: run(request, work))
    except Exception as error:
        if isinstance(error, OSError) and is_of_the_disk(error):
            raise
        store.discard(key)
        return Outcome(key=key, outcomes=None, facts={}, reason=f"{type(error).__name__}: {str(error).strip()[:500]}")


def checked(experiment: Experiment, outcome: Outcome) -> Outcome:
    """Return an outcome as it is, or as failed where its metric is not a number."""
    problem = None if outcome.outcomes is None else experiment.problem(outcome.outcomes)
    return outcome if problem is None else replace(outcome, outcomes=None, reason=problem)


@dataclass
class _Worker:
    slot: int
    process: subprocess.Popen[bytes]
    line: Connection
    experiment: Experiment | None = None  # that it was sent
    index: int | None = None  # of the cell it is at
    has_started: bool = False


class WorkerPool:
    """Runs cells, in this process (one worker) or in several processes; use it as a context manager.

    A worker process that crashes or runs out of memory costs the cell it was at, and is replaced.
    With one worker there is no such protection.
    """

    def __init__(self, store: CellCache, n_workers: int) -> None:
        """Hire nobody yet.

        Args:
            store: of finished cells.
            n_workers: processes at once; 1 runs in this process.
        """
        self.store, self._n = store, n_workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        """Return the worker_pool."""
        return self

    def __exit__(self, *error: object) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.line.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.wait()
        self._workers.clear()

    def run(self, experiment: Experiment, cells: Sequence[Cell]) -> Iterator[tuple[int, Outcome]]:
        """Run cells, and give the outcome of each with its index, in the order in which they finish.

        Args:
            experiment: that they share.
            cells: to run; those that are done already are not run again.
        """
        todo: deque[int] = deque()
        keys = {}
        for index, cell in enumerate(cells):
            keys[index] = compute_cell_key(cell.request(experiment))
            found = self.store.find(keys[index])
            if found is None:
                todo.append(index)
            else:
                yield index, checked(experiment, found)
        if self._n == 1:
            for index in todo:
                yield index, checked(experiment, run_cell(experiment, cells[index], self.store))
            return
        left = len(todo)
        while left:
            self._keep_busy(experiment, cells, todo)
            busy = {worker.line: worker for worker in self._workers if worker.index is not None}
            for line in wait(list(busy)):
                worker = busy[line]  # type: ignore[index]
                index = int(worker.index or 0)
                outcome = self._hear(worker, keys[index])
                if outcome is not None:
                    worker.index = None
                    left -= 1
                    yield index, checked(experiment, outcome)

    def _keep_busy(self, experiment: Experiment, cells: Sequence[Cell], todo: deque[int]) -> None:
        """Give every worker a cell, as far as there are any; hire as many as can be kept busy."""
        while todo and (len(self._workers) < self._n or any(worker.index is None for worker in self._workers)):
            worker = next((worker for worker in self._workers if worker.index is None), None) or self._hire()
            try:
                if worker.experiment is not experiment:
                    worker.line.send((experiment, self.store))
                    worker.experiment = experiment
                worker.line.send(cells[todo[0]])
            except ConnectionError:
                self._bury(worker)
                continue
            worker.index = todo.popleft()

    def _hire(self) -> _Worker:
        slot = next(slot for slot in range(self._n) if slot not in {worker.slot for worker in self._workers})
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "thresher.experiments.cells.worker_process", str(theirs.fileno())],
                env=os.environ | _share_of_machine(slot, self._n),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
            )
        worker = _Worker(slot, process, Connection(ours.detach()))
        self._workers.append(worker)
        return worker

    def _hear(self, worker: _Worker, key: str) -> Outcome | None:
        """Return a worker's answer, or how it died; None for its first word. Raise what belongs to the disk."""
        try:
            answer: Outcome | OSError | None = worker.line.recv()
        except (EOFError, ConnectionError):
            reason = self._bury(worker)
            self.store.discard(key)
            return Outcome(key=key, outcomes=None, facts={}, reason=reason)
        worker.has_started = True
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _bury(self, worker: _Worker) -> str:
        """Take a dead worker off the list, and return in words how it died.

        Raises:
            OutputError: it died before its first word, and so would the next one.
        """
        self._workers.remove(worker)
        worker.line.close()
        code = worker.process.wait()
        if not worker.has_started:
            raise OutputError(f"workers: a worker process cannot start (exit code {code}); run with --workers 1")
        if code >= 0:
            return f"the worker process ended with exit code {code}"
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"the worker process was ended by {signal.Signals(-code).name}{memory}"


def _share_of_machine(slot: int, n_workers: int) -> dict[str, str]:
    """Return the environment that gives a worker its share of the cores, or its GPU of those that we may use."""
    import torch

    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, count_cores() // n_workers))}
    if torch.cuda.is_available():
        ours = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = [name for name in ours if name] or [str(number) for number in range(torch.cuda.device_count())]
        share["CUDA_VISIBLE_DEVICES"] = names[slot % len(names)]
    return share


def _has_descriptor(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # a notebook's stream
        return False
    return True
