"""One class for each tracker: how a run of a group begins, what it logs, and how it ends.

Where runs go is said as each tracker's own documentation says it: WANDB_PROJECT and WANDB_MODE,
MLFLOW_TRACKING_URI and MLFLOW_EXPERIMENT_NAME, TRACKIO_DIR and TRACKIO_PROJECT,
TENSORBOARD_LOGGING_DIR.
"""

from __future__ import annotations

import json
import os
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Any

PROJECT = "thresher"


class TrackedRun(ABC):
    """One run at a tracker.

    Attributes:
        package: that must be installed.
    """

    package: str

    @abstractmethod
    def __init__(self, group: str, name: str, config: Mapping[str, Any]) -> None:
        """Begin a run: its group, its name in the group, and what it was asked."""

    @abstractmethod
    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step."""

    @abstractmethod
    def finish(self, summary: Mapping[str, float]) -> None:
        """End the run with its results."""


class WandbRun(TrackedRun):
    """A run of wandb; the group is its group."""

    package = "wandb"

    def __init__(self, group: str, name: str, config: Mapping[str, Any]) -> None:
        import wandb

        project = os.environ.get("WANDB_PROJECT", PROJECT)
        self._run = wandb.init(project=project, group=group, name=name, config=dict(config), reinit="create_new")

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step."""
        self._run.log(dict(values), step=step)

    def finish(self, summary: Mapping[str, float]) -> None:
        """End the run with its results."""
        self._run.summary.update(dict(summary))
        self._run.finish()


class MlflowRun(TrackedRun):
    """A run of an MLflow experiment; the group is the tag `group`."""

    package = "mlflow"

    def __init__(self, group: str, name: str, config: Mapping[str, Any]) -> None:
        from mlflow import MlflowClient

        self._client = MlflowClient()
        experiment = os.environ.get("MLFLOW_EXPERIMENT_NAME", PROJECT)
        known = self._client.get_experiment_by_name(experiment)
        number = self._client.create_experiment(experiment) if known is None else known.experiment_id
        run = self._client.create_run(number, run_name=name, tags={"group": group})
        self._id = run.info.run_id
        for key, value in config.items():
            self._client.log_param(self._id, key, value)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step."""
        from mlflow.entities import Metric

        now = int(time.time() * 1000)
        self._client.log_batch(self._id, [Metric(name, value, now, step) for name, value in values.items()])

    def finish(self, summary: Mapping[str, float]) -> None:
        """End the run with its results."""
        self.log(summary, 0)
        self._client.set_terminated(self._id)


class TrackioRun(TrackedRun):
    """A run of trackio; the group is its group."""

    package = "trackio"

    def __init__(self, group: str, name: str, config: Mapping[str, Any]) -> None:
        import trackio

        project = os.environ.get("TRACKIO_PROJECT", PROJECT)
        self._run = trackio.init(project, name=f"{group}/{name}", group=group, config=dict(config), embed=False)

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step."""
        self._run.log(dict(values), step=step)

    def finish(self, summary: Mapping[str, float]) -> None:
        """End the run with its results."""
        if summary:
            self._run.log(dict(summary))
        self._run.finish()


class TensorboardRun(TrackedRun):
    """A folder of TensorBoard; the group is the folder around it."""

    package = "tensorboard"

    def __init__(self, group: str, name: str, config: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = Path(os.environ.get("TENSORBOARD_LOGGING_DIR", "runs"), group, name.replace("/", "-"))
        self._writer = SummaryWriter(str(folder))
        self._step = 0
        self._writer.add_text("settings", json.dumps(dict(config), indent=1, default=str))

    def log(self, values: Mapping[str, float], step: int) -> None:
        """Log numbers at a step."""
        self._step = max(self._step, step)
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def finish(self, summary: Mapping[str, float]) -> None:
        """End the run with its results."""
        self.log(summary, self._step)
        self._writer.close()


TRACKERS: dict[str, type[TrackedRun]] = {
    "wandb": WandbRun,
    "mlflow": MlflowRun,
    "trackio": TrackioRun,
    "tensorboard": TensorboardRun,
}
