"""Running cells: in this process, or in several that can die one at a time.

Each worker is a Python process of its own (`python -m thresher.experiments.worker`) that speaks with this one over a
socket only this user can open. It is not forked, so threads and GPUs are safe, and it does not import the user's
script, so scripts need no `__main__` guard.
"""

from __future__ import annotations

import os
import secrets
import signal
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Listener, wait
from pathlib import Path
from typing import Any

from thresher.experiments.bench import Bench
from thresher.experiments.cell import Cell, Outcome, key_of, run
from thresher.experiments.store import CellStore

KEY_VARIABLE = "THRESHER_WORKER_KEY"
CPU_WORKERS = 8  # at most, when nobody says how many
GB_PER_WORKER = 3  # a base model, its optimizer and a batch, on a CPU


def default_workers() -> int:
    """Return one worker per GPU; without a GPU one per core, as far as the memory reaches.

    Small models spend their time between operations, so that several single threads get more done than one process
    with several threads.
    """
    import torch

    if torch.cuda.is_available():
        return torch.cuda.device_count()
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 10**9
    return max(1, min(cores, CPU_WORKERS, memory // GB_PER_WORKER))


def run_cell(bench: Bench, cell: Cell, store: CellStore) -> Outcome:
    """Run one cell, or find it done. Whatever goes wrong in it is its result, but for a disk that cannot be written."""
    request = cell.request(bench)
    key = key_of(request)
    try:
        return store.make(key, lambda work: run(request, work))
    except OSError:
        raise
    except Exception as error:  # noqa: BLE001 - an experiment outlives its cells: the reason is recorded
        return Outcome(key=key, outcomes=None, facts={}, reason=f"{type(error).__name__}: {str(error).strip()[:500]}")


def run_cells(
    bench: Bench, cells: Sequence[Cell], store: CellStore, *, n_workers: int
) -> Iterator[tuple[int, Outcome]]:
    """Run cells, and give the outcome of each with its index, in the order in which they finish.

    Args:
        bench: that they share.
        cells: to run.
        store: of finished cells.
        n_workers: processes at once; 1 runs in this process.
    """
    todo = []
    for index, cell in enumerate(cells):
        found = store.find(key_of(cell.request(bench)))
        if found is None:
            todo.append(index)
        else:
            yield index, found
    if min(n_workers, len(todo)) <= 1:
        for index in todo:
            yield index, run_cell(bench, cells[index], store)
        return
    with _Crew(bench, store, min(n_workers, len(todo))) as crew:
        yield from crew.run({index: cells[index] for index in todo})


@dataclass
class _Worker:
    process: subprocess.Popen[bytes]
    line: Connection
    index: int | None = None  # of the cell it is at


class _Crew:
    """Several workers, and the cells they are at."""

    def __init__(self, bench: Bench, store: CellStore, n_workers: int) -> None:
        self._bench, self._store, self._n = bench, store, n_workers
        self._key = secrets.token_bytes(32)
        self._workers: list[_Worker] = []

    def __enter__(self) -> _Crew:
        self._folder = tempfile.TemporaryDirectory(prefix="thresher-", ignore_cleanup_errors=True)
        self._listener = Listener(str(Path(self._folder.name) / "line"), "AF_UNIX", authkey=self._key)
        return self

    def __exit__(self, *error: Any) -> None:
        for worker in self._workers:
            worker.line.close()
            worker.process.terminate()
        for worker in self._workers:
            worker.process.wait()
        self._listener.close()
        self._folder.cleanup()

    def run(self, cells: dict[int, Cell]) -> Iterator[tuple[int, Outcome]]:
        """Give the outcome of each cell."""
        todo = deque(cells.items())
        while len(self._workers) < self._n:
            self._hire()
        for worker in self._workers:
            self._assign(worker, todo)
        left = len(cells)
        while left:
            busy = {worker.line: worker for worker in self._workers if worker.index is not None}
            for line in wait(list(busy)):
                worker = busy[line]  # type: ignore[index]
                index, answer = worker.index, self._hear(worker)
                if isinstance(answer, OSError):
                    raise answer
                if isinstance(answer, str):  # it died
                    self._workers.remove(worker)
                    self._hire()
                    worker = self._workers[-1]
                    outcome = Outcome(key="", outcomes=None, facts={}, reason=answer)
                else:
                    outcome = answer
                worker.index = None
                self._assign(worker, todo)
                left -= 1
                yield int(index or 0), outcome

    def _hire(self) -> None:
        from thresher.experiments.worker import MODULE

        number = len(self._workers)
        environment = os.environ | {KEY_VARIABLE: self._key.hex(), **_share_of_machine(number, self._n)}
        process = subprocess.Popen([sys.executable, "-m", MODULE, str(self._listener.address)], env=environment)
        line = self._listener.accept()
        line.send((self._bench, self._store))
        self._workers.append(_Worker(process, line))

    def _assign(self, worker: _Worker, todo: deque[tuple[int, Cell]]) -> None:
        if todo:
            index, cell = todo.popleft()
            worker.line.send(cell)
            worker.index = index

    def _hear(self, worker: _Worker) -> Outcome | OSError | str:
        """Return a worker's answer, or in words how it died."""
        try:
            answer: Outcome | OSError = worker.line.recv()
        except (EOFError, ConnectionError):
            worker.line.close()
            return _death(worker.process.wait())
        return answer


def _death(code: int) -> str:
    if code >= 0:
        return f"the worker process ended with exit code {code}"
    name = signal.Signals(-code).name
    memory = ", as when memory runs out" if -code == signal.SIGKILL else ""
    return f"the worker process was ended by {name}{memory}"


def _share_of_machine(number: int, n_workers: int) -> dict[str, str]:
    """Return the environment that gives a worker its share of the cores or its GPU."""
    share: dict[str, str] = {}
    with suppress(ImportError):
        import torch

        n_gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if n_gpus:
            share["CUDA_VISIBLE_DEVICES"] = str(number % n_gpus)
    cores = os.cpu_count() or 1
    return {"OMP_NUM_THREADS": str(max(1, cores // n_workers)), **share}
