"""`thresher train`: from rows to a LoRA adapter, measured beside as many random rows."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.cli import options
from thresher.trainer.settings import TrainSettings

if TYPE_CHECKING:
    from thresher.trainer.adapter import Adapter

DEFAULTS = TrainSettings()
_LORA = "LoRA"
_OPTIMIZER = "Optimizer and schedule"
_BATCHES = "Rows and memory"
_MEASURE = "Measuring and stopping"
READING = ("schema", "columns", "id_column", "config", "split", "strict", "max_row_bytes")


class Task(StrEnum):
    """What is trained."""

    auto = "auto"
    sft = "sft"
    classification = "classification"
    text = "text"


class Schedule(StrEnum):
    """How the learning rate falls."""

    cosine = "cosine"
    linear = "linear"
    constant = "constant"


class Precision(StrEnum):
    """Numbers of the forward and backward pass."""

    auto = "auto"
    fp32 = "fp32"
    bf16 = "bf16"


class LossOn(StrEnum):
    """Turns that are learned."""

    all = "all-assistant"
    last = "last-assistant"


SCHEDULE, PRECISION, LOSS_ON = Schedule(DEFAULTS.schedule), Precision(DEFAULTS.precision), LossOn(DEFAULTS.loss_on)


def train(
    data: Annotated[str, typer.Argument(help="A folder that 'thresher select' wrote, a file, glob, folder or Hub id.")],
    out: Annotated[Path, typer.Option(help="Folder for the adapter.")],
    model: Annotated[str | None, typer.Option(help="Hub id or folder; not set: the embedded one.")] = None,
    eval: Annotated[str | None, typer.Option(help="Rows to measure on, or a share to hold out (5%).")] = None,  # noqa: A002
    control: Annotated[str, typer.Option(help="auto: random rows of the subset's pool; none; or a pool.")] = "auto",
    seeds: Annotated[int, typer.Option(help="Repetitions with seed, seed + 1, ...")] = 1,
    task: Annotated[Task, typer.Option(help="auto: by the kind of the data.")] = Task.auto,
    seed: options.Seed = 0,
    merge: Annotated[bool, typer.Option("--merge", help="Also write the full model, adapter merged in.")] = False,
    force: options.Force = False,
    learning_rate: Annotated[
        float | None,
        typer.Option(
            help="Peak rate of AdamW; not set: 1e-3 for classification, else 2e-4.", rich_help_panel=_OPTIMIZER
        ),
    ] = DEFAULTS.learning_rate,
    schedule: Annotated[
        Schedule, typer.Option(help="How the rate falls after the warm-up.", rich_help_panel=_OPTIMIZER)
    ] = SCHEDULE,
    warmup_share: Annotated[
        float, typer.Option(help="Share of the steps in which the rate rises.", rich_help_panel=_OPTIMIZER)
    ] = DEFAULTS.warmup_share,
    epochs: Annotated[
        float | None,
        typer.Option(help="Passes over the rows; not set: 3, or 1 (text).", rich_help_panel=_OPTIMIZER),
    ] = DEFAULTS.epochs,
    max_steps: Annotated[
        int | None, typer.Option(help="Optimizer steps, in place of epochs.", rich_help_panel=_OPTIMIZER)
    ] = DEFAULTS.max_steps,
    stop_at: Annotated[
        float,
        typer.Option(help="Share of the steps after which to stop, as for an early look.", rich_help_panel=_OPTIMIZER),
    ] = DEFAULTS.stop_at,
    weight_decay: Annotated[
        float, typer.Option(help="Decoupled decay of AdamW.", rich_help_panel=_OPTIMIZER)
    ] = DEFAULTS.weight_decay,
    max_grad_norm: Annotated[
        float, typer.Option(help="Gradients are scaled down to this norm.", rich_help_panel=_OPTIMIZER)
    ] = DEFAULTS.max_grad_norm,
    batch_size: Annotated[
        int | None, typer.Option(help="Rows per step, over all processes; not set: 16.", rich_help_panel=_BATCHES)
    ] = DEFAULTS.batch_size,
    gradient_accumulation: Annotated[
        int, typer.Option(help="Forward passes per step: saves memory, same result.", rich_help_panel=_BATCHES)
    ] = DEFAULTS.gradient_accumulation,
    max_length: Annotated[
        int | None,
        typer.Option(help="Tokens per row, longer ones are cut; not set: 256 or 2048.", rich_help_panel=_BATCHES),
    ] = DEFAULTS.max_length,
    packing: Annotated[
        bool,
        typer.Option(
            "--packing", help="Lay rows end to end in place of padding; same result.", rich_help_panel=_BATCHES
        ),
    ] = DEFAULTS.packing,
    gradient_checkpointing: Annotated[
        bool,
        typer.Option(
            "--gradient-checkpointing",
            help="Recompute activations: saves memory, costs time.",
            rich_help_panel=_BATCHES,
        ),
    ] = DEFAULTS.gradient_checkpointing,
    precision: Annotated[
        Precision, typer.Option(help="auto: bf16 where the GPU has it.", rich_help_panel=_BATCHES)
    ] = PRECISION,
    load_in_4bit: Annotated[
        bool,
        typer.Option(
            "--load-in-4bit", help="Hold the base in 4-bit NF4 (QLoRA); needs CUDA.", rich_help_panel=_BATCHES
        ),
    ] = DEFAULTS.load_in_4bit,
    loss_on: Annotated[
        LossOn, typer.Option(help="Turns of a conversation that are learned.", rich_help_panel=_BATCHES)
    ] = LOSS_ON,
    lora_rank: Annotated[int, typer.Option(help="Rank of each update.", rich_help_panel=_LORA)] = DEFAULTS.lora_rank,
    lora_alpha: Annotated[
        float | None, typer.Option(help="Scale of the update; not set: twice the rank.", rich_help_panel=_LORA)
    ] = DEFAULTS.lora_alpha,
    lora_dropout: Annotated[
        float, typer.Option(help="Dropout before the first low-rank matrix.", rich_help_panel=_LORA)
    ] = DEFAULTS.lora_dropout,
    lora_targets: Annotated[str, typer.Option(help="auto, or names: q_proj,v_proj.", rich_help_panel=_LORA)] = "auto",
    rslora: Annotated[
        bool, typer.Option("--rslora", help="Scale by the square root of the rank.", rich_help_panel=_LORA)
    ] = DEFAULTS.rslora,
    dora: Annotated[
        bool, typer.Option("--dora", help="Weight-decomposed update (DoRA).", rich_help_panel=_LORA)
    ] = DEFAULTS.dora,
    early_stopping_patience: Annotated[
        int | None,
        typer.Option(help="Evaluations without a lower held-out loss before stopping.", rich_help_panel=_MEASURE),
    ] = DEFAULTS.early_stopping_patience,
    eval_every: Annotated[
        int | None, typer.Option(help="Steps between evaluations; not set: at the end only.", rich_help_panel=_MEASURE)
    ] = DEFAULTS.eval_every,
    eval_generations: Annotated[
        int, typer.Option(help="Held-out rows that get a generated answer.", rich_help_panel=_MEASURE)
    ] = DEFAULTS.eval_generations,
    max_new_tokens: Annotated[
        int, typer.Option(help="Limit of a generated answer.", rich_help_panel=_MEASURE)
    ] = DEFAULTS.max_new_tokens,
    save_every_s: Annotated[
        float, typer.Option(help="Seconds between checkpoints.", rich_help_panel=_MEASURE)
    ] = DEFAULTS.save_every_s,
    schema: options.Schema = None,
    columns: options.Map = None,
    id_column: options.IdColumn = None,
    config: options.Config = None,
    split: options.Split = None,
    strict: options.Strict = False,
    max_row_bytes: options.MaxRowBytes = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a LoRA adapter, and measure it beside one trained on as many random rows.

    [bold]Example:[/bold] thresher train chosen --eval test.jsonl --out adapter
    """
    from dataclasses import fields

    from thresher.cli.progress import training_display
    from thresher.trainer.train import train as train_rows

    given = dict(locals())
    settings = TrainSettings(
        **{field.name: _plain(given[field.name]) for field in fields(TrainSettings) if field.name != "lora_targets"},
        lora_targets="auto" if lora_targets == "auto" else tuple(name.strip() for name in lora_targets.split(",")),
    )
    reading = {name: given[name] for name in READING}
    with training_display(quiet=quiet) as show:
        adapter = train_rows(
            _rows(data, reading),
            model=model,
            eval=eval,
            control=control,
            seeds=seeds,
            out=out,
            task=task.value,
            settings=settings,
            seed=seed,
            merge=merge,
            force=force,
            on_event=show,
        )
    if int(os.environ.get("RANK", "0")):
        return  # of several processes, the first one speaks
    if as_json:
        sys.stdout.write((adapter.path / "metrics.json").read_text())
    if not quiet:
        typer.echo(summary(adapter), err=True)


def _plain(value: Any) -> Any:
    return value.value if isinstance(value, StrEnum) else value


def _rows(data: str, reading: dict[str, Any]) -> Any:
    """Return a subset folder as its path, and load everything else with the options for reading."""
    return data if (Path(data) / "manifest.json").is_file() else options.read_rows(data, **reading)


def summary(adapter: Adapter) -> str:
    """Return the counts, and the held-out scores beside those of random rows, in a few lines."""
    metrics = adapter.metrics
    counts = metrics["counts"]
    lines = [f"{counts['train']['rows']:,} rows, {metrics['n_steps']:,} steps, base {metrics['model']['name']}"]
    if counts["same_text_as_held_out"]:
        lines.append(f"  {counts['same_text_as_held_out']:,} rows left out: they have the text of a held-out row")
    lines += [f"  {line}" for line in _left_out(counts["train"], "")]
    lines += [f"  {line}" for line in _left_out(counts["eval"] or {}, "held-out ")]
    if metrics["held_out"] is not None:
        lines += _table(metrics)
    lines.append(f"{adapter.path}: {', '.join(sorted(path.name for path in adapter.path.iterdir()))}")
    return "\n".join(lines)


def _left_out(counts: Mapping[str, Any], whose: str) -> list[str]:
    """Return what was left out or cut of the rows of one side, in sentences."""
    left_out = counts.get("rows_left_out") or {}
    if isinstance(left_out, int):
        left_out = {"nothing of them can be measured": left_out}
    lines = [f"{count:,} {whose}rows left out: {reason}" for reason, count in left_out.items()]
    if counts.get("rows_truncated"):
        lines.append(f"{counts['rows_truncated']:,} {whose}rows cut at max_length ({counts['tokens_cut']:,} tokens)")
    if counts.get("prompts_cut"):
        lines.append(f"{counts['prompts_cut']:,} {whose}prompts lost their beginning, to leave room for an answer")
    return lines


def _table(metrics: Any) -> list[str]:
    columns = {"these rows": metrics["held_out"]}
    if metrics["control"] is not None:
        columns["random rows"] = metrics["control"]["held_out"]
    names = [name for name in metrics["held_out"] if name != "classes"]
    width = max(map(len, names))
    title = "held out" if len(metrics["runs"]) <= len(columns) else f"seed {metrics['seed']}"
    width = max(width, len(title))
    lines = [f"{title:<{width}}" + "".join(f"{name:>22}" for name in columns)]
    for name in names:
        cells = (_cell(column[name]) for column in columns.values())
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>22}" for cell in cells))
    lines.append(f"{'rows measured':<{width}}{metrics['held_out'][names[0]]['n']:>22,}")
    if metrics["settings"]["early_stopping_patience"] is not None:
        lines.append("early stopping chose the weights on these same rows: scores are somewhat too good")
    comparison = metrics["comparison"]
    if comparison is not None:
        n_seeds = len(comparison["seeds"])
        ours, theirs, gap = (_cell(comparison[name]) for name in ("subset", "random", "difference"))
        lines.append(
            f"{comparison['metric']}, {n_seeds} seed{'s' if n_seeds > 1 else ''}: "
            f"these rows {ours}, random rows {theirs}, difference {gap}"
        )
    return lines


def _cell(estimate: Any) -> str:
    if estimate["value"] is None:
        return "not a number"
    return f"{estimate['value']:.4f}" + ("" if estimate["stderr"] is None else f" ± {estimate['stderr']:.4f}")
