"""Runs the cells of one experiment, and keeps its rankings and what its cells have shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any

import numpy as np
import polars as pl

from thresher.errors import InputError
from thresher.evaluation.curves.row_noise import bound_unseen, estimate_row_values, estimate_test_covariance
from thresher.evaluation.estimate import Estimate, linearize_ratio, mean_over_seeds
from thresher.evaluation.lm_eval_task import LmEvalMetric
from thresher.evaluation.metric import RATES
from thresher.experiments.cells.cell import Cell, Outcome
from thresher.experiments.cells.open_pool import open_worker_pool
from thresher.experiments.cells.retries import require_results
from thresher.experiments.cells.tracking import CellTracking
from thresher.experiments.cells.worker_pool import WorkerPool, count_workers
from thresher.experiments.design.group_axis import GroupAxis
from thresher.experiments.design.rough_estimate import describe_rough_time
from thresher.experiments.design.variants import Variant
from thresher.experiments.experiment import Experiment
from thresher.experiments.paired_runs import PairedRuns, align_tables, estimate_overlap
from thresher.experiments.planning import Cost
from thresher.experiments.rankings import Rankings
from thresher.experiments.settings import BASELINE, MethodExperimentSettings
from thresher.numeric.arrays import Float64, Int64
from thresher.numeric.units import format_amount, format_count, format_time_left
from thresher.progress import OnProgress, Progress
from thresher.trainer.context import load_rows
from thresher.trainer.engine.tokenization import CUT_AWAY
from thresher.trainer.held_out import tokenize_held_out

CellId = tuple[str, int, int]  # method, rows, seed
MOST_SHARED = 0.95  # all rows are kept, or nearly: then seeds differ by their training alone


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
        variants: by label, where methods are run at several values of a second factor; the label
            then stands in the place of a method's name.
        axis: groups that sizes count in place of rows, or None.
        tracking: tells trackers of the cells, or None.
        row_values: by table of outcomes, of a metric that has no value per row.
    """

    experiment: Experiment
    rankings: Rankings
    worker_pool: WorkerPool
    n_workers: int
    engine: str
    on_progress: OnProgress | None
    cells: dict[CellId, Cell] = field(default_factory=dict)
    outcomes: dict[CellId, Outcome] = field(default_factory=dict)
    row_values: dict[int, Float64] = field(default_factory=dict)
    variants: dict[str, Variant] = field(default_factory=dict)
    axis: GroupAxis | None = None
    tracking: CellTracking | None = None

    @staticmethod
    def open(
        experiment: Experiment, settings: MethodExperimentSettings, on_progress: OnProgress | None = None
    ) -> ExperimentRunner:
        """Return a runner of an experiment's cells; its workers end with a `with` block."""
        options: dict[str, Any] = {"encoder": settings.encoder, "device": settings.device}
        if experiment.pool.kind != "classification" and experiment.model is not None:
            # methods that ask a language model ask the one that is trained
            options["model"] = str(experiment.model)
        return ExperimentRunner(
            experiment=experiment,
            rankings=Rankings(
                experiment.pool,
                options,
                settings.method_settings or {},
                on_progress,
                target=None if settings.target_rows is None else load_rows(settings.target_rows),
            ),
            worker_pool=open_worker_pool(settings, on_progress),
            n_workers=count_workers(settings.workers, settings.device),
            engine=settings.engine,
            on_progress=on_progress,
            tracking=CellTracking.open(settings, on_progress),
        )

    def set_equal_steps(self, n_rows: int) -> None:
        """Give all cells from here on the optimizer steps that so many rows take.

        A trainer of the user's own trains as long as it wants.
        """
        if self.experiment.trainer is not None:
            return
        from thresher.trainer.engine.fit import count_steps

        experiment = replace(self.experiment, n_equal_steps=None)
        context = experiment.build_context(experiment.pool.take(np.arange(n_rows)), seed=0)
        self.experiment = replace(experiment, n_equal_steps=count_steps(n_rows, context.settings))

    def compute_cost(self) -> Cost:
        """Return what cells cost."""
        if self.experiment.trainer is not None:  # its time is taken to grow with the rows
            equal_rows = 0 if self.axis is None else self.axis.n_rows
            return Cost(epochs=None if equal_rows else 1.0, equal_rows=equal_rows, n_test=len(self.experiment.test))
        settings, n_test = self.experiment.resolve_settings(), len(self.experiment.test)
        batch_size = int(settings.batch_size or 1)
        if self.axis is not None:  # every size has the same rows
            n_steps = settings.max_steps or round(float(settings.epochs or 1) * self.axis.n_rows / batch_size)
            return Cost(epochs=None, equal_rows=max(n_steps, settings.min_steps or 1) * batch_size, n_test=n_test)
        if settings.max_steps is None:
            least_rows = (settings.min_steps or 1) * batch_size
            return Cost(epochs=float(settings.epochs or 1), equal_rows=0, n_test=n_test, least_rows=least_rows)
        return Cost(epochs=None, equal_rows=settings.max_steps * batch_size, n_test=n_test)

    def __enter__(self) -> ExperimentRunner:
        """Return the runner itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the workers."""
        self.worker_pool.__exit__(*error)

    def run(self, names: Sequence[CellId], *, largest: int) -> dict[CellId, float | None]:
        """Run cells, and return the metric of each; None where it failed or was not finished.

        Args:
            names: of the cells.
            largest: number of rows that will be needed of any method, so that each ranks once where
                its choices are nested.
        """
        if not self.cells:
            self._report_plan(names)
        for method, size, seed in names:
            if (method, size, seed) not in self.cells:
                variant = self.variants.get(method)
                rows, seconds = self._choose_rows(variant.method if variant else method, size, seed, largest)
                self.cells[method, size, seed] = Cell(
                    method=method,
                    n_rows=size,
                    seed=seed,
                    rows=rows,
                    settings=variant.settings if variant else None,
                    model=variant.model if variant else None,
                    select_seconds=seconds,
                )
        for index, outcome in self.worker_pool.run(self.experiment, [self.cells[name] for name in names]):
            self._report_damage()
            self._require_measured(self.cells[names[index]], outcome)
            self.outcomes[names[index]] = outcome
            self._report(names[index], outcome)
            if self.tracking is not None:
                self.tracking.record(names[index], outcome, self.experiment)
        estimates = {name: self.estimate(name) for name in names}
        return {name: None if estimate is None else estimate.value for name, estimate in estimates.items()}

    def _require_measured(self, cell: Cell, outcome: Outcome) -> None:
        """Refuse test rows of which one at most can be measured, before more cells are run.

        Raises:
            InputError: with how many can be, and why the others cannot.
        """
        experiment, table, reasons, remedy = self.experiment, outcome.outcomes, "", "give other test rows"
        if table is None:
            return
        is_per_row = experiment.trainer is None and not isinstance(experiment.metric, LmEvalMetric)
        column = experiment.metric.column if is_per_row else None
        n_measured = len(table) if column is None else table[column].count()
        if n_measured >= 2:
            return
        if experiment.trainer is None:
            left_out = tokenize_held_out(cell.build_context(experiment), experiment.test).left_out
            reasons = "".join(f"; {format_count(n, 'row')}: {reason}" for reason, n in left_out.most_common())
            remedy = "raise max_length (--train max_length=N)" if CUT_AWAY in left_out else remedy
        raise InputError(
            f"eval: at least 2 test rows must be measured, as their spread is the error bar, and "
            f"{n_measured} of {len(experiment.test):,} can be{reasons}; {remedy}"
        )

    def _choose_rows(self, method: str, size: int, seed: int, largest: int) -> tuple[Int64, float]:
        if self.axis is not None:
            return self.axis.sample(size, seed=seed), 0.0
        ranking = self.rankings.rank(method, size, seed=seed, largest=largest)
        return ranking.rows[:size], round(ranking.seconds, 3)

    def estimate(self, name: CellId) -> Estimate | None:
        """Return the metric of a cell with its error over test rows, or None where it failed."""
        table = self.outcomes[name].outcomes
        return None if table is None else self.experiment.metric.measure(table)

    def estimate_stderr(self, method: str, n_rows: int) -> float:
        """Return the standard error, over rows and seeds, of the mean of a method at a size."""
        tables, metric = self.list_tables(method, n_rows), self.experiment.metric
        # of a metric of all rows, such as macro-F1, these are linearized values
        return mean_over_seeds(np.stack([metric.per_row(table) for table in tables]), metric.weights(tables[0])).stderr

    def estimate_test_stderr(self, method: str, n_rows: int) -> float:
        """Return the standard error over test rows of one run of a method at a size."""
        metric = self.experiment.metric
        return float(np.mean([metric.measure(table).stderr for table in self.list_tables(method, n_rows)]))

    def estimate_test_covariance(self, method: str, sizes: Sequence[int]) -> Float64:
        """Return how the means of a method at several sizes err together: (m, m)."""
        return self.estimate_covariance([(method, size) for size in sizes], has_unseen=True)

    def estimate_covariance(self, points: Sequence[tuple[str, int]], *, has_unseen: bool = False) -> Float64:
        """Return how the means of methods at sizes err together, relative to the last: (m, m).

        Args:
            points: methods and sizes.
            has_unseen: test rows that all runs answer alike may hide a difference, as between
                rising sizes of one method.
        """
        tables, metric = [self.list_tables(*point) for point in points], self.experiment.metric
        if metric.column is None:
            values = [np.stack([self._estimate_row_values(table) for table in own]) for own in tables]
            return estimate_test_covariance(values, unseen=self._bound_unseen(tables[0][0]) if has_unseen else 0.0)
        # models differ in the rows that they can read, and in how many tokens a row has: each run
        # is made linear by its own weights
        aligned = iter(align_tables(metric, [table for own in tables for table in own]))
        values = [
            np.stack(
                [linearize_ratio(metric.per_row(table), metric.weights(table)) for table in islice(aligned, len(own))]
            )
            for own in tables
        ]
        return estimate_test_covariance(values, unseen=None if has_unseen else 0.0)

    def _bound_unseen(self, table: pl.DataFrame) -> float:
        """Return what test rows may hide of a mean over classes; 0 for a metric of the user's."""
        if self.experiment.metric.name not in RATES:
            return 0.0
        return bound_unseen(table["label"].value_counts()["count"])

    def _estimate_row_values(self, table: pl.DataFrame) -> Float64:
        if id(table) not in self.row_values:
            values = estimate_row_values(lambda rows: self.experiment.metric.measure(rows).value, table)
            self.row_values[id(table)] = values
        return self.row_values[id(table)]

    def compute_mean(self, method: str, n_rows: int) -> float | None:
        """Return the mean over the finished runs of a method at a size, or None without any."""
        values = [self.experiment.metric.measure(table).value for table in self.list_tables(method, n_rows)]
        return float(np.mean(values)) if values else None

    def list_groups(self) -> list[tuple[str, int]]:
        """Return the methods and sizes that were run, sorted."""
        return sorted({name[:2] for name in self.outcomes})

    def list_tables(self, method: str, n_rows: int) -> list[pl.DataFrame]:
        """Return the outcomes of the finished runs of a method at a size, by seed."""
        names = sorted(name for name in self.outcomes if name[:2] == (method, n_rows))
        return [table for name in names if (table := self.outcomes[name].outcomes) is not None]

    def pair_runs(self, ours: tuple[str, int], theirs: tuple[str, int]) -> PairedRuns:
        """Return the runs of two methods and sizes, for the seeds that finished on both sides."""
        names = sorted(name for name in self.outcomes if name[:2] == ours)
        seeds = [seed for *_, seed in names if (*theirs, seed) in self.outcomes]
        sides = ([self.outcomes[*group, seed].outcomes for seed in seeds] for group in (ours, theirs))
        return PairedRuns.match(self.experiment.metric, *sides, shared=self._estimate_shared(ours, theirs, seeds))

    def _estimate_shared(self, ours: tuple[str, int], theirs: tuple[str, int], seeds: Sequence[int]) -> float:
        """Return the correlation of two seeds that the rows which both chose give a difference.

        It is 0 where seeds choose from the same rows: then the subsets are judged, not the methods.
        """
        if self.rankings.redraw >= 1:
            return 0.0
        choices = ([self.cells[*group, seed].rows for seed in seeds] for group in (ours, theirs))
        overlaps = [estimate_overlap(rows, len(self.experiment.pool)) for rows in choices if rows]
        # both sides are lucky alike: the luck of the difference is half of each
        return min(float(np.mean(overlaps)), MOST_SHARED) if overlaps else 0.0

    def count_test_values(self) -> int:
        """Return the test rows on which the metric has a value: of answers, those generated.

        At least one cell must be finished.
        """
        tables = (outcome.outcomes for outcome in self.outcomes.values() if outcome.outcomes is not None)
        return len(self.experiment.metric.per_row(next(tables)))

    def list_unfinished(self) -> list[dict[str, Any]]:
        """Return `method`, `n_rows`, `seed` and `reason` of the cells that the machine ended."""
        return [
            {"method": method, "n_rows": size, "seed": seed, "reason": outcome.reason}
            for (method, size, seed), outcome in sorted(self.outcomes.items(), key=lambda entry: entry[0])
            if outcome.is_unfinished
        ]

    def require_results(self) -> None:
        """Refuse an experiment without a single result.

        Raises:
            IncompleteError: no cell was finished, and the machine ended some.
            InputError: every cell failed.
        """
        require_results("experiment", self.outcomes.values(), self.list_unfinished())

    def _report_damage(self) -> None:
        for note in self.worker_pool.cache.take_notes():
            if self.on_progress is not None:
                self.on_progress(Progress(stage="cells", done=len(self.outcomes), total=len(self.cells), note=note))

    def _report_plan(self, names: Sequence[CellId]) -> None:
        """Say what is run first, before methods rank and models are loaded."""
        if self.on_progress is None:
            return
        methods, sizes, seeds = (list(dict.fromkeys(parts)) for parts in zip(*names, strict=True))
        unit = "rows" if self.axis is None else self.axis.unit
        at = " and ".join(f"{size:,}" for size in (min(sizes), max(sizes))) if len(sizes) > 1 else f"{sizes[0]:,}"
        named = [
            f"{name} ({variant})" if variant else name for name, _, variant in (m.partition(", ") for m in methods)
        ]
        shown = f"{', '.join(named)} at {f'{len(sizes)} sizes between ' if len(sizes) > 1 else ''}{at} {unit}"
        time_needed = describe_rough_time(self.experiment, [size for _, size, _ in names], self.n_workers)
        note = (
            f"plan: {format_count(len(names), 'run')} to begin with: {shown}, {format_count(len(seeds), 'seed')}, "
            f"measured on {format_count(len(self.experiment.test), 'row')}; {time_needed}"
        )
        self.on_progress(Progress(stage="cells", done=0, total=len(names), note=note))

    def _describe_time_left(self) -> str:
        """Return how long the cells that are known take yet, by what the finished ones took."""
        cost = self.compute_cost()
        spent = [(name, each) for name, each in self.outcomes.items() if "train_seconds" in each.facts]
        left = sum(cost.compute(size) for name in self.cells.keys() - self.outcomes.keys() for size in [name[1]])
        done = sum(cost.compute(name[1]) for name, _ in spent)
        if not left or not done:
            return ""
        seconds = sum(each.facts["train_seconds"] for _, each in spent) / done * left / self.n_workers
        return f"; {format_time_left(seconds)} for the runs planned so far"

    def _report(self, name: CellId, outcome: Outcome) -> None:
        if self.on_progress is None:
            return
        method, size, seed = name
        if outcome.outcomes is None:
            shown = f"{'not finished' if outcome.is_unfinished else 'failed'}: {outcome.reason}"
        else:
            shown = self.experiment.describe_score(outcome.outcomes)
            shown += " (from the cache)" if outcome.is_reused else f" in {outcome.facts['train_seconds']:.0f} s"
        label, _, variant = method.partition(", ")
        whose = f"{size:,} {'random rows' if label == BASELINE else f'rows chosen by {label}'}"
        whose = whose if self.axis is None else format_amount(size, self.axis.unit)
        note = f"{whose}{f' ({variant})' if variant else ''}, seed {seed}: {shown}{self._describe_time_left()}"
        self.on_progress(Progress(stage="cells", done=len(self.outcomes), total=len(self.cells), note=note))
