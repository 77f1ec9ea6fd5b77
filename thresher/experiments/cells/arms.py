"""Arms: cells that differ in what is compared, each with the same seeds, and their verdicts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import polars as pl

from thresher.evaluation.effect import Effect, adjust_p_values, describe_effect
from thresher.experiments.cells.cell import Cell, Outcome
from thresher.experiments.cells.open_pool import open_worker_pool
from thresher.experiments.cells.retries import require_results
from thresher.experiments.cells.tracking import CellTracking
from thresher.experiments.cells.worker_pool import WorkerPool
from thresher.experiments.design.rough_estimate import describe_rough_time
from thresher.experiments.experiment import Experiment
from thresher.experiments.paired_runs import PairedRuns
from thresher.experiments.settings import ExperimentSettings
from thresher.numeric.units import format_time_left
from thresher.progress import OnProgress, Progress

ArmSeed = tuple[str, int]
CELL_SCHEMA = {
    "arm": pl.String,
    "n_rows": pl.Int64,
    "seed": pl.Int64,
    "metric": pl.String,
    "value": pl.Float64,
    "stderr": pl.Float64,
    "n": pl.Int64,
    "steps": pl.Int64,
    "train_seconds": pl.Float64,
    "status": pl.String,
    "reason": pl.String,
    "cell": pl.String,
}


@dataclass
class ArmRunner:
    """Runs cells, by arm and seed, and compares arms.

    Attributes:
        worker_pool: that runs cells.
        on_progress: listener.
        tracking: tells trackers of the cells, or None.
        cells: what was run.
        outcomes: what came of it.
        experiments: in which each was run.
    """

    worker_pool: WorkerPool
    on_progress: OnProgress | None
    tracking: CellTracking | None = None
    cells: dict[ArmSeed, Cell] = field(default_factory=dict)
    outcomes: dict[ArmSeed, Outcome] = field(default_factory=dict)
    experiments: dict[ArmSeed, Experiment] = field(default_factory=dict)

    @staticmethod
    def open(settings: ExperimentSettings, on_progress: OnProgress | None) -> ArmRunner:
        """Return a runner as the settings say; its workers end with a `with` block."""
        return ArmRunner(open_worker_pool(settings, on_progress), on_progress, CellTracking.open(settings, on_progress))

    def __enter__(self) -> ArmRunner:
        """Return the runner itself."""
        return self

    def __exit__(self, *error: object) -> None:
        """End the workers."""
        self.worker_pool.__exit__(*error)

    def run(self, experiment: Experiment, cells: Sequence[Cell], *, stage: str) -> None:
        """Run cells; the name of an arm is the method of its cells.

        Args:
            experiment: that they share.
            cells: one for each arm and seed.
            stage: of the progress.
        """
        self._report_plan(experiment, cells, stage)
        done: list[tuple[Cell, Outcome]] = []
        for index, outcome in self.worker_pool.run(experiment, cells):
            cell = cells[index]
            done.append((cell, outcome))
            name = (cell.method, cell.seed)
            self.cells[name], self.outcomes[name], self.experiments[name] = cell, outcome, experiment
            self._report(done, experiment, stage, cells)
            if self.tracking is not None:
                self.tracking.record((cell.method, cell.n_rows, cell.seed), outcome, experiment)

    def _report_plan(self, experiment: Experiment, cells: Sequence[Cell], stage: str) -> None:
        """Say what is run next, before a model is loaded."""
        if self.on_progress is None or not cells:
            return
        sizes = [cell.n_rows for cell in cells]
        most = f"{min(sizes):,} to {max(sizes):,}" if min(sizes) < max(sizes) else f"{sizes[0]:,}"
        note = (
            f"plan: {stage}: {len(cells)} runs of {most} rows, measured on {len(experiment.test):,}; "
            f"{describe_rough_time(experiment, sizes, self.worker_pool.n_workers)}"
        )
        self.on_progress(Progress(stage=stage, done=0, total=len(cells), note=note))

    def _report(
        self, done: Sequence[tuple[Cell, Outcome]], experiment: Experiment, stage: str, cells: Sequence[Cell]
    ) -> None:
        if self.on_progress is None:
            return
        cell, outcome = done[-1]
        if outcome.outcomes is None:
            shown = f"{'not finished' if outcome.is_unfinished else 'failed'}: {outcome.reason}"
        else:
            shown = experiment.describe_score(outcome.outcomes)
            shown += " (from the cache)" if outcome.is_reused else f" in {outcome.facts['train_seconds']:.0f} s"
        left = _describe_time_left(done, len(cells) - len(done), self.worker_pool.n_workers)
        notes = [*self.worker_pool.cache.take_notes(), f"{cell.method}, seed {cell.seed}: {shown}{left}"]
        for note in notes:
            self.on_progress(Progress(stage=stage, done=len(done), total=len(cells), note=note))

    def list_tables(self, arm: str) -> list[pl.DataFrame]:
        """Return the outcomes of the finished runs of an arm, by seed."""
        tables = [self.outcomes[name].outcomes for name in sorted(self.outcomes) if name[0] == arm]
        return [table for table in tables if table is not None]

    def pair_runs(self, ours: str, theirs: str) -> PairedRuns:
        """Return the runs of two arms with the seeds that finished on both sides."""
        seeds = [seed for arm, seed in sorted(self.outcomes) if arm == ours and (theirs, seed) in self.outcomes]
        metric = self.experiments[ours, seeds[0]].metric
        sides = ([self.outcomes[arm, seed].outcomes for seed in seeds] for arm in (ours, theirs))
        return PairedRuns.match(metric, *sides)

    def compare(self, pairs: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
        """Return the verdict on each pair of arms that has two runs or more on both sides.

        Args:
            pairs: of arms, ours and theirs; the p-values are corrected for their number.

        Returns:
            `arm`, `against`, `value` and `against_value` (means of the metric), `difference`
            (`Effect`, positive where `arm` is better), `p_holm` and `sentence`.
        """
        effects: list[tuple[str, str, PairedRuns, Effect]] = []
        for ours, theirs in pairs:
            runs = self.pair_runs(ours, theirs)
            if len(runs) >= 2:
                effects.append((ours, theirs, runs, runs.estimate_effect(n_tests=len(pairs))))
        verdicts = []
        adjusted = adjust_p_values([effect.p for *_, effect in effects])
        for (ours, theirs, runs, effect), p in zip(effects, adjusted, strict=True):
            value, other = runs.compute_means()
            verdicts.append(
                {
                    "arm": ours,
                    "against": theirs,
                    "value": value,
                    "against_value": other,
                    "difference": asdict(effect),
                    "p_holm": p,
                    "sentence": describe_effect(effect, p, runs.unit),
                }
            )
        return verdicts

    def list_unfinished(self) -> list[dict[str, Any]]:
        """Return `arm`, `seed` and `reason` of the cells that the machine ended."""
        return [
            {"arm": arm, "seed": seed, "reason": outcome.reason}
            for (arm, seed), outcome in sorted(self.outcomes.items(), key=lambda entry: entry[0])
            if outcome.is_unfinished
        ]

    def require_results(self, command: str) -> None:
        """Refuse a call of which no cell has a result.

        Raises:
            IncompleteError: the machine ended some of them.
            InputError: every cell failed.
        """
        require_results(command, self.outcomes.values(), self.list_unfinished())

    def build_table(self) -> pl.DataFrame:
        """Return one line per cell; those that failed have a reason and no value."""
        lines = []
        for name, outcome in sorted(self.outcomes.items(), key=lambda entry: entry[0]):
            metric, table = self.experiments[name].metric, outcome.outcomes
            score = None if table is None else metric.measure(table)
            status = "done" if table is not None else "unfinished" if outcome.is_unfinished else "failed"
            lines.append(
                {
                    "arm": name[0],
                    "n_rows": self.cells[name].n_rows,
                    "seed": name[1],
                    "metric": metric.name,
                    "value": None if score is None else score.value,
                    "stderr": None if score is None else score.stderr,
                    "n": None if score is None else score.n,
                    "steps": outcome.facts.get("steps"),
                    "train_seconds": outcome.facts.get("train_seconds"),
                    "status": status,
                    "reason": outcome.reason,
                    "cell": outcome.key,
                }
            )
        return pl.DataFrame(lines, schema=CELL_SCHEMA)


def _describe_time_left(done: Sequence[tuple[Cell, Outcome]], n_left: int, n_workers: int) -> str:
    """Return how long the other runs take yet, by what the finished ones took."""
    spent = [each.facts["train_seconds"] for _, each in done if "train_seconds" in each.facts and not each.is_reused]
    if not spent or not n_left:
        return ""
    return f"; {format_time_left(sum(spent) / len(spent) * n_left / n_workers)}"
