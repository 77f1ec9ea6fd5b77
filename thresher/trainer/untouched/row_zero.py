"""The untouched language model: the base before any training, measured once and kept.

    ROOT/base/v1/KEY/{outcomes.parquet, manifest.json}

What is kept depends on the model, the held-out rows and the rows in the prompt, not on what is
trained: all cells of an experiment, and all commands on the same held-out rows, share it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.stored import read_table
from thresher.evaluation.lm_eval_task import identify_lm_eval_task
from thresher.trainer.context import PACKAGES, RunContext, content_hash
from thresher.trainer.engine.fit import load_untouched_model
from thresher.trainer.events import TrainEvent
from thresher.trainer.held_out import HeldOut, prepare_held_out
from thresher.trainer.untouched.base_cache import get_base_cache
from thresher.trainer.untouched.shots import put_examples

RECIPE = 1  # raise it when what was kept before must not be used again
OUTCOMES = "outcomes.parquet"
# what the outcomes of a model depend on besides the rows
SETTINGS = (
    "max_length",
    "precision",
    "load_in_4bit",
    "loss_on",
    "special_tokens",
    "eval_generations",
    "max_new_tokens",
)


@dataclass(frozen=True)
class BaseOutcomes:
    """What the untouched model does on the held-out rows.

    Attributes:
        shots: training rows in each prompt, as asked for.
        mean_shots: on average, after cutting to fit.
        outcomes: one row per held-out row, as of a trained model.
    """

    shots: int
    mean_shots: float
    outcomes: pl.DataFrame


def measure_base(context: RunContext) -> list[BaseOutcomes]:
    """Measure the untouched language model with each number of rows in the prompt.

    Args:
        context: of a language model; its training rows are the examples. Of a classifier, and
            without held-out rows, there is nothing to measure here.

    Returns:
        By rising number of rows in the prompt; empty where nothing is measured.
    """
    held_out = None if context.task == "classification" else prepare_held_out(context)
    if held_out is None or not context.untouched.prompts:
        return []
    measurement = _Measurement(context, held_out)
    return [measurement.load(shots) for shots in context.untouched.prompts]


class _Measurement:
    """Measures the untouched model of a call; it is loaded when something is not known yet."""

    def __init__(self, context: RunContext, held_out: HeldOut) -> None:
        """Measure nothing yet."""
        self.context, self.held_out = context, held_out
        self.model: Any = None

    def load(self, shots: int) -> BaseOutcomes:
        """Return what the model does with so many rows in the prompt, measured once."""
        if self.context.accelerator.num_processes > 1:  # they measure together, and keep nothing
            return self.measure(shots)
        cache, key = get_base_cache(), self.compute_key(shots)

        def write(work: Path) -> None:
            fresh = self.measure(shots)
            write_parquet(fresh.outcomes, work / OUTCOMES)
            content = {"format": FORMAT, "kind": "base", "identity": key, "mean_shots": fresh.mean_shots}
            write_atomic(work / MANIFEST, Manifest(content).to_json())

        folder = cache.make(key, write)
        mean_shots = float(Manifest.read(folder).content["mean_shots"])
        return BaseOutcomes(shots, mean_shots, read_table(folder / OUTCOMES))

    def measure(self, shots: int) -> BaseOutcomes:
        """Run the model."""
        context, held_out, mean_shots = self.context, self.held_out, 0.0
        if shots:
            prompts = put_examples(context, held_out, shots)
            held_out, mean_shots = prompts.held_out, prompts.mean_shots
        if self.model is None:
            self.model = load_untouched_model(context)
        # rows in the prompt of the test rows are none in that of an lm-eval task
        outcomes = held_out.measure(self.model) if shots else held_out.measure_all(self.model)
        what = f"with {shots} training rows in the prompt" if shots else "as it is"
        if context.accelerator.is_main_process:
            context.on_event(TrainEvent(kind="note", message=f"measured the untouched model {what}"))
        return BaseOutcomes(shots, mean_shots, outcomes)

    def compute_key(self, shots: int) -> str:
        """Return the hash of everything that the outcomes depend on."""
        context, settings = self.context, self.context.settings.to_json()
        identity: Mapping[str, Any] = {
            "recipe": RECIPE,
            "model": context.base.fingerprint,
            "task": context.task,
            "held_out": content_hash(self.held_out.rows),
            "settings": {name: settings.get(name) for name in SETTINGS},
            "shots": shots,
            **(context.split.identify_answered(context.settings) if context.task == "sft" else {}),
            "examples": content_hash(context.split.train) if shots else None,
            "versions": versions(PACKAGES),
        }
        if settings.get("metric") is not None and not shots:
            identity = {
                **identity,
                **identify_lm_eval_task(settings["metric"]),
                "metric_limit": settings.get("metric_limit"),
            }
        return digest(identity)
