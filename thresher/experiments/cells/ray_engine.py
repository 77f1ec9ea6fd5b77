"""Runs cells on a Ray cluster, one task each; the results come back to this machine's cache."""

from __future__ import annotations

import importlib.util
import io
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from thresher.errors import MissingExtraError
from thresher.experiments.cells.cache import CellCache
from thresher.experiments.cells.cell import Cell, Outcome, train_and_measure
from thresher.experiments.cells.worker_pool import check_outcome, fail, format_error, load_finished
from thresher.experiments.experiment import Experiment


def run_cells_on_ray(experiment: Experiment, cells: Sequence[Cell], cache: CellCache) -> Iterator[tuple[int, Outcome]]:
    """Run cells as Ray tasks, and yield each index with its outcome, in the order they finish.

    Ray is started on this machine when RAY_ADDRESS names no cluster. A task whose node dies is run
    again by Ray.

    Args:
        experiment: that they share.
        cells: to run.
        cache: of finished cells, on this machine.

    Raises:
        MissingExtraError: ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "engine ray", "ray")
    import ray

    finished, keys = load_finished(experiment, cells, cache)
    yield from finished.items()
    if not keys:
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    shared = ray.put(experiment)
    task = ray.remote(max_retries=2, num_gpus=1 if ray.cluster_resources().get("GPU") else 0)(_run_remotely)
    waiting = {task.remote(shared, cells[index]): index for index in keys}
    while waiting:
        (done, *_), _ = ray.wait(list(waiting), num_returns=1)
        index = waiting.pop(done)
        try:
            answer = ray.get(done)
        except ray.exceptions.RayError as error:  # its node died too often, or memory ran out
            answer = str(error).strip()[:500]
        if isinstance(answer, str):
            yield index, fail(keys[index], answer)
        else:
            yield index, check_outcome(experiment, cache.load_or_run(keys[index], partial(_unpack, answer)))


def _run_remotely(experiment: Experiment, cell: Cell) -> tuple[bytes, Mapping[str, Any]] | str:
    """Run one cell on a node, and return its table and facts, or why it failed."""
    with tempfile.TemporaryDirectory(prefix="thresher-cell-") as folder:
        try:
            outcomes, facts = train_and_measure(cell.build_context(experiment), Path(folder))
        except Exception as error:  # noqa: BLE001 - an experiment outlives its cells: the reason is recorded
            return format_error(error)
    buffer = io.BytesIO()
    outcomes.write_parquet(buffer)
    return buffer.getvalue(), facts


def _unpack(answer: tuple[bytes, Mapping[str, Any]], _: Path) -> tuple[pl.DataFrame, Mapping[str, Any]]:
    table, facts = answer
    return pl.read_parquet(io.BytesIO(table)), facts
