"""`thresher label ask | add | join | refine | budget`: what to label, answers, rules, prices."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from thresher.cli import options
from thresher.cli.command import App
from thresher.cli.next_steps import suggest_report, suggest_training
from thresher.cli.output import print_block, print_json, print_plan
from thresher.cli.with_options import with_options
from thresher.dataset.settings import EvalReadSettings, ReadSettings
from thresher.errors import InputError
from thresher.labeling.settings import AskSettings, RefineSettings
from thresher.models.settings import ModelSettings
from thresher.numeric.units import format_count
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.labeling.add import Labeled
    from thresher.labeling.ask import Asked

label_app = App(help="Pick the rows to label next, and say when to stop.", no_args_is_help=True)

Rows = Annotated[str, typer.Argument(help="Texts, with or without labels: file, glob, folder or Hub id.")]
Answers = Annotated[
    list[Path] | None,
    typer.Argument(
        help="Answers: JSON lines or CSV, or an export from Label Studio or Argilla. Omit if a model answered "
        "everything.",
        show_default=False,
    ),
]


@label_app.command()
@with_options(AskSettings, ModelSettings, ReadSettings, EvalReadSettings)
def ask(
    pool: Rows,
    settings: AskSettings,
    models: ModelSettings,
    read: ReadSettings,
    eval_read: EvalReadSettings,
    labeled: Annotated[str | None, typer.Option(help="Rows labeled so far, such as the folder of label add.")] = None,
    eval: Annotated[  # noqa: A002
        str | None, typer.Option(help="Randomly sampled labeled rows, for a better estimate of the gain.")
    ] = None,
    out: options.Out = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Pick the rows whose labels will help most, and estimate what they will add.

    [bold]Example:[/bold] thresher label ask pool.jsonl --labeled labeled-1 --page --out ask-2
    """
    from thresher.cli.progress import progress_display
    from thresher.labeling.ask import ask_labels
    from thresher.labeling.ask_plan import plan_asking

    out = out if dry_run else options.require_out(out)
    call = {"labeled": labeled, "eval": options.name_eval_rows(eval, eval_read), **vars(settings), **vars(models)}
    call |= vars(read)
    if out is None or dry_run:
        print_plan(plan_asking(pool, **call), as_json=as_json)
        return
    with progress_display(quiet=quiet) as show:
        asked = ask_labels(pool, out=out, force=force, on_progress=show, **call)
    if as_json:
        print_json(asked.content)
    if not quiet:
        print_block(summarize_asked(asked, out), err=True)


@label_app.command()
def add(
    asked: Annotated[Path, typer.Argument(help="Folder written by label ask.")],
    out: Annotated[Path, typer.Option(help="Folder for all labeled rows.")],
    answers: Answers = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Merge answers by row id; conflicting answers for a row are refused.

    [bold]Example:[/bold] thresher label add ask-1 answers.jsonl --out labeled-1
    """
    from thresher.cli.progress import progress_display
    from thresher.labeling.add import add_labels

    with progress_display(quiet=quiet) as show:
        labeled = add_labels(asked, answers or [], out=out, force=force, on_progress=show)
    if as_json:
        content = labeled.manifest.content
        print_json({name: content[name] for name in ("counts", "agreement", "label_column", "annotator")})
    if not quiet:
        print_block(summarize_labeled(labeled, out), err=True)


@label_app.command()
def budget(
    curve: Annotated[
        list[str],
        typer.Option(
            help="A kind of rows and its curve: NAME=FOLDER, NAME=FOLDER#METHOD or NAME=TABLE.csv; repeatable."
        ),
    ],
    price: Annotated[str, typer.Option(help="Price per row of each kind: label=0.26,teacher=0.002.")],
    money: Annotated[str, typer.Option(help="Amounts to spend: 50,200,1000.")],
    fixed: Annotated[
        str | None, typer.Option(help="Fixed cost of a kind: teacher=40 for its labels and training.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for the result.")] = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Say what to spend money on: labels, a teacher's labels, or rows written by a model.

    [bold]Example:[/bold] thresher label budget --curve label=gold --curve teacher=taught
    --price label=0.26,teacher=0.002 --fixed teacher=40 --money 50,200,1000
    """
    from thresher.experiments.prices.label_budget import describe_offers, label_budget

    curves = dict(_parse_pair(each, "curve", "NAME=FOLDER") for each in curve)
    if len(curves) < len(curve):
        raise InputError("label budget: each kind has one curve, found a name twice; give each its own")
    result = label_budget(
        curves,
        price=_parse_numbers(price, "price"),
        fixed=_parse_numbers(fixed or "", "fixed"),
        money=[_parse_number(part, "money") for part in money.split(",") if part.strip()],
        out=out,
        force=force,
    )
    if as_json:
        print_json(result.content)
    if not quiet:
        lines = [f"{name}: {text}" for name, text in describe_offers(result.content)]
        lines += [] if out is None else [suggest_report(out)]
        print_block(join_lines([result.content["answer"], *lines]), err=True)


@label_app.command()
@with_options(ReadSettings, name="label join")
def join(
    pool: Rows,
    read: ReadSettings,
    rules: Annotated[str, typer.Option(help="Columns with the labels of rules or annotators, separated by commas.")],
    out: Annotated[Path, typer.Option(help="Folder for the rows with one label each.")],
    how: Annotated[
        Literal["model", "majority"],
        typer.Option(help="model: weight each rule by its estimated errors; majority: count votes."),
    ] = "model",
    force: options.Force = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Combine the labels of several rules or annotators into one per row, with its confidence.

    [bold]Example:[/bold] thresher label join votes.jsonl --rules anna,ben,regex --out joined
    """
    from thresher.labeling.weak.dawid_skene import MAX_ITERATIONS
    from thresher.labeling.weak.join import describe_rule, join_labels

    names = [part.strip() for part in rules.split(",") if part.strip()]
    joined = join_labels(pool, names, how=how, out=out, force=force, **vars(read))
    content = joined.manifest.content
    if as_json:
        print_json({name: content[name] for name in ("counts", "how", "classes", "rules")})
    if not quiet:
        counts = content["counts"]
        lines = [
            f"{counts['labeled']:,} rows have a label, {counts['conflicts']:,} of them with conflicting votes; "
            f"{counts['unlabeled']:,} have none"
        ]
        lines += [f"  {name}: {describe_rule(rule)}" for name, rule in content["rules"].items()]
        if content["n_iterations"] == MAX_ITERATIONS:
            lines.append(f"the model had not settled after {MAX_ITERATIONS} iterations: few rows have several votes")
        lines += _tell_rejected(counts)
        lines.append(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
        folder = shlex.quote(str(out))
        lines.append(f"next: thresher label refine {folder} --eval ROWS --out refined, or thresher train {folder}")
        print_block(join_lines(lines), err=True)


@label_app.command()
@with_options(RefineSettings, ModelSettings, ReadSettings, EvalReadSettings)
def refine(
    pool: Annotated[str, typer.Argument(help="Rows of a text and a weak label: file, glob, folder or Hub id.")],
    eval: Annotated[str, typer.Option(help="Randomly sampled rows with correct labels.")],  # noqa: A002
    settings: RefineSettings,
    models: ModelSettings,
    read: ReadSettings,
    eval_read: EvalReadSettings,
    unlabeled: Annotated[str | None, typer.Option(help="More texts, without labels, in the same column.")] = None,
    out: options.Out = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Correct weak labels by self-training, only where labeled rows say that it helps.

    [bold]Example:[/bold] thresher label refine weak.jsonl --eval dev.jsonl --out refined
    """
    from thresher.cli.progress import progress_display
    from thresher.labeling.weak.refine import plan_refining, refine_labels

    out = out if dry_run else options.require_out(out)
    call = {"eval": options.name_eval_rows(eval, eval_read), "unlabeled": unlabeled}
    call |= {**vars(settings), **vars(models), **vars(read)}
    if out is None or dry_run:
        print_plan(plan_refining(pool, **call), as_json=as_json)
        return
    with progress_display(quiet=quiet) as show:
        result = refine_labels(pool, out=out, force=force, on_progress=show, **call)
    content = result.manifest.content
    if as_json:
        print_json({name: content[name] for name in ("answer", "verdict", "counts", "classes")})
    if not quiet:
        lines = [content["answer"], *_tell_rejected(content["counts"])]
        lines.append(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
        lines.append(suggest_training(out, *(["--weight confidence"] if content["verdict"]["helps"] else [])))
        print_block(join_lines(lines), err=True)


def _parse_pair(text: str, name: str, form: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not (equals and key.strip() and value.strip()):
        raise InputError(f"--{name}: must be {form}, got '{text}'")
    return key.strip(), value.strip()


def _parse_numbers(text: str, name: str) -> dict[str, float]:
    pairs = [_parse_pair(part, name, "NAME=NUMBER,...") for part in text.split(",") if part.strip()]
    numbers = {key: _parse_number(value, name) for key, value in pairs}
    if len(numbers) < len(pairs):
        raise InputError(f"--{name}: each kind has one number, found a name twice in '{text}'; give each once")
    return numbers


def _parse_number(text: str, name: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise InputError(f"--{name}: must be a number, got '{text.strip()}'") from None


def summarize_asked(asked: Asked, out: Path) -> str:
    """Return what was asked for, in a few lines."""
    content = asked.manifest.content
    counts = content["counts"]
    lines = [content["answer"]]
    chosen = "for people to label as well" if content["annotator"] is not None else "to label"
    lines.append(
        f"{counts['asked']:,} rows {chosen} (by {content['by']}, {content['encoder']}), of {counts['unlabeled']:,} "
        f"without a label; {counts['labeled']:,} are labeled"
    )
    if content["annotator"] is not None:
        lines.append(f"{content['annotator']} labeled {counts['answered_by_annotator']:,} rows")
    if counts["conflicting_texts"]:
        n_texts = format_count(counts["conflicting_texts"], "text")
        lines.append(f"conflicting labels: {n_texts}; their rows are left out of labeled.jsonl and count as unlabeled")
    if counts["same_text_as_held_out"]:
        lines.append(f"{counts['same_text_as_held_out']:,} texts stand in --eval too, and are not asked for")
    if counts["held_out_with_label"]:
        lines.append(f"{counts['held_out_with_label']:,} rows of --eval are labeled rows too, and do not count")
    lines += _tell_rejected(counts)
    lines.append(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    lines.append(f"next: thresher label add {shlex.quote(str(out))}{' ANSWERS' if asked.rows else ''} --out labeled")
    return join_lines(lines)


def _tell_rejected(counts: Mapping[str, Any]) -> list[str]:
    if not counts["rejected"]:
        return []
    told = f"{counts['rejected']:,} of {counts['read']:,} rows rejected as unusable"
    return [told, *options.format_rejected(counts["rejected_by_reason"])]


def summarize_labeled(labeled: Labeled, out: Path) -> str:
    """Return how many rows have a label now, and from whom."""
    counts = labeled.manifest.content["counts"]
    lines = [
        f"{counts['labeled']:,} labeled rows: {counts['labeled_before']:,} before, {counts['by_people']:,} by people, "
        f"{counts['by_annotator']:,} by the annotator"
    ]
    if counts["not_answered"]:
        lines.append(f"{counts['not_answered']:,} rows were not answered; the next ask includes them again")
    if labeled.agreement is not None:
        lines.append(f"people agree with the annotator on {labeled.agreement}")
    lines.append(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    folder = shlex.quote(str(out))
    lines.append(f"next: thresher label ask POOL --labeled {folder} --out NEXT, or thresher train {folder}")
    return join_lines(lines)
