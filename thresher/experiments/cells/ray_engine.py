"""Running cells on a Ray cluster: the same cells, one task each; the results come back to the store of the driver."""

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
from thresher.experiments.cells.cell import Cell, Outcome, compute_cell_key, run
from thresher.experiments.cells.worker_pool import checked
from thresher.experiments.experiment import Experiment


def run_cells_on_ray(experiment: Experiment, cells: Sequence[Cell], store: CellCache) -> Iterator[tuple[int, Outcome]]:
    """Run cells as Ray tasks, and give the outcome of each with its index, in the order in which they finish.

    Ray is started on this machine when RAY_ADDRESS names no cluster. A task whose node dies is run
    again by Ray.

    Args:
        experiment: that they share.
        cells: to run.
        store: of finished cells, on this machine.

    Raises:
        MissingExtraError: ray is not installed.
    """
    if importlib.util.find_spec("ray") is None:
        raise MissingExtraError("ray", "engine ray", "ray")
    import ray

    todo = {}
    for index, cell in enumerate(cells):
        key = compute_cell_key(cell.request(experiment))
        found = store.find(key)
        if found is None:
            todo[index] = key
        else:
            yield index, checked(experiment, found)
    if not todo:
        return
    if not ray.is_initialized():
        ray.init(log_to_driver=False)
    shared = ray.put(experiment)
    task = ray.remote(max_retries=2, num_gpus=1 if ray.cluster_resources().get("GPU") else 0)(_remote)
    waiting = {task.remote(shared, cells[index]): index for index in todo}
    while waiting:
        (done, *_), _ = ray.wait(list(waiting), num_returns=1)
        index = waiting.pop(done)
        try:
            answer = ray.get(done)
        except ray.exceptions.RayError as error:  # its node died too often, or memory ran out
            yield index, Outcome(key=todo[index], outcomes=None, facts={}, reason=str(error).strip()[:500])
            continue
        if isinstance(answer, str):
            yield index, Outcome(key=todo[index], outcomes=None, facts={}, reason=answer)
            continue
        yield index, checked(experiment, store.make(todo[index], partial(_unpacked, answer)))


def _remote(experiment: Experiment, cell: Cell) -> tuple[bytes, Mapping[str, Any]] | str:
    """Run one cell on a node, and return its table and facts, or why it failed."""
    with tempfile.TemporaryDirectory(prefix="thresher-cell-") as folder:
        try:
            outcomes, facts = run(cell.request(experiment), Path(folder))
        except Exception as error:  # noqa: BLE001 - an experiment outlives its cells: the reason is recorded
            return f"{type(error).__name__}: {str(error).strip()[:500]}"
    buffer = io.BytesIO()
    outcomes.write_parquet(buffer)
    return buffer.getvalue(), facts


def _unpacked(answer: tuple[bytes, Mapping[str, Any]], _: Path) -> tuple[pl.DataFrame, Mapping[str, Any]]:
    table, facts = answer
    return pl.read_parquet(io.BytesIO(table)), facts
