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
from thresher.experiments.cells.cell import Cell, Outcome, compute_cell_key, train_and_measure
from thresher.experiments.experiment import Experiment
from thresher.numeric.threads import count_cores

CPU_WORKERS = 8  # at most, when nobody says how many
GB_PER_WORKER = 3  # a base model, its optimizer and a batch, on a CPU
_DISK_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}


def count_workers(asked: int | str | None) -> int:
    """Return the number of workers; "auto" or None: one per GPU, else per core as memory allows.

    Small models spend their time between operations, so that several single threads get more done
    than one process with several threads.
    """
    if isinstance(asked, int):
        return asked
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**9
    return max(1, min(count_cores(), CPU_WORKERS, memory // GB_PER_WORKER))


def is_disk_error(error: Exception) -> bool:
    """Tell whether an error would meet every cell, and so ends the experiment."""
    return isinstance(error, OutputError) or (isinstance(error, OSError) and error.errno in _DISK_ERRORS)


def format_error(error: Exception) -> str:
    """Return the reason for which a cell failed."""
    return f"{type(error).__name__}: {str(error).strip()[:500]}"


def fail(key: str, reason: str) -> Outcome:
    """Return the outcome of a cell that failed."""
    return Outcome(key=key, outcomes=None, facts={}, reason=reason)


def run_cell(experiment: Experiment, cell: Cell, cache: CellCache) -> Outcome:
    """Run one cell, or load it; what goes wrong in it is its result, but for errors of the disk."""
    context = cell.build_context(experiment)
    key = compute_cell_key(context)
    try:
        return cache.load_or_run(key, lambda work: train_and_measure(context, work))
    except Exception as error:
        if is_disk_error(error):
            raise
        cache.discard(key)
        return fail(key, format_error(error))


def check_outcome(experiment: Experiment, outcome: Outcome) -> Outcome:
    """Return an outcome as it is, or as failed where its metric is not a number."""
    problem = None if outcome.outcomes is None else experiment.find_problem(outcome.outcomes)
    return outcome if problem is None else replace(outcome, outcomes=None, reason=problem)


def load_finished(
    experiment: Experiment, cells: Sequence[Cell], cache: CellCache
) -> tuple[dict[int, Outcome], dict[int, str]]:
    """Return the outcomes of the cells that are done, and the keys of the others, both by index."""
    finished, todo = {}, {}
    for index, cell in enumerate(cells):
        key = compute_cell_key(cell.build_context(experiment))
        outcome = cache.load(key)
        if outcome is None:
            todo[index] = key
        else:
            finished[index] = check_outcome(experiment, outcome)
    return finished, todo


@dataclass
class _Worker:
    slot: int
    process: subprocess.Popen[bytes]
    connection: Connection
    experiment: Experiment | None = None  # that it was sent
    index: int | None = None  # of the cell it is at
    has_started: bool = False


class WorkerPool:
    """Runs cells in this process (one worker) or in several; use it as a context manager.

    A worker process that crashes or runs out of memory costs the cell it was at, and is replaced.
    With one worker there is no such protection.
    """

    def __init__(self, cache: CellCache, n_workers: int) -> None:
        """Start no process yet.

        Args:
            cache: of finished cells.
            n_workers: processes at once; 1 runs in this process.
        """
        self.cache, self._n = cache, n_workers
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        """Return the pool itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End all workers."""
        for worker in self._workers:
            worker.connection.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.wait()
        self._workers.clear()

    def run(self, experiment: Experiment, cells: Sequence[Cell]) -> Iterator[tuple[int, Outcome]]:
        """Run cells, and yield each index with its outcome, in the order they finish.

        Args:
            experiment: that they share.
            cells: to run; those that are done already are not run again.
        """
        finished, keys = load_finished(experiment, cells, self.cache)
        yield from finished.items()
        if self._n == 1:
            for index in keys:
                yield index, check_outcome(experiment, run_cell(experiment, cells[index], self.cache))
            return
        waiting, n_left = deque(keys), len(keys)
        while n_left:
            self._assign(experiment, cells, waiting)
            busy = {worker.connection: worker for worker in self._workers if worker.index is not None}
            for connection in wait(list(busy)):
                worker = busy[connection]  # type: ignore[index]
                index = int(worker.index or 0)
                outcome = self._receive(worker, keys[index])
                if outcome is not None:
                    worker.index = None
                    n_left -= 1
                    yield index, check_outcome(experiment, outcome)

    def _assign(self, experiment: Experiment, cells: Sequence[Cell], waiting: deque[int]) -> None:
        """Give every worker a cell, as far as there are any; start as many as can be kept busy."""
        while waiting and (len(self._workers) < self._n or any(worker.index is None for worker in self._workers)):
            worker = next((worker for worker in self._workers if worker.index is None), None) or self._start()
            try:
                if worker.experiment is not experiment:
                    worker.connection.send((experiment, self.cache))
                    worker.experiment = experiment
                worker.connection.send(cells[waiting[0]])
            except ConnectionError:
                self._remove(worker)
                continue
            worker.index = waiting.popleft()

    def _start(self) -> _Worker:
        slot = next(slot for slot in range(self._n) if slot not in {worker.slot for worker in self._workers})
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "thresher.experiments.cells.worker_process", str(theirs.fileno())],
                env=os.environ | _build_environment(slot, self._n),
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=sys.stderr.fileno() if _has_descriptor(sys.stderr) else subprocess.DEVNULL,
            )
        worker = _Worker(slot, process, Connection(ours.detach()))
        self._workers.append(worker)
        return worker

    def _receive(self, worker: _Worker, key: str) -> Outcome | None:
        """Return a worker's outcome; None for its first message. An error of the disk is raised."""
        try:
            answer: Outcome | OSError | None = worker.connection.recv()
        except (EOFError, ConnectionError):
            reason = self._remove(worker)
            self.cache.discard(key)
            return fail(key, reason)
        worker.has_started = True
        if isinstance(answer, OSError):
            raise answer
        return answer

    def _remove(self, worker: _Worker) -> str:
        """Take a dead worker off the list, and return in words how it died.

        Raises:
            OutputError: it died before its first message, and so would the next one.
        """
        self._workers.remove(worker)
        worker.connection.close()
        code = worker.process.wait()
        if not worker.has_started:
            raise OutputError(f"workers: a worker process cannot start (exit code {code}); run with --workers 1")
        if code >= 0:
            return f"the worker process ended with exit code {code}"
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"the worker process was ended by {signal.Signals(-code).name}{memory}"


def _build_environment(slot: int, n_workers: int) -> dict[str, str]:
    """Return the environment that gives a worker its share of the cores, or a visible GPU."""
    import torch

    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, count_cores() // n_workers))}
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = [name for name in visible if name] or [str(number) for number in range(torch.cuda.device_count())]
        share["CUDA_VISIBLE_DEVICES"] = names[slot % len(names)]
    return share


def _has_descriptor(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # a notebook's stream
        return False
    return True
