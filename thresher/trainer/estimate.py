"""What runs of training will take, from a few steps of one: `--dry-run` of all that trains."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from thresher.dataset import Dataset
from thresher.evaluation.run import ROWS_PER_BATCH
from thresher.models.causal_lm.adapter import disable_adapter
from thresher.numeric.memory import get_peak_bytes
from thresher.numeric.units import format_bytes, format_count, format_duration
from thresher.trainer.context import RunContext, resolve_run
from thresher.trainer.engine.fit import count_steps, fit
from thresher.trainer.engine.tokenization import Examples, require_rows
from thresher.trainer.held_out import prepare_held_out, tokenize_held_out
from thresher.trainer.settings import TrainSettings
from thresher.trainer.untouched.general import prepare_general
from thresher.trainer.untouched.scale import SCALES
from thresher.trainer.untouched.settings import UntouchedSettings
from thresher.trainer.weights import read_weights

N_TRIAL_STEPS = 6
FEW_ROWS, MORE_ROWS = 64, 256  # the start of a run is timed with both: a part of it reads every row
UNTOUCHED = "the untouched model"  # name of its part of a plan
N_EVAL_ROWS, N_GENERAL_ROWS = 64, 32
FEW_ANSWERS, MORE_ANSWERS = 2, 8  # in one batch, which costs something however few are in it
N_TOKENS = 64  # of a timed answer, at most


class MeasuringCost(NamedTuple):
    """What it takes to measure held-out rows.

    Attributes:
        row: seconds of a row.
        answer: seconds of an answer to one, by a trained model.
        batch: seconds of each batch of answers, besides.
        untouched: how many times longer answers of the untouched model take.
    """

    row: float
    answer: float
    batch: float
    untouched: float = 1.0

    def estimate(self, n_rows: int, n_answers: int, *, times: int = 1, stretch: float = 1.0) -> float:
        """Return the seconds of measuring so many rows.

        Args:
            n_rows: held-out rows.
            n_answers: of them, that are answered at most.
            times: how many times as many tokens are read as without examples in the prompt.
            stretch: how many times longer answers take.
        """
        n_answers = min(n_answers, n_rows)
        n_batches = -(-n_answers // ROWS_PER_BATCH)
        return times * n_rows * self.row + stretch * (n_answers * self.answer + n_batches * self.batch)


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
        answer_batch_seconds: of a batch of answers, besides those of each.
        general_seconds: of measuring the general rows, as each run does; 0 where there are none.
        general_answers_seconds: of answering the general questions.
        untouched_answers: how many times longer the answers of the untouched model take.
    """

    start_seconds: float
    row_seconds: float
    step_seconds: float
    step_tokens: float
    eval_row_seconds: float
    answer_seconds: float
    memory_bytes: int
    answer_batch_seconds: float = 0.0
    general_seconds: float = 0.0
    general_answers_seconds: float = 0.0
    untouched_answers: float = 1.0

    def estimate_measuring(self, n_eval: int, n_answers: int, *, times: int = 1, is_untouched: bool = False) -> float:
        """Return the seconds of measuring held-out rows.

        Args:
            n_eval: rows.
            n_answers: of them, that are answered at most.
            times: how many times as many tokens are read as without examples in the prompt.
            is_untouched: whether the untouched model answers.
        """
        cost = MeasuringCost(self.eval_row_seconds, self.answer_seconds, self.answer_batch_seconds)
        return cost.estimate(n_eval, n_answers, times=times, stretch=self.untouched_answers if is_untouched else 1.0)

    def estimate(self, n_rows: int, settings: TrainSettings, n_eval: int) -> tuple[float, int]:
        """Return the seconds and training tokens of a run.

        Args:
            n_rows: that it learns from.
            settings: of the training, resolved.
            n_eval: held-out rows.
        """
        n_steps = round(settings.stop_at * count_steps(n_rows, settings))
        measuring = self.estimate_measuring(n_eval, settings.eval_generations) + self.general_seconds
        seconds = self.start_seconds + n_rows * self.row_seconds + n_steps * self.step_seconds + measuring
        return seconds, round(n_steps * self.step_tokens)

    def estimate_untouched(self, context: RunContext, *, n_prompts: int = 1) -> float:
        """Return the seconds of measuring the untouched model, once for all runs.

        Args:
            context: of a run.
            n_prompts: sets of rows that stand in prompts, each of which is measured.
        """
        n_eval = 0 if context.split.held_out is None else len(context.split.held_out)
        if context.task == "classification":  # the vectors that each run's probe reads
            return n_eval * self.eval_row_seconds
        seconds, shots = 0.0, context.untouched.prompts if n_eval else ()
        if shots:
            n_answers = context.settings.eval_generations if context.task == "sft" else 0
            each = [
                (n_prompts if k else 1) * self.estimate_measuring(n_eval, n_answers, times=k + 1, is_untouched=True)
                for k in shots
            ]
            seconds += self.start_seconds + sum(each)
        if self.general_seconds:
            seconds += self.start_seconds + self.general_seconds + self.general_answers_seconds
        return seconds


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
        call: arguments of `train`, but for its folder; those of the untouched model together, as
            `untouched`.
    """
    context = resolve_run(data, **{"seed": 0, "untouched": UntouchedSettings(), **call})
    context.untouched.check_rows(context.task, has_held_out=context.split.held_out is not None)
    split, settings = context.split, context.settings
    n_eval = 0 if split.held_out is None else len(split.held_out)
    n_runs = len(context.seeds) * (1 if split.control is None else 2)
    cost = measure_run(context)
    seconds, tokens = cost.estimate(len(split.train), settings, n_eval)
    what = "the same rows, plainly" if split.is_control_same else "random rows"
    sides = "" if split.control is None else f", and the same number on {what}"
    n_rows, n_steps = len(split.train), count_steps(len(split.train), settings)
    name = f"{format_count(n_rows, 'row')}, {format_count(n_steps, 'step')}{sides}"
    measuring = cost.general_answers_seconds  # of the adapter that is kept
    if context.untouched.scale != "trained":
        measuring += n_runs * len(SCALES) * (n_eval * cost.eval_row_seconds + cost.general_seconds)
    runs = PlannedRuns(name=name, n=n_runs, seconds=n_runs * seconds + measuring, tokens=n_runs * tokens)
    note = "runs finished earlier, and what is known of the untouched model, cost nothing"
    parts = (plan_untouched(context, cost), runs)
    return TrainingPlan(parts=parts, n_workers=1, memory_bytes=cost.memory_bytes, note=note)


def plan_untouched(context: RunContext, cost: RunCost, *, n_prompts: int = 1) -> PlannedRuns:
    """Return what measuring the untouched model takes, once for all runs.

    Args:
        context: of a run.
        cost: measured.
        n_prompts: sets of rows that stand in prompts, each of which is measured.
    """
    seconds = cost.estimate_untouched(context, n_prompts=n_prompts)
    return PlannedRuns(name=UNTOUCHED, n=0, seconds=seconds, tokens=0)


def measure_run(context: RunContext) -> RunCost:
    """Take a few steps, and measure a few held-out rows; nothing is kept.

    Args:
        context: of a run; its rows are sampled.
    """
    train = context.split.train
    rows = np.random.default_rng(0).permutation(len(train))[:MORE_ROWS]
    examples = context.tokenize(train.take(np.sort(rows)))
    require_rows(examples, "train", n_vocabulary=context.base.n_vocabulary)
    if context.settings.weight is not None:
        read_weights(train, context.settings.weight)  # refuses what the run would refuse
    few = replace(examples, rows=examples.rows[:FEW_ROWS], position=examples.position[:FEW_ROWS])
    with TemporaryDirectory() as folder:
        _time_fit(context, few, Path(folder) / "warm")  # imports, and first use of every kernel
        start, steps, _ = _time_fit(context, few, Path(folder) / "few")
        more_start, more_steps, model = _time_fit(context, examples, Path(folder) / "more")
    row_seconds = max(0.0, more_start - start) / max(1, len(examples) - len(few))
    measuring = time_measuring(context, model)
    general, general_answers = _time_general(context, model)
    batch_size = int(context.settings.batch_size or 1)
    return RunCost(
        start_seconds=max(0.0, start - row_seconds * len(few)),
        row_seconds=row_seconds,
        step_seconds=(steps + more_steps) / 2,
        step_tokens=min(batch_size, len(train)) * examples.n_tokens / len(examples),
        eval_row_seconds=measuring.row,
        answer_seconds=measuring.answer,
        memory_bytes=get_peak_bytes(),
        answer_batch_seconds=measuring.batch,
        general_seconds=general,
        general_answers_seconds=general_answers,
        untouched_answers=measuring.untouched,
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


def time_measuring(context: RunContext, model: Any) -> MeasuringCost:
    """Measure a few held-out rows, and write answers to some of them.

    A trained model is taken to end its answers as the held-out rows do: the few steps of a trial
    would not teach it that. The untouched model answers as long as it likes.
    """
    rows = context.split.held_out
    if rows is None:
        return MeasuringCost(0.0, 0.0, 0.0)
    usable = _sample_usable(context, rows, N_EVAL_ROWS)
    row = _time_held_out(context, model, usable, 0) / len(usable)
    n_asked = context.settings.eval_generations if context.task == "sft" else 0
    counts = sorted({min(n, n_asked, len(usable)) for n in (FEW_ANSWERS, MORE_ANSWERS)} - {0})
    if not counts:
        return MeasuringCost(row, 0.0, 0.0)
    asked, n_most = usable.take(np.arange(counts[-1])), context.settings.max_new_tokens
    # one more ends the answer
    n_taught = min(n_most, 1 + max(_count_tokens(context, asked.frame["response"].to_list())))
    own = [max(0.0, _time_held_out(context, model, asked, n, n_tokens=n_taught) - len(asked) * row) for n in counts]
    with disable_adapter(model):
        untouched = max(0.0, _time_held_out(context, model, asked, counts[-1], n_tokens=n_most) - len(asked) * row)
    stretch = untouched / own[-1] if own[-1] else 1.0
    if len(own) == 1:
        return MeasuringCost(row, own[0] / counts[0], 0.0, stretch)
    answer = min(max(0.0, own[1] - own[0]) / (counts[1] - counts[0]), own[1] / counts[1])
    return MeasuringCost(row, answer, max(0.0, own[1] - counts[1] * answer), stretch)


def _count_tokens(context: RunContext, texts: Sequence[str]) -> list[int]:
    return [len(context.tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]) for text in texts]


def _sample_usable(context: RunContext, rows: Dataset, n: int) -> Dataset:
    """Return random held-out rows that can be measured, at most so many.

    Raises:
        InputError: there is none.
    """
    order, n_looked = np.random.default_rng(0).permutation(len(rows)), n
    while True:
        looked = rows.take(order[:n_looked])
        examples = tokenize_held_out(context, looked)
        if len(examples) >= n or n_looked >= len(rows):
            require_rows(examples, "eval", n_vocabulary=context.base.n_vocabulary)
            return looked.take(np.asarray(examples.position[:n]))
        n_looked *= 4


def _time_held_out(context: RunContext, model: Any, rows: Dataset, n_answers: int, *, n_tokens: int = 1) -> float:
    """Return the seconds of measuring rows, some of which are answered in so many tokens at most.

    At most N_TOKENS are timed; where an answer reaches them, all are taken to reach `n_tokens`.
    """
    limit = min(N_TOKENS, n_tokens)
    settings = replace(context.settings, eval_generations=n_answers, max_new_tokens=limit)
    held_out = prepare_held_out(replace(context, split=replace(context.split, held_out=rows), settings=settings))
    if held_out is None:
        raise AssertionError("there are held-out rows")
    began = time.perf_counter()
    outcomes = held_out.measure(model)
    seconds = time.perf_counter() - began
    answers = outcomes["prediction"].drop_nulls().to_list() if n_answers else []
    is_cut = max(_count_tokens(context, answers), default=0) >= limit - 1
    return seconds * n_tokens / limit if is_cut else seconds


def _time_general(context: RunContext, model: Any) -> tuple[float, float]:
    """Return the seconds of measuring all general rows, and of answering the general questions."""
    general = prepare_general(context, has_answers=True)
    if general is None:
        return 0.0, 0.0
    few, share = general.sample(N_GENERAL_ROWS)
    began = time.perf_counter()
    few.measure(context, model)
    seconds = (time.perf_counter() - began) / share
    if not general.prompts:
        return seconds, 0.0
    # all of them: they are few, and a batch costs little more than one of its answers
    began = time.perf_counter()
    general.answer(context, model)
    return seconds, time.perf_counter() - began
