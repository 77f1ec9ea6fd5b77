"""Runs the cells of one experiment, and keeps its rankings and everything that its cells have shown so far."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from thresher.errors import InputError, NotFoundError, did_you_mean
from thresher.evaluation.estimate import Estimate, mean_over_seeds
from thresher.experiments.cells.cache import CellCache
from thresher.experiments.cells.cell import Cell, Outcome
from thresher.experiments.cells.worker_pool import WorkerPool, default_workers
from thresher.experiments.experiment import Experiment, Overlap, prepare_experiment
from thresher.experiments.planning import Cost
from thresher.experiments.rankings import Rankings
from thresher.trainer.settings import TrainSettings

if TYPE_CHECKING:
    from thresher.features import Progress

CellId = tuple[str, int, int]  # method, rows, seed


@dataclass
class ExperimentRunner:
    """Runs cells and keeps what they showed.

    Attributes:
        experiment: what the cells share.
        rankings: of the methods.
        worker_pool: that runs cells.
        n_workers: processes at once.
        engine: "local" or "ray".
        on_progress: listener.
        cells: what was asked, by method, rows and seed.
        outcomes: what came of it.
    """

    experiment: Experiment
    rankings: Rankings
    worker_pool: WorkerPool
    n_workers: int
    engine: str
    on_progress: Callable[[Progress], None] | None
    cells: dict[CellId, Cell] = field(default_factory=dict)
    outcomes: dict[CellId, Outcome] = field(default_factory=dict)

    @staticmethod
    def open(
        pool: Any,
        *,
        eval: Any,  # noqa: A002 - the name of the command's option
        model: str | Path | None,
        metric: str | None,
        settings: TrainSettings,
        overlap: Overlap,
        method_settings: Mapping[str, Mapping[str, Any]] | None,
        select_options: Mapping[str, Any],
        workers: int | None,
        engine: str,
        on_progress: Callable[[Progress], None] | None,
    ) -> ExperimentRunner:
        """Load and check what an experiment was given; its arguments are described at `learning_curve`."""
        if engine not in ("local", "ray"):
            raise NotFoundError(f"engine: must be local or ray, got '{engine}'{did_you_mean(engine, ['local', 'ray'])}")
        if workers is not None and workers < 1:
            raise InputError(f"workers: must be at least 1, got {workers}")
        n_workers = default_workers() if workers is None else workers
        experiment = prepare_experiment(pool, eval=eval, model=model, settings=settings, metric=metric, overlap=overlap)
        asked = dict(select_options)
        if experiment.pool.kind != "classification" and model is not None:
            asked["model"] = str(model)  # methods that ask a language model ask the one that is trained
        return ExperimentRunner(
            experiment=experiment,
            rankings=Rankings(
                pool=experiment.pool, options=asked, settings=method_settings or {}, on_progress=on_progress
            ),
            worker_pool=WorkerPool(CellCache(), n_workers),
            n_workers=n_workers,
            engine=engine,
            on_progress=on_progress,
        )

    def set_equal_steps(self, n_rows: int) -> None:
        """Give all cells from here on the optimizer steps that so many rows take."""
        from thresher.trainer.engine.fit import count_steps

        experiment = replace(self.experiment, n_equal_steps=None)
        asked = experiment.request(experiment.pool.take(np.arange(n_rows)), seed=0)
        self.experiment = replace(experiment, n_equal_steps=count_steps(n_rows, asked.settings))

    def cost(self) -> Cost:
        """Return what cells cost."""
        asked = self.experiment.request(self.experiment.pool.take(np.arange(1)), seed=0).settings
        if asked.max_steps is None:
            return Cost(epochs=float(asked.epochs or 1), equal_rows=0, n_test=len(self.experiment.test))
        return Cost(
            epochs=None, equal_rows=asked.max_steps * int(asked.batch_size or 1), n_test=len(self.experiment.test)
        )

    def __enter__(self) -> ExperimentRunner:
        """Return the runner itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the workers."""
        self.worker_pool.__exit__(*error)

    def run(self, wanted: Sequence[CellId], *, largest: int) -> dict[CellId, float | None]:
        """Run cells, and return the metric of each; None where it failed.

        Args:
            wanted: cells.
            largest: number of rows that will be wanted of any method, so that each ranks once.
        """
        for method, size, seed in wanted:
            if (method, size, seed) not in self.cells:
                made = self.rankings.first(method, largest, seed=seed)
                spent = made.feature_seconds + made.select_seconds
                self.cells[method, size, seed] = Cell(
                    method=method, n_rows=size, seed=seed, rows=made.rows[:size], select_seconds=round(spent, 3)
                )
        cells = [self.cells[name] for name in wanted]
        for index, outcome in self._engine(cells):
            self.outcomes[wanted[index]] = outcome
            self._tell(wanted[index], outcome)
        return {name: self.value(name) for name in wanted}

    def _engine(self, cells: Sequence[Cell]) -> Iterable[tuple[int, Outcome]]:
        if self.engine == "ray":
            from thresher.experiments.cells.ray_engine import run_cells_on_ray

            return run_cells_on_ray(self.experiment, cells, self.worker_pool.store)
        return self.worker_pool.run(self.experiment, cells)

    def value(self, name: CellId) -> float | None:
        """Return the metric of a cell, or None where it failed."""
        found = self.estimate(name)
        return None if found is None else found.value

    def estimate(self, name: CellId) -> Estimate | None:
        """Return the metric of a cell with its error over test rows, or None where it failed."""
        table = self.outcomes[name].outcomes
        return None if table is None else self.experiment.metric.measure(table)

    def stderr(self, method: str, n_rows: int) -> float:
        """Return the standard error of the metric's mean over the runs of a method at a size, over rows and seeds."""
        tables = self.tables(method, n_rows)
        metric = self.experiment.metric
        if metric.column is None:
            return float(np.mean([metric.measure(table).stderr for table in tables]))
        return mean_over_seeds(np.stack([metric.per_row(table) for table in tables]), metric.weights(tables[0])).stderr

    def test_stderr(self, method: str, n_rows: int) -> float:
        """Return the standard error over test rows of one run, which the runs of a method at a size share."""
        return float(np.mean([self.experiment.metric.measure(table).stderr for table in self.tables(method, n_rows)]))

    def mean(self, method: str, n_rows: int) -> float | None:
        """Return the mean of the metric over the finished runs of a method at a size, or None without any."""
        values = [self.experiment.metric.measure(table).value for table in self.tables(method, n_rows)]
        return float(np.mean(values)) if values else None

    def tables(self, method: str, n_rows: int) -> list[pl.DataFrame]:
        """Return the outcomes of the finished runs of a method at a size, by seed."""
        names = sorted(name for name in self.outcomes if name[:2] == (method, n_rows))
        return [table for name in names if (table := self.outcomes[name].outcomes) is not None]

    def paired(
        self, method: str, baseline: str, n_rows: int
    ) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64] | None]:
        """Return the values of both methods for the seeds that finished on both sides: (seeds, n) each, and weights."""
        pairs = []
        for name, size, seed in sorted(self.outcomes):
            other = self.outcomes.get((baseline, n_rows, seed))
            if (name, size) == (method, n_rows) and other is not None:
                pairs.append((self.outcomes[name, size, seed].outcomes, other.outcomes))
        both = [(ours, theirs) for ours, theirs in pairs if ours is not None and theirs is not None]
        if not both:
            return np.empty((0, 0)), np.empty((0, 0)), None
        metric = self.experiment.metric
        ours, theirs = (np.stack([metric.per_row(table) for table in side]) for side in zip(*both, strict=True))
        return ours, theirs, metric.weights(both[0][0])

    def require_results(self) -> None:
        """Refuse an experiment in which every cell failed.

        Raises:
            InputError: every cell failed.
        """
        reasons = [outcome.reason for outcome in self.outcomes.values() if outcome.reason is not None]
        if reasons and len(reasons) == len(self.outcomes):
            raise InputError(f"experiment: all {len(reasons)} cells failed; the first one by {reasons[0]}")

    def _tell(self, name: CellId, outcome: Outcome) -> None:
        if self.on_progress is None:
            return
        from thresher.features import Progress

        method, size, seed = name
        if outcome.outcomes is None:
            shown = f"failed: {outcome.reason}"
        else:
            found = self.experiment.metric.measure(outcome.outcomes)
            shown = f"{self.experiment.metric.name} {found.value:.4f} ± {found.stderr:.4f}"
            shown += " (kept from before)" if outcome.is_reused else f" in {outcome.facts['train_seconds']:.0f} s"
        note = f"{method}, {size:,} rows, seed {seed}: {shown}"
        self.on_progress(Progress(stage="cells", done=len(self.outcomes), total=len(self.cells), note=note))
