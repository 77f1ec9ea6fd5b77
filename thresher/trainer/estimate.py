"""What runs of training will take, from a few steps of one: `--dry-run` of all that trains."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from thresher.numeric.memory import get_peak_bytes
from thresher.numeric.units import format_bytes, format_count, format_duration
from thresher.trainer.context import RunContext, resolve_run
from thresher.trainer.engine.fit import count_steps, fit
from thresher.trainer.engine.tokenization import Examples, require_rows
from thresher.trainer.held_out import prepare_held_out
from thresher.trainer.settings import TrainSettings

N_TRIAL_STEPS = 6
FEW_ROWS, MORE_ROWS = 64, 256  # the start of a run is timed with both: a part of it reads every row
N_EVAL_ROWS, N_ANSWERS = 64, 4


@dataclass(frozen=True, kw_only=True)
class RunCost:
    """What a run takes, by its parts.

    Attributes:
        start_seconds: of loading the model.
        row_seconds: of reading each training row once before the first step.
        step_seconds: of an optimizer step.
        step_tokens: tokens in it.
        eval_row_seconds: of measuring a held-out row.
        answer_seconds: of writing an answer to one.
        memory_bytes: peak of this process, and on a GPU.
    """

    start_seconds: float
    row_seconds: float
    step_seconds: float
    step_tokens: float
    eval_row_seconds: float
    answer_seconds: float
    memory_bytes: int

    def estimate(self, n_rows: int, settings: TrainSettings, n_eval: int) -> tuple[float, int]:
        """Return the seconds and training tokens of a run.

        Args:
            n_rows: that it learns from.
            settings: of the training, resolved.
            n_eval: held-out rows.
        """
        n_steps = round(settings.stop_at * count_steps(n_rows, settings))
        n_answers = min(settings.eval_generations, n_eval)
        measuring = n_eval * self.eval_row_seconds + n_answers * self.answer_seconds
        seconds = self.start_seconds + n_rows * self.row_seconds + n_steps * self.step_seconds + measuring
        return seconds, round(n_steps * self.step_tokens)


@dataclass(frozen=True, kw_only=True)
class PlannedRuns:
    """Runs of the same kind.

    Attributes:
        name: of them.
        n: how many; 0 for what is read or measured without training.
        seconds: of all of them, one after the other.
        tokens: that they learn from, in all passes.
    """

    name: str
    n: int
    seconds: float
    tokens: int


@dataclass(frozen=True, kw_only=True)
class TrainingPlan:
    """What runs will take. `str` of it is the whole account.

    Attributes:
        parts: kinds of runs, in the order they are run.
        n_workers: runs at once.
        memory_bytes: of one run.
        note: what is not counted.
    """

    parts: tuple[PlannedRuns, ...]
    n_workers: int
    memory_bytes: int
    note: str

    @property
    def seconds(self) -> float:
        """Of all runs, one after the other."""
        return sum(part.seconds for part in self.parts)

    def to_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return {**asdict(self), "seconds": self.seconds, "runs": sum(part.n for part in self.parts)}

    def __str__(self) -> str:
        """Return the account, in a few lines."""
        lines = [
            f"{part.name}: {_format_runs(part.n, part.tokens, part.seconds)}" for part in self.parts if part.seconds
        ]
        n_runs, n_tokens = sum(part.n for part in self.parts), sum(part.tokens for part in self.parts)
        at_once = f" ({self.n_workers} at once)" if self.n_workers > 1 else ""
        lines.append(
            f"total: {_format_runs(n_runs, n_tokens, self.seconds)} one after the other{at_once}; "
            f"{format_bytes(self.memory_bytes)} of memory each"
        )
        lines.append(f"measured on a few steps on this machine; {self.note}; nothing was written")
        return "\n".join(lines)


def _format_runs(n: int, n_tokens: int, seconds: float) -> str:
    # what is read alone has no runs
    runs = [format_count(n, "run"), f"{n_tokens:,} tokens"] if n else []
    return ", ".join([*runs, format_duration(seconds)])


def plan_training(data: Any, **call: Any) -> TrainingPlan:
    """Estimate what `train` with the same arguments will take; nothing is written.

    Args:
        data: as for `train`.
        call: arguments of `train`, but for its folder.
    """
    context = resolve_run(data, **{"seed": 0, **call})
    split, settings = context.split, context.settings
    n_eval = 0 if split.held_out is None else len(split.held_out)
    n_runs = len(context.seeds) * (1 if split.control is None else 2)
    cost = measure_run(context)
    seconds, tokens = cost.estimate(len(split.train), settings, n_eval)
    what = "the same rows, plainly" if split.is_control_same else "random rows"
    sides = "" if split.control is None else f", and as many on {what}"
    n_rows, n_steps = len(split.train), count_steps(len(split.train), settings)
    name = f"{format_count(n_rows, 'row')}, {format_count(n_steps, 'step')}{sides}"
    runs = PlannedRuns(name=name, n=n_runs, seconds=n_runs * seconds, tokens=n_runs * tokens)
    note = "runs finished earlier cost nothing"
    return TrainingPlan(parts=(runs,), n_workers=1, memory_bytes=cost.memory_bytes, note=note)


def measure_run(context: RunContext) -> RunCost:
    """Take a few steps, and measure a few held-out rows; nothing is kept.

    Args:
        context: of a run; its rows are sampled.
    """
    train = context.split.train
    rows = np.random.default_rng(0).permutation(len(train))[:MORE_ROWS]
    examples = context.tokenize(train.take(np.sort(rows)))
    require_rows(examples, "train", n_vocabulary=context.base.n_vocabulary)
    few = replace(examples, rows=examples.rows[:FEW_ROWS], position=examples.position[:FEW_ROWS])
    with TemporaryDirectory() as folder:
        _time_fit(context, few, Path(folder) / "warm")  # imports, and first use of every kernel
        start, steps, _ = _time_fit(context, few, Path(folder) / "few")
        more_start, more_steps, model = _time_fit(context, examples, Path(folder) / "more")
    row_seconds = max(0.0, more_start - start) / max(1, len(examples) - len(few))
    eval_row, answer = time_measuring(context, model)
    batch_size = int(context.settings.batch_size or 1)
    return RunCost(
        start_seconds=max(0.0, start - row_seconds * len(few)),
        row_seconds=row_seconds,
        step_seconds=(steps + more_steps) / 2,
        step_tokens=min(batch_size, len(train)) * examples.n_tokens / len(examples),
        eval_row_seconds=eval_row,
        answer_seconds=answer,
        memory_bytes=get_peak_bytes(),
    )


def _time_fit(context: RunContext, examples: Examples, folder: Path) -> tuple[float, float, object]:
    """Return the seconds before the first step and of a step, and the model."""
    times: dict[str, list[float]] = {"start": [], "step": []}
    trial = replace(
        context,
        settings=replace(
            context.settings, epochs=None, min_steps=None, max_steps=N_TRIAL_STEPS, stop_at=1.0, save_every_s=1e9
        ),
        on_event=lambda event: times.setdefault(event.kind, []).append(time.perf_counter()),
    )
    began = time.perf_counter()
    trained = fit(trial, examples.rows, seed=context.seeds[0], folder=folder, run="trial")
    started = times["start"][0]
    return started - began, (times["step"][-1] - started) / len(times["step"]), trained.model


def time_measuring(context: RunContext, model: object) -> tuple[float, float]:
    """Return the seconds of measuring a held-out row, and of writing an answer to one."""
    rows = context.split.held_out
    if rows is None:
        return 0.0, 0.0
    sample = rows.take(np.sort(np.random.default_rng(0).permutation(len(rows))[:N_EVAL_ROWS]))
    seconds = []
    n_answers = min(N_ANSWERS, context.settings.eval_generations) if context.task == "sft" else 0
    for n in dict.fromkeys((0, n_answers)):
        settings = replace(context.settings, eval_generations=n)
        held_out = prepare_held_out(replace(context, split=replace(context.split, held_out=sample), settings=settings))
        began = time.perf_counter()
        if held_out is not None:
            held_out.measure(model)
        seconds.append(time.perf_counter() - began)
    answer = max(0.0, seconds[-1] - seconds[0]) / n_answers if n_answers else 0.0
    return seconds[0] / len(sample), answer
