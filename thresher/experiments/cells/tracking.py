"""What trackers hear of an experiment: each cell is a run, and all are one group."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from thresher.experiments.cells.cell import Outcome
from thresher.experiments.experiment import Experiment
from thresher.experiments.settings import ExperimentSettings
from thresher.progress import OnProgress, Progress
from thresher.trainer.tracking.tracker import Tracker


@dataclass(frozen=True)
class CellTracking:
    """Tells trackers of cells.

    Attributes:
        tracker: of the group.
        config: what all cells share.
    """

    tracker: Tracker
    config: dict[str, Any]

    @staticmethod
    def open(settings: ExperimentSettings, on_progress: OnProgress | None) -> CellTracking | None:
        """Return what tells the trackers that the settings name; None where they name none."""
        if settings.report_to is None:
            return None

        def note(text: str) -> None:
            if on_progress is not None:
                on_progress(Progress(stage="track", done=0, total=0, note=text))

        name = f"{datetime.now(UTC):%Y-%m-%d %H.%M.%S}" if settings.out is None else Path(settings.out).name
        config = {"model": str(settings.model), **settings.settings.to_json()}
        return CellTracking(Tracker(settings.report_to, f"{settings.command} {name}", note), config)

    def record(self, cell: tuple[str, int, int], outcome: Outcome, experiment: Experiment) -> None:
        """Tell of a cell that has ended: one that failed has no score."""
        method, n_rows, seed = cell
        config = {"method": method, "rows": n_rows, "seed": seed}
        self.record_run(f"{method}-{n_rows}-seed{seed}", config, outcome, measure_score(outcome, experiment, "test"))

    def record_run(self, name: str, config: dict[str, Any], outcome: Outcome, scores: dict[str, float]) -> None:
        """Tell of a run that has ended."""
        status = "done" if outcome.outcomes is not None else "unfinished" if outcome.is_unfinished else "failed"
        shared = {**self.config, "status": status, "from_cache": outcome.is_reused}
        self.tracker.start(name, {**shared, **config})
        facts = {key: value for key, value in outcome.facts.items() if key in ("steps", "train_seconds")}
        self.tracker.finish(name, {**scores, **facts})


def measure_score(outcome: Outcome, experiment: Experiment, where: str) -> dict[str, float]:
    """Return the metric of a cell by its name; nothing of one that failed."""
    if outcome.outcomes is None:
        return {}
    return {f"{where}/{experiment.metric.name}": experiment.metric.measure(outcome.outcomes).value}
