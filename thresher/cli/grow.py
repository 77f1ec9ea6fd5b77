"""`thresher grow`: rows that a model writes, checked by reading."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.cli import options
from thresher.cli.output import print_block, print_json, print_json_text, print_line, print_plan
from thresher.cli.with_options import with_options
from thresher.dataset.settings import PoolSettings
from thresher.errors import InputError
from thresher.growth.settings import GrowSettings
from thresher.models.settings import ModelSettings
from thresher.numeric.units import format_count
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.growth.result import Grown
    from thresher.trainer.settings import TrainSettings


@with_options(GrowSettings, ModelSettings, PoolSettings)
def grow(
    settings: GrowSettings,
    models: ModelSettings,
    read: PoolSettings,
    pool: options.Pool = None,
    eval_rows: Annotated[
        str | None,
        typer.Option("--eval", help="Held-out rows, read like the pool; grown rows that repeat one are refused."),
    ] = None,
    out: options.Out = None,
    rounds: Annotated[
        int, typer.Option(min=1, help="Rounds of growing, then training; each must improve on the --eval rows.")
    ] = 1,
    training: Annotated[
        list[str] | None, typer.Option("--train", help="Settings for training between rounds, such as epochs=2.")
    ] = None,
    base: Annotated[str | None, typer.Option(help="Model that is trained between rounds; default: --model.")] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Let a model write rows, and keep those that pass a check, with a reason for every other one.

    [bold]Example:[/bold] thresher grow train.jsonl --how accept --model adapter --eval test.jsonl
    --out grown
    """
    from thresher.cli.progress import progress_display
    from thresher.growth.grow import grow as grow_rows
    from thresher.growth.grow import plan_growth

    out = out if dry_run else options.require_out(out)
    rows = options.read_and_report(pool, read, quiet=quiet)
    held_out = options.read_side_rows(
        eval_rows, options.get_side_settings(read.to_read_settings()), quiet=quiet, pool=pool
    )
    asked: dict[str, Any] | None = None
    if rounds > 1 or training or base:
        asked = {"rounds": rounds, "training": _check_rounds(settings, rounds, training, held_out), "base": base}
    if out is None or dry_run:
        print_plan(plan_growth(rows, eval=held_out, **vars(settings), **vars(models)), as_json=as_json)
        if asked is not None:
            print_line(f"this is the first of up to {rounds:,} rounds; the trainings are not counted", err=True)
        return
    if asked is not None:
        asked["force"] = force
        _grow_rounds(rows, held_out, out, settings, models, asked, as_json=as_json, quiet=quiet)
        return
    with progress_display(quiet=quiet) as show:
        grown = grow_rows(rows, eval=held_out, out=out, force=force, on_progress=show, **vars(settings), **vars(models))
    if as_json:
        print_json_text(grown.manifest.to_json().decode())
    if not quiet:
        print_block(format_summary(grown, out, pool, options.describe_schema(rows)), err=True)


def _check_rounds(
    settings: GrowSettings, rounds: int, training: list[str] | None, held_out: Dataset | None
) -> TrainSettings:
    """Return the settings of the training between rounds.

    Raises:
        InputError: there are no held-out rows to judge a round by.
        SettingsError: the settings have no rounds.
    """
    from thresher.experiments.grown.rounds import check_rounds
    from thresher.experiments.settings import parse_train_settings

    if held_out is None:
        raise InputError("grow: a round is kept where held-out rows say so, found none; give --eval")
    check_rounds(settings, rounds)
    return parse_train_settings(training or [])


def _grow_rounds(
    rows: Dataset,
    held_out: Dataset | None,
    out: Path,
    settings: GrowSettings,
    models: ModelSettings,
    asked: dict[str, Any],
    *,
    as_json: bool,
    quiet: bool,
) -> None:
    """Grow in rounds, and tell what each brought."""
    from thresher.cli.progress import progress_display
    from thresher.experiments.grown.rounds import grow_rounds, tell

    with progress_display(quiet=quiet) as show:
        result = grow_rounds(rows, eval=held_out, out=out, settings=settings, models=models, on_progress=show, **asked)
    if as_json:
        print_json({"answer": result.manifest.content["answer"], "rounds": result.rounds})
    if not quiet:
        lines = [
            result.manifest.content["answer"],
            *(f"  round {each['round']}: {tell(each)}" for each in result.rounds),
        ]
        lines.append(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
        lines.append(f"next: thresher compare {shlex.quote(str(out))} --against POOL --eval FILE --out worth")
        print_block(join_lines(lines), err=True)


def format_summary(grown: Grown, out: Path, pool: str | None, read_as: str | None) -> str:
    """Return what happened, in a few lines."""
    content = grown.manifest.content
    counts, facts = content["counts"], content["facts"]
    lines = [f"{format_count(counts['read'], 'row')} read ({read_as}), {counts['rejected']:,} rejected as unusable"]
    lines += options.format_rejected(counts["rejected_by_reason"])
    if counts["written_by_models"]:
        lines.append(f"{counts['written_by_models']:,} rows written by a model are not used as seeds")
    if counts["not_asked"]:
        lines.append(f"{counts['not_asked']:,} rows are left out, as --calls {content['settings']['calls']:,} allows")
    asked = ", ".join(f"{n:,} {stage}" for stage, n in content["answers"].items())
    lines.append(f"{content['writer']['name']} wrote; asked for {asked} of {counts['seeds']:,} rows")
    if facts:
        lines.append(", ".join(f"{_describe_fact(name)} {value:g}" for name, value in facts.items()))
    lines.append(f"{counts['kept']:,} new rows kept, grown from {counts['seeds_with_rows']:,} of your rows")
    lines += [f"  {n:,} with the answer {_ANSWERS[source]}" for source, n in counts.get("answer_from", {}).items()]
    lines.append(f"{counts['refused']:,} texts refused; refused.parquet has the reasons")
    lines += [f"  {n:,} {reason}{_HINTS.get(reason, '')}" for reason, n in counts["refused_by_reason"].items()]
    lines += [f"note: {note}" for note in content["notes"]]
    if content["eval"] is None:
        lines.append("no held-out rows were given (--eval), so copies of them could not be detected")
    lines.append(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    lines += options.reading_notes(content.get("reading_notes", ()))
    if counts["kept"]:
        against = shlex.quote(pool or "POOL")
        lines.append(f"next: thresher compare {shlex.quote(str(out))} --against {against} --eval FILE --out worth")
    return join_lines(lines)


_HINTS = {"cut": ": raise --max-new-tokens"}
_ANSWERS = {"own": "of the model itself", "reworded": "in the model's words", "gold": "that they had"}


def _describe_fact(name: str) -> str:
    return name.replace("pass_at_", "pass@").replace("_", " ")
