"""Runs cells on a Ray cluster, one task each; the results come back to this machine's cache."""

from __future__ import annotations

import importlib.util
import io
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import polars as pl

from thresher.errors import MissingExtraError, is_environment_error, is_panic
from thresher.experiments.cells.cache import CellCache
from thresher.experiments.cells.cell import Cell, Outcome, train_and_measure
from thresher.experiments.cells.retries import OnRetry, Round, leave_unfinished, run_rounds
from thresher.experiments.cells.worker_pool import check_outcome, fail, format_error, load_finished
from thresher.experiments.experiment import Experiment

_Answer = tuple[bytes, Mapping[str, Any]]  # a Parquet file of outcomes, and facts


class _Failure(NamedTuple):
    """Why a cell gave no outcomes: because of the machine, or of its rows and settings."""

    reason: str
    is_of_environment: bool


def run_cells_on_ray(
    experiment: Experiment, cells: Sequence[Cell], cache: CellCache, on_retry: OnRetry | None = None
) -> Iterator[tuple[int, Outcome]]:
    """Run cells as Ray tasks, and yield each index with its outcome, in the order they finish.

    Ray is started on this machine when RAY_ADDRESS names no cluster. A task that the machine ended,
    as when memory runs out or its node dies, is tried again, with fewer at once, at last alone.

    Args:
        experiment: that they share.
        cells: to run.
        cache: of finished cells, on this machine.
        on_retry: hears of cells that are tried again.

    Yields:
        Every index once; at the end those that could not be finished (`is_unfinished`).

    Raises:
        MissingExtraError: ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "engine ray", "ray")

    finished, keys = load_finished(experiment, cells, cache)
    yield from finished.items()
    if not keys:
        return
    submit = _connect(experiment)

    def run_round(plan: Round) -> Iterator[tuple[int, Outcome]]:
        running: dict[Any, int] = {}
        while plan.waiting or running:
            while plan.waiting and len(running) < plan.n_workers:
                index = plan.waiting.popleft()
                running[submit(cells[index])] = index
            index, answer = _await_one(running)
            outcome = _build_outcome(keys[index], answer, cache)
            if not plan.try_again(index, outcome):
                yield index, outcome

    for index, outcome in run_rounds(experiment, cells, keys, run_round, n_workers=len(keys), on_retry=on_retry):
        yield index, check_outcome(experiment, outcome)


def _build_outcome(key: str, answer: _Answer | _Failure, cache: CellCache) -> Outcome:
    """Return the outcome that an answer stands for, kept where there is one to keep."""
    if not isinstance(answer, _Failure):
        return cache.load_or_run(key, partial(_unpack, answer))
    return (leave_unfinished if answer.is_of_environment else fail)(key, answer.reason)


def _connect(experiment: Experiment) -> Callable[[Cell], Any]:
    """Connect to Ray, or start it, and return what submits a cell."""
    import ray

    address = os.environ.get("RAY_ADDRESS")
    if not ray.is_initialized() and address:
        ray.init(address=address, log_to_driver=False)
    elif not ray.is_initialized():
        # without "local", Ray would join whatever cluster another program has on this machine
        ray.init(address="local", include_dashboard=False, log_to_driver=False)
    n_gpus = 1 if ray.cluster_resources().get("GPU") else 0
    task = ray.remote(max_retries=0, num_gpus=n_gpus)(_run_remotely)  # tries are counted here
    shared = ray.put(experiment)
    return lambda cell: task.remote(shared, cell)


def _await_one(running: dict[Any, int]) -> tuple[int, _Answer | _Failure]:
    """Return the index and the answer of the next task that ends, and take it off the list."""
    import ray

    (done, *_), _ = ray.wait(list(running), num_returns=1)
    index = running.pop(done)
    try:
        return index, ray.get(done)
    except ray.exceptions.RayError as error:  # its process or node was ended
        return index, _Failure(" ".join(str(error).split())[:500], is_of_environment=True)


def _run_remotely(experiment: Experiment, cell: Cell) -> _Answer | _Failure:
    """Run one cell on a node, and return its table and facts, or why it failed."""
    with tempfile.TemporaryDirectory(prefix="thresher-cell-") as folder:
        try:
            outcomes, facts = train_and_measure(cell.build_job(experiment), Path(folder))
        except BaseException as error:  # an experiment outlives its cells: the reason is recorded
            if not (isinstance(error, Exception) or is_panic(error)):
                raise
            return _Failure(format_error(error), is_of_environment=is_environment_error(error))
    buffer = io.BytesIO()
    outcomes.write_parquet(buffer)
    return buffer.getvalue(), facts


def _unpack(answer: _Answer, _: Path) -> tuple[pl.DataFrame, Mapping[str, Any]]:
    table, facts = answer
    return pl.read_parquet(io.BytesIO(table)), facts
