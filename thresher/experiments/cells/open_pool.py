"""What runs the cells of a command, as its options say: this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from thresher.experiments.cells.cache import CellCache
from thresher.experiments.cells.cell import Cell, Outcome
from thresher.experiments.cells.retries import OnRetry, build_retry_listener
from thresher.experiments.cells.worker_pool import WorkerPool, count_workers
from thresher.experiments.experiment import Experiment
from thresher.experiments.settings import ExperimentSettings
from thresher.progress import OnProgress


class RayPool(WorkerPool):
    """Runs cells on a Ray cluster, as many at once as it has room for."""

    def __init__(self, cache: CellCache, on_retry: OnRetry | None = None) -> None:
        """Start nothing yet; the arguments are those of `WorkerPool`."""
        super().__init__(cache, 1, on_retry)

    def run(self, experiment: Experiment, cells: Sequence[Cell]) -> Iterator[tuple[int, Outcome]]:
        """Run cells, as `WorkerPool.run` does."""
        from thresher.experiments.cells.ray_engine import run_cells_on_ray

        return run_cells_on_ray(experiment, cells, self.cache, self.on_retry)


def open_worker_pool(settings: ExperimentSettings, on_progress: OnProgress | None) -> WorkerPool:
    """Return what runs the cells of a command; its workers end with a `with` block."""
    retry = build_retry_listener(on_progress)
    if settings.engine == "ray":
        return RayPool(CellCache(), retry)
    return WorkerPool(CellCache(), count_workers(settings.workers, settings.device), retry)
