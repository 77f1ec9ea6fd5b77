"""`thresher train`: from rows to a LoRA adapter, beside one of the same number of random rows."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from thresher.artifacts.hub_push import check_push
from thresher.cli import options
from thresher.cli.experts import check_experts, train_with_experts
from thresher.cli.output import print_block, print_json_text, print_plan
from thresher.cli.with_options import with_options
from thresher.dataset.settings import EvalReadSettings, PoolSettings
from thresher.errors import InputError
from thresher.experiments.experts.settings import ExpertSettings
from thresher.numeric.units import format_count
from thresher.printable import join_lines
from thresher.trainer.settings import TrainSettings
from thresher.trainer.tracking.tracker import HELP as TRACKERS
from thresher.trainer.tracking.tracker import parse_trackers
from thresher.trainer.untouched.settings import UntouchedSettings

if TYPE_CHECKING:
    from thresher.trainer.adapter import Adapter

Data = Annotated[
    str | None, typer.Argument(help="A folder written by 'thresher select', or a file, glob, folder or Hub id.")
]
Model = Annotated[
    str | None, typer.Option(help="Hub id, folder, smollm2, tiny or minilm. Default: smollm2, MiniLM for labels.")
]
StartFrom = Annotated[
    Path | None, typer.Option("--from", help="Folder of an adapter to continue from, on the same base.")
]
CONTROL_HELP = (
    "auto: random rows of the subset's pool; none; a pool; same: the same rows without --skip, --weight, --mask-answer "
    "and --tokens, to see what these cost or bring."
)
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Estimate steps, tokens, time and memory from a few; write nothing.")
]
TaskName = Annotated[Literal["auto", "sft", "classification", "text"], typer.Option(help="auto: by the kind of data.")]


@with_options(TrainSettings, UntouchedSettings, PoolSettings, EvalReadSettings, ExpertSettings, defaults={"k": None})
def train(
    settings: TrainSettings,
    experts: ExpertSettings,
    untouched: UntouchedSettings,
    read: PoolSettings,
    eval_read: EvalReadSettings,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the adapter; required except with --dry-run.")] = None,
    model: Model = None,
    eval: Annotated[str | None, typer.Option(help="Rows to measure on, or a share to hold out (5%).")] = None,  # noqa: A002
    control: Annotated[str, typer.Option(help=CONTROL_HELP)] = "auto",
    seeds: Annotated[int, typer.Option(help="Repetitions with seed, seed + 1, ...")] = 1,
    task: TaskName = "auto",
    report_to: Annotated[str | None, typer.Option(help=TRACKERS)] = None,
    seed: options.Seed = 0,
    merge: Annotated[bool, typer.Option("--merge", help="Also write the full, merged model.")] = False,
    diagnose: Annotated[bool, typer.Option("--diagnose", help="Also report which layers moved, and how.")] = False,
    start_from: StartFrom = None,
    force: options.Force = False,
    push_to_hub: options.PushToHub = None,
    dry_run: DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Train a LoRA adapter, and compare it with one trained on the same number of random rows.

    'thresher why' finds the training rows that led to an answer; 'thresher soup' merges adapters.

    [bold]Example:[/bold] thresher train chosen --eval test.jsonl --out adapter
    """
    from thresher.cli.progress import training_display
    from thresher.trainer.train import train as train_rows

    given = {"from": start_from, "report_to": report_to, "merge": merge, "diagnose": diagnose}
    given |= {"push_to_hub": push_to_hub, "control": control != "auto", "task": task != "auto"}
    check_experts(experts, eval, {**given, **untouched.list_changed()})
    check_push(push_to_hub)
    parse_trackers(report_to)
    is_subset = _is_subset(data, read)
    is_first = not int(os.environ.get("RANK", "0"))  # of several processes, the first one speaks
    held_out = options.name_eval_rows(eval, eval_read)
    rows = data if is_subset else options.read_and_report(data, read, quiet=quiet or not is_first)
    call: dict[str, Any] = {"model": model, "eval": held_out, "control": control, "seeds": seeds}
    call |= {"task": task, "settings": settings, "seed": seed, "start_from": start_from}
    if dry_run and experts.k is None:
        _print_plan(rows, call, as_json=as_json, is_merged=merge, is_diagnosed=diagnose, untouched=untouched)
        return
    result: dict[str, Any] = {"out": out if dry_run else _require_folder(out), "force": force}
    if experts.k is not None:
        train_with_experts(rows, experts, {**call, **result}, dry_run=dry_run, as_json=as_json, quiet=quiet)
        return
    result |= {"merge": merge, "diagnose": diagnose, "report_to": report_to, **vars(untouched)}
    with training_display(quiet=quiet) as show:
        adapter = train_rows(rows, **call, **result, on_event=show)
    if is_first:
        _print_result(adapter, push_to_hub, as_json=as_json, quiet=quiet)


def _require_folder(out: Path | None) -> Path:
    if out is None:
        raise InputError("out: the adapter needs a folder, got none; give --out, or --dry-run for an estimate")
    return out


def _print_result(adapter: Adapter, push_to_hub: str | None, *, as_json: bool, quiet: bool) -> None:
    if as_json:
        print_json_text((adapter.path / "metrics.json").read_text())
    if not quiet:
        print_block(format_summary(adapter), err=True)
    options.publish(adapter.path, push_to_hub, quiet=quiet)


def _print_plan(rows: Any, call: Mapping[str, Any], *, as_json: bool, **checked: Any) -> None:
    from thresher.trainer.estimate import plan_training

    print_plan(plan_training(rows, **call, **checked), as_json=as_json)


def _is_subset(data: str | None, read: PoolSettings) -> bool:
    """Tell whether the folder of a subset is given, which `train` reads with its pool.

    Raises:
        InputError: it is, and options say how its rows are read.
    """
    from thresher.subset.subset import is_subset_folder

    if data is None or not is_subset_folder(data):
        return False
    if read != PoolSettings():
        names = ", ".join(name for name, value in vars(read).items() if value != getattr(PoolSettings(), name))
        raise InputError(f"{names}: the rows of a subset are read as they were selected, got {data}; leave these out")
    return True


def format_summary(adapter: Adapter) -> str:
    """Return the verdict, the counts, and the held-out scores beside those of random rows."""
    from thresher.trainer.deployment.serving import format_next_steps
    from thresher.trainer.diagnosis import format_diagnosis
    from thresher.trainer.untouched.forgetting import format_forgetting
    from thresher.trainer.untouched.scale import format_front
    from thresher.trainer.untouched.summary import describe_verdict

    metrics = adapter.metrics
    counts = metrics["counts"]
    run_in = " in bfloat16" if metrics["settings"]["precision"] == "bf16" else ""
    kind = metrics["settings"].get("adapter")
    trained = "" if kind is None else f", adapter {kind}"
    base = metrics["model"]["name"]
    size = f"{format_count(counts['train']['rows'], 'row')}, {format_count(metrics['n_steps'], 'step')}"
    verdict = describe_verdict(metrics)
    lines = [*([] if verdict is None else [verdict]), f"{size}, base {base}{run_in}{trained}"]
    if n_same := counts["same_text_as_held_out"]:
        lines.append(f"  {format_count(n_same, 'row')} left out: a held-out row asks the same")
    lines += [f"  {line}" for line in _describe_left_out(counts["train"], "")]
    lines += [f"  {line}" for line in _describe_left_out(counts["eval"] or {}, "held-out ")]
    lines += [*_describe_unknown_labels(metrics), *_describe_skipping(metrics)]
    if metrics["held_out"] is not None:
        lines += _format_table(metrics)
    lines += [*format_forgetting(metrics.get("general")), *format_front(metrics.get("scale"))]
    lines += format_diagnosis(metrics.get("diagnosis"))
    lines.append(f"{adapter.path}: {', '.join(sorted(path.name for path in adapter.path.iterdir()))}")
    lines += options.list_side_notes(adapter.manifest.content)
    lines += format_next_steps(adapter.path, str(metrics["task"]))
    return join_lines(lines)


def _describe_left_out(counts: Mapping[str, Any], whose: str) -> list[str]:
    """Return what was left out or cut of the rows of one side, in sentences."""
    left_out = counts.get("rows_left_out") or {}
    if isinstance(left_out, int):
        left_out = {"there is nothing to score": left_out}
    row, prompt = f"{whose}row", f"{whose}prompt"
    lines = [f"{format_count(count, row)} left out: {reason}" for reason, count in left_out.items()]
    if n_cut := counts.get("rows_truncated"):
        tokens = format_count(counts["tokens_cut"], "token")
        lines.append(f"{format_count(n_cut, row)} truncated at max_length ({tokens})")
    lines += [f"{format_count(count, row)}: {note}" for note, count in counts.get("rows_with_markers", {}).items()]
    if n_cut := counts.get("prompts_cut"):
        were = "was" if n_cut == 1 else "were"
        lines.append(f"{format_count(n_cut, prompt)} {were} truncated at the start, to leave room for an answer")
    return lines


def _describe_skipping(metrics: Mapping[str, Any]) -> list[str]:
    """Return how many passes over rows were saved, if any were to be."""
    about = metrics.get("skipping")
    if about is None:
        return []
    share = about["skipped"] / max(1, about["passes"])
    return [f"  {about['skipped']:,} of {about['passes']:,} passes over rows skipped as easy ({100 * share:.0f} %)"]


def _describe_unknown_labels(metrics: Mapping[str, Any]) -> list[str]:
    """Return a sentence about held-out rows of labels that training does not know, if any."""
    from thresher.evaluation.classification import describe_unknown_labels

    counts = metrics["counts"]["eval"] or {}
    sentence = describe_unknown_labels(counts.get("unknown_labels", {}), counts.get("rows", 0), metrics["labels"])
    return [f"  {sentence}"] if sentence else []


def _format_table(metrics: Mapping[str, Any]) -> list[str]:
    from thresher.evaluation.held_out import name_control
    from thresher.trainer.untouched.summary import format_untouched

    columns = {"your rows": metrics["held_out"]}
    if metrics["control"] is not None:
        columns[name_control(metrics)] = metrics["control"]["held_out"]
    names = [name for name in metrics["held_out"] if name != "classes"]
    title = "held out" if len(metrics["runs"]) <= len(columns) else f"seed {metrics['seed']}"
    width = max(map(len, [title, *names]))
    lines = [f"{title:<{width}}" + "".join(f"{name:>22}" for name in columns)]
    for name in names:
        cells = (_format_cell(column[name]) for column in columns.values())
        lines.append(f"{name:<{width}}" + "".join(f"{cell:>22}" for cell in cells))
    n_measured = metrics["held_out"][names[0]]["n"]
    lines.append(f"{'rows measured':<{width}}{n_measured:>22,}")
    answered = (metrics["held_out"].get("exact_match") or {}).get("n")
    if answered and answered < n_measured:
        lines.append(f"{'rows answered':<{width}}{answered:>22,}")
    if metrics["settings"]["early_stopping_patience"] is not None:
        lines.append("early stopping chose the weights on these same rows, so the scores are somewhat too good")
    lines += format_untouched(metrics)
    comparison = metrics["comparison"]
    if comparison is not None and len(comparison["seeds"]) > 1:
        n_seeds = len(comparison["seeds"])
        ours, theirs, gap = (_format_cell(comparison[name]) for name in ("subset", "random", "difference"))
        lines.append(
            f"{comparison['metric']}, {format_count(n_seeds, 'seed')}: "
            f"your rows {ours}, {name_control(metrics)} {theirs}, difference {gap}"
        )
    return lines


def _format_cell(estimate: Any) -> str:
    if estimate["value"] is None:
        return "not a number"
    return f"{estimate['value']:.4f}" + ("" if estimate["stderr"] is None else f" ± {estimate['stderr']:.4f}")
