"""Running cells: in this process, or in several that can die one at a time.

Each worker is a Python process of its own (`python -m thresher.experiments.cells.worker_process`)
at the other end of a socket pair. It is not forked, so threads and GPUs are safe, and it does not
import the user's script, so scripts need no `__main__` guard.

A cell that the machine ended (`is_environment_error`, or a worker that died) is tried again in a
fresh worker, and then with fewer workers, down to one.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from multiprocessing.connection import Connection, wait

from thresher.errors import OutputError, is_disk_error, is_environment_error, is_panic
from thresher.experiments.cells.cache import CellCache
from thresher.experiments.cells.cell import Cell, Outcome, compute_cell_key, train_and_measure
from thresher.experiments.cells.retries import OnRetry, Round, leave_unfinished, run_rounds
from thresher.experiments.experiment import Experiment
from thresher.numeric.threads import count_cores

CPU_WORKERS = 8  # at most, when nobody says how many
GB_PER_WORKER = 3  # a base model, its optimizer and a batch, on a CPU


def count_workers(asked: int | str | None, device: str | None = None) -> int:
    """Return the number of workers; "auto" or None: one per GPU, else per core as memory allows.

    One that is chosen by its number, as cuda:1, has one worker.

    Small models spend their time between operations, so that several single threads get more done
    than one process with several threads.
    """
    if isinstance(asked, int):
        return asked
    import torch

    if device is not None and ":" in device:
        return 1
    if device != "cpu" and torch.cuda.is_available():
        return torch.cuda.device_count()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**9
    return max(1, min(count_cores(), CPU_WORKERS, memory // GB_PER_WORKER))


def format_error(error: BaseException) -> str:
    """Return the reason for which a cell failed."""
    return f"{type(error).__name__}: {str(error).strip()[:500]}"


def fail(key: str, reason: str) -> Outcome:
    """Return the outcome of a cell that failed."""
    return Outcome(key=key, outcomes=None, facts={}, reason=reason)


def run_cell(experiment: Experiment, cell: Cell, cache: CellCache) -> Outcome:
    """Run one cell, or load it; what goes wrong in it is its result, but for errors of the disk.

    What a cell that the machine ended has saved stays in the cache, to continue from.
    """
    job = cell.build_job(experiment)
    key = compute_cell_key(job)
    try:
        return cache.load_or_run(key, lambda work: train_and_measure(job, work))
    except BaseException as error:
        if is_disk_error(error) or not (isinstance(error, Exception) or is_panic(error)):
            raise
        if is_environment_error(error):
            return leave_unfinished(key, format_error(error))
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
        key = compute_cell_key(cell.build_job(experiment))
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

    A worker process that crashes or runs out of memory is replaced, and its cell tried again. With
    one worker, cells run in this process, and only what Python can catch is tried again.

    Attributes:
        cache: of finished cells.
        n_workers: processes at once.
        on_retry: hears of cells that are tried again.
    """

    def __init__(self, cache: CellCache, n_workers: int, on_retry: OnRetry | None = None) -> None:
        """Start no process yet.

        Args:
            cache: of finished cells.
            n_workers: processes at once; 1 runs in this process.
            on_retry: hears of cells that are tried again.
        """
        self.cache, self.n_workers, self.on_retry = cache, n_workers, on_retry
        self._workers: list[_Worker] = []

    def __enter__(self) -> WorkerPool:
        """Return the pool itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End all workers."""
        self._end(self._workers[:])

    def _end(self, workers: Sequence[_Worker]) -> None:
        for worker in workers:
            self._workers.remove(worker)
            worker.connection.close()
            worker.process.terminate()
        for worker in workers:
            worker.process.wait()

    def run(self, experiment: Experiment, cells: Sequence[Cell]) -> Iterator[tuple[int, Outcome]]:
        """Run cells, and yield each index with its outcome, in the order they finish.

        Args:
            experiment: that they share.
            cells: to run; those that are done already are not run again.

        Yields:
            Every index once; at the end those that could not be finished (`is_unfinished`).
        """
        finished, keys = load_finished(experiment, cells, self.cache)
        yield from finished.items()
        outcomes = run_rounds(
            experiment, cells, keys, self._run_round, n_workers=self.n_workers, on_retry=self.on_retry
        )
        for index, outcome in outcomes:
            yield index, check_outcome(experiment, outcome)

    def _run_round(self, plan: Round) -> Iterator[tuple[int, Outcome]]:
        """Run the cells of a round; with one worker, their first try is in this process."""
        n_left = len(plan.waiting)
        self._end(self._workers[plan.n_workers :])
        for index in [plan.waiting.popleft() for _ in range(n_left)] if self.n_workers == 1 else ():
            outcome = run_cell(plan.experiment, plan.cells[index], self.cache)
            if not plan.try_again(index, outcome):
                n_left -= 1
                yield index, outcome
        if self.n_workers == 1 and n_left:
            _release_device()
        while n_left:
            for index, outcome in self._await_outcomes(plan):
                if not plan.try_again(index, outcome):
                    n_left -= 1
                    yield index, outcome

    def _await_outcomes(self, plan: Round) -> Iterator[tuple[int, Outcome]]:
        """Keep the workers busy, and yield what the next of them answer."""
        yield from self._assign(plan)
        busy = {worker.connection: worker for worker in self._workers if worker.index is not None}
        for connection in wait(list(busy)) if busy else ():
            worker = busy[connection]  # type: ignore[index]
            index = int(worker.index or 0)
            outcome = self._receive(worker, plan.keys[index])
            if outcome is not None:
                yield index, outcome

    def _assign(self, plan: Round) -> Iterator[tuple[int, Outcome]]:
        """Give every worker a cell, as far as there are any; yield those whose worker is dead."""
        while plan.waiting:
            worker = next((worker for worker in self._workers if worker.index is None), None)
            if worker is None and len(self._workers) >= plan.n_workers:
                return
            index = plan.waiting.popleft()
            try:
                worker = worker or self._start(plan.experiment.settings.device)
            except OSError as error:  # no memory for another process
                yield index, leave_unfinished(plan.keys[index], format_error(error))
                continue
            try:
                if worker.experiment is not plan.experiment:
                    worker.connection.send((plan.experiment, self.cache))
                    worker.experiment = plan.experiment
                worker.connection.send(plan.cells[index])
                worker.index = index
            except ConnectionError:
                yield index, leave_unfinished(plan.keys[index], self._remove(worker))

    def _start(self, device: str | None) -> _Worker:
        slot = next(slot for slot in range(self.n_workers) if slot not in {worker.slot for worker in self._workers})
        ours, theirs = socket.socketpair()
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-m", "thresher.experiments.cells.worker_process", str(theirs.fileno())],
                env=os.environ | _build_environment(slot, self.n_workers, device),
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
            return leave_unfinished(key, self._remove(worker))
        worker.has_started = True
        if isinstance(answer, OSError):
            raise answer
        if answer is not None:
            worker.index = None
            if answer.is_unfinished:  # its successor begins with fresh memory and a fresh device
                self._end([worker])
        return answer

    def _remove(self, worker: _Worker) -> str:
        """Take a dead worker off the list, and return in words how it died.

        Raises:
            OutputError: it ended by itself before its first message, and so would the next one.
        """
        self._workers.remove(worker)
        worker.connection.close()
        code = worker.process.wait()
        if code >= 0 and not worker.has_started:
            raise OutputError(f"workers: a worker process cannot start (exit code {code}); run with --workers 1")
        if code >= 0:
            return f"the worker process ended with exit code {code}"
        memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
        return f"the worker process was ended by {signal.Signals(-code).name}{memory}"


def _build_environment(slot: int, n_workers: int, device: str | None = None) -> dict[str, str]:
    """Return the environment that gives a worker its share of the cores, or a visible GPU.

    A GPU that is chosen by its number is the same for all: its number counts all that are visible.
    """
    import torch

    share = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, count_cores() // n_workers))}
    is_chosen = device is not None and (device == "cpu" or ":" in device)
    if not is_chosen and torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",")
        names = [name for name in visible if name] or [str(number) for number in range(torch.cuda.device_count())]
        share["CUDA_VISIBLE_DEVICES"] = names[slot % len(names)]
    return share


def _release_device() -> None:
    """Give back what torch holds of a GPU for this process, so that a worker can have it."""
    import gc

    import torch

    if torch.cuda.is_available():
        gc.collect()
        torch.cuda.empty_cache()


def _has_descriptor(stream: object) -> bool:
    try:
        stream.fileno()  # type: ignore[attr-defined]
    except (AttributeError, OSError, ValueError):  # a notebook's stream
        return False
    return True
