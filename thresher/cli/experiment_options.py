"""What the commands of experiments share: how they are run, and how results are shown."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from thresher.cli import options
from thresher.cli.output import print_block, print_json, print_line, print_plan
from thresher.dataset.settings import EvalReadSettings, PoolSettings
from thresher.dataset.values.given_settings import GivenSettings
from thresher.experiments.settings import ExperimentSettings
from thresher.numeric.units import format_count
from thresher.validation import option

_MOST_FAILURES = 5  # kinds of failed runs that a summary lists
INCOMPLETE = 75  # exit code: the same command, run again, completes the work

Pool = Annotated[
    str | None, typer.Argument(help="Rows to choose from: file, glob, folder, Hub id, - for stdin, or a TOML file.")
]
Eval = Annotated[
    str, typer.Option("--eval", help="Rows to measure on, or a share of the pool to hold out (such as 10%).")
]


@dataclass(frozen=True, kw_only=True)
class RowSettings(EvalReadSettings, PoolSettings):
    """How the rows to train on and those to measure on are read."""

    where = "load"


@dataclass(frozen=True, kw_only=True)
class OutputSettings:
    """How a command's result is shown."""

    dry_run: bool = option(False, "Estimate runs, tokens, time and memory from a few steps; write nothing.")
    page: bool = option(True, "Write report.html into the folder.", flag="--page/--no-page")
    as_json: bool = option(False, "Print the result as JSON on stdout.", flag="--json")
    quiet: bool = option(False, "No progress and no summary.", flag="--quiet -q")


@dataclass(frozen=True, kw_only=True)
class ExperimentCommand:
    """A command that runs an experiment.

    Attributes:
        run: the function of the package that does it.
        summarize: returns a few lines about its result.
        plan: estimates what `run` will take.
    """

    run: Callable[..., Any]
    summarize: Callable[[Any], str]
    plan: Callable[..., Any]


def run_experiment(
    command: ExperimentCommand,
    source: str | None,
    eval_source: str,
    settings: ExperimentSettings,
    *,
    read: RowSettings,
    output: OutputSettings,
    given: GivenSettings | None = None,
) -> None:
    """Run an experiment, and show its result.

    Args:
        command: what is run, and how its result is summarized.
        source: rows to choose from or to train on.
        eval_source: rows to measure on; a share is passed on as it is.
        settings: of the experiment.
        read: how the rows of both are read.
        output: how the result is shown.
        given: what the user brought in place of models.

    Raises:
        typer.Exit: with 75 where the machine ended runs, so that the result is incomplete.
    """
    from thresher.cli.progress import progress_display

    is_share = eval_source.strip().endswith("%")
    options.check_side_settings("eval", eval_source, read.given, is_share=is_share)
    with progress_display(quiet=output.quiet) as show:
        rows = options.read_and_report(source, read, quiet=output.quiet)
        rows = rows if given is None else given.attach(rows)
        eval_rows: Any = eval_source
        if not is_share:
            side = read.to_read_settings()
            eval_rows = options.read_side_rows(eval_source, side, quiet=output.quiet, own=read.given, pool=source)
        if output.dry_run:
            print_plan(command.plan(rows, eval=eval_rows, **vars(settings)), as_json=output.as_json)
            return
        result = command.run(rows, eval=eval_rows, on_progress=show, **vars(settings))
    show_result(result, output, command.summarize)


def show_result(result: Any, output: OutputSettings, summarize: Callable[[Any], str]) -> None:
    """Show the result of an experiment.

    Args:
        result: with `content`, `manifest` and `path`.
        output: how it is shown.
        summarize: returns a few lines about the result.

    Raises:
        typer.Exit: with 75 where the machine ended runs, so that the result is incomplete.
    """
    if output.as_json:
        print_json(result.content)
    if not output.quiet:
        print_block(summarize(result), err=True)
        for note in options.list_side_notes(result.manifest.content):
            print_line(note, err=True)
    if result.path is not None and output.page:
        from thresher.reporting import report

        page = report(result.path)
        if not output.quiet:
            print_line(str(page), err=True)
    unfinished = result.content.get("unfinished")
    if unfinished:
        from thresher.experiments.cells.retries import describe_unfinished

        print_line(f"incomplete: {describe_unfinished(unfinished)}", err=True)
        raise typer.Exit(INCOMPLETE)


def describe_test_rows(content: Mapping[str, Any]) -> list[str]:
    """Return what is odd about the test rows of an experiment, from its manifest."""
    from thresher.evaluation.classification import describe_unknown_labels

    own = ["the trainer gives one number per run: intervals are over seeds alone, for these test rows"]
    own = own if content.get("intervals") == "seeds" else []
    if not content.get("unknown_labels"):
        return own
    sentence = describe_unknown_labels(content["unknown_labels"], content["test"]["rows"], content["labels"])
    return [*own, f"note: {sentence}"]


def describe_failures(failed: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return which runs failed and why, one line per method, size and reason.

    Args:
        failed: `method`, `n_rows` and `reason` of each run.
    """
    counts = Counter((run["method"], run["n_rows"], run["reason"]) for run in failed)
    return [
        f"{method}, {format_count(n_rows, 'row')}: {format_count(n, 'run')} failed and left out: {reason}"
        for (method, n_rows, reason), n in counts.most_common(_MOST_FAILURES)
    ] + ([f"and {len(counts) - _MOST_FAILURES} more kinds of failed runs"] if len(counts) > _MOST_FAILURES else [])


def list_files(path: Path) -> str:
    """Return the line that names the files of a result's folder."""
    names = sorted(file.name for file in path.iterdir())
    return f"{path}: {', '.join(name for name in names if not name.startswith('.'))}"
