"""About how long runs will take, before the first one: by the size of the model alone.

Nothing is loaded. A matrix product is timed for a moment, and a run is counted as the operations of
its forward and backward passes at a share of that speed. `--dry-run` takes a few steps instead, and
is far more exact.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
from safetensors import safe_open

from thresher.dataset import Dataset
from thresher.evaluation.run import ROWS_PER_BATCH
from thresher.experiments.experiment import Experiment
from thresher.models.device import may_have_gpu
from thresher.numeric.units import format_duration
from thresher.trainer.engine.fit import count_steps
from thresher.trainer.settings import TrainSettings

BYTES_PER_TOKEN = 4.0
TEMPLATE_TOKENS = {"sft": 20, "classification": 2, "text": 2}  # around what a row says
PADDING = 1.1  # tokens computed for each one that is read
# operations per weight and token: a step goes back through all weights, and changes few of them
FORWARD, STEP = 2.0, 4.0
SHARE_OF_SPEED = 1.0  # of the matrix products' speed that a step reaches
READ_BYTES_PER_S = 6e9  # of weights, of which each token of an answer needs all
SECONDS_PER_STEP, SECONDS_PER_RUN = 0.03, 1.5  # whatever the model
FACTOR = 2.0  # the estimate may be so many times too short or too long
TIMED_S = 0.05


def estimate_roughly(experiment: Experiment, sizes: Sequence[int], n_workers: int) -> tuple[float, float] | None:
    """Return the seconds of cells of these sizes, from and to; None where nothing is known.

    That is on a GPU, with a trainer of the user's own, and for a model of unknown size.
    """
    if experiment.trainer is not None or (experiment.settings.device != "cpu" and may_have_gpu()):
        return None
    context = experiment.build_context(experiment.pool.take(np.arange(1)), seed=0)
    n_weights = _count_used_weights(context.base.folder, has_head=bool(experiment.labels))
    if n_weights is None:
        return None
    settings = context.settings
    train, test = (_count_tokens(rows, settings) for rows in (experiment.pool, experiment.test))
    speed = SHARE_OF_SPEED * measure_speed(settings.precision)
    measuring = FORWARD * n_weights * test * len(experiment.test) / speed
    n_answers = min(settings.eval_generations, len(experiment.test)) if context.task == "sft" else 0
    token_seconds = max(4 * n_weights / READ_BYTES_PER_S, FORWARD * n_weights * min(n_answers, ROWS_PER_BATCH) / speed)
    measuring += math.ceil(n_answers / ROWS_PER_BATCH) * settings.max_new_tokens * token_seconds
    total = 0.0
    for size in sizes:
        n_steps = count_steps(size, settings) * settings.stop_at
        learned = n_steps * (STEP * n_weights * train * int(settings.batch_size or 1) / speed + SECONDS_PER_STEP)
        total += SECONDS_PER_RUN + learned + measuring
    return total / FACTOR / n_workers, total * FACTOR / n_workers


def _count_used_weights(folder: Path, *, has_head: bool) -> int | None:
    """Return the weights that each token meets; None where the folder has no safetensors.

    A classifier looks its embedding up; a language model multiplies with it at the end.
    """
    n = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(path, framework="numpy") as file:
            n += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118 - no mapping
    if n == 0 or not has_head:
        return n or None
    config = json.loads((folder / "config.json").read_bytes())
    return max(1, n - int(config.get("vocab_size") or 0) * int(config.get("hidden_size") or 0))


def _count_tokens(rows: Dataset, settings: TrainSettings) -> float:
    """Return the tokens that are computed for a row, on average."""
    texts = rows.frame.select("prompt", "response") if "response" in rows.frame.columns else rows.frame.select("prompt")
    n_bytes = sum(texts[name].str.len_bytes().fill_null(0).to_numpy().astype(np.float64) for name in texts.columns)
    tokens = np.minimum(n_bytes / BYTES_PER_TOKEN + TEMPLATE_TOKENS[rows.kind], float(settings.max_length or math.inf))
    return PADDING * float(tokens.mean())


def describe_rough_time(experiment: Experiment, sizes: Sequence[int], n_workers: int) -> str:
    """Return what is known of the time of cells before the first one, in words."""
    rough = estimate_roughly(experiment, sizes, n_workers)
    if rough is None:
        return "the first run tells how long they take"
    low, high = map(format_duration, rough)
    return f"roughly {low} to {high} by the size of the model, and the first run tells better"


@lru_cache(maxsize=2)
def measure_speed(precision: str) -> float:
    """Return the operations per second of a matrix product in "fp32" or "bf16" on this CPU."""
    import torch

    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    a, b = torch.ones(256, 768, dtype=dtype), torch.ones(768, 1024, dtype=dtype)
    a @ b  # begins threads
    n, began = 0, time.perf_counter()
    while time.perf_counter() - began < TIMED_S:
        a @ b
        n += 1
    return 2.0 * 256 * 768 * 1024 * n / (time.perf_counter() - began)
