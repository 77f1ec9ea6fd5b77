"""Which trackers are asked for, and what they are told: every run of a group, never the reverse.

A tracker that fails never fails the work: it is left out from then on, and that is said once.
"""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from thresher.errors import MissingExtraError, SettingsError, did_you_mean
from thresher.trainer.events import OnEvent, TrainEvent
from thresher.trainer.tracking.backends import TRACKERS, TrackedRun

HELP = "Trackers to log each run to: wandb, mlflow, trackio, tensorboard; separate several with commas."
_LOGGED = ("step", "eval")


def parse_trackers(names: str | None) -> list[str]:
    """Return the trackers of "wandb,tensorboard"; none for "none" and None.

    Raises:
        SettingsError: a name is unknown.
        MissingExtraError: the package of one is not installed.
    """
    wanted = list(dict.fromkeys(name.strip() for name in (names or "").split(",") if name.strip() not in ("", "none")))
    for name in wanted:
        if name not in TRACKERS:
            raise SettingsError(
                f"report_to: '{name}' must be one of {', '.join(TRACKERS)}{did_you_mean(name, TRACKERS)}"
            )
        package = TRACKERS[name].package
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, f"report_to '{name}'", name)
    return wanted


class Tracker:
    """Tells the trackers of the runs of one group."""

    def __init__(self, names: str | None, group: str, on_note: Callable[[str], None]) -> None:
        """Check the names.

        Args:
            names: of the trackers, with commas, or None.
            group: of all runs.
            on_note: hears of a tracker that fails.

        Raises:
            SettingsError: a name is unknown.
            MissingExtraError: the package of one is not installed.
        """
        self._names = parse_trackers(names)
        self._group = group
        self._on_note = on_note
        self._runs: dict[str, dict[str, TrackedRun]] = {}

    def start(self, run: str, config: Mapping[str, Any]) -> None:
        """Begin a run, unless it is under way."""
        if run in self._runs:
            return
        opened: dict[str, TrackedRun] = {}
        self._runs[run] = opened

        def begin(name: str) -> None:
            opened[name] = TRACKERS[name](self._group, run, config)

        for name in list(self._names):
            self._try(name, partial(begin, name))

    def log(self, run: str, values: Mapping[str, float], step: int) -> None:
        """Log numbers of a run at a step; what is no number is left out."""
        numbers = _keep_numbers(values)
        for name, tracked in self._runs.get(run, {}).items():
            self._try(name, partial(tracked.log, numbers, step))

    def finish(self, run: str, summary: Mapping[str, float]) -> None:
        """End a run with its results."""
        numbers = _keep_numbers(summary)
        for name, tracked in self._runs.pop(run, {}).items():
            self._try(name, partial(tracked.finish, numbers))

    def follow(self, listener: OnEvent, config: Mapping[str, Any]) -> OnEvent:
        """Return a listener of a training that tells the trackers, too."""

        def listen(event: TrainEvent) -> None:
            listener(event)
            if event.run and event.kind == "start":
                self.start(event.run, config)
            elif event.run and event.kind in _LOGGED:
                self.log(event.run, event.values, event.step)

        return listen if self._names else listener

    def finish_training(self, metrics: Mapping[str, Any], config: Mapping[str, Any], *, is_main: bool) -> None:
        """End the runs of a training with what was measured; the main process alone does."""
        for run in metrics["runs"] if self._names and is_main else ():
            name = f"{run['role']}/seed-{run['seed']}"
            self.start(name, {**config, "rows": run["rows"]})
            held_out = {f"held_out/{key}": value["value"] for key, value in (run["held_out"] or {}).items()}
            self.finish(name, {**held_out, "steps": run["n_steps"]})

    def _try(self, name: str, action: Callable[[], object]) -> None:
        if name not in self._names:
            return
        try:
            action()
        except Exception as error:  # noqa: BLE001 - whatever a tracker does, the work goes on
            self._names.remove(name)
            first = (str(error).strip().splitlines() or [""])[0][:200]
            self._on_note(f"{name} failed, and nothing more is sent to it: {type(error).__name__}: {first}")


def _keep_numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: float(value) for name, value in values.items() if isinstance(value, int | float) and math.isfinite(value)
    }
