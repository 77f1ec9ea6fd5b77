"""`thresher why`: which training rows a wrong answer came from."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thresher.cli import options
from thresher.cli.next_steps import suggest_report
from thresher.cli.output import print_block, print_json, print_plan
from thresher.cli.with_options import with_options
from thresher.dataset.settings import PoolSettings
from thresher.experiments.attribution.settings import WhySettings
from thresher.numeric.units import format_count
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.experiments.attribution.why import Explanation

SHOWN, WIDTH = 10, 100


@with_options(WhySettings, PoolSettings)
def why(
    adapter: Annotated[Path, typer.Argument(help="Folder written by 'thresher train'.")],
    question: Annotated[str, typer.Argument(help="An instruction, or the text to classify.")],
    settings: WhySettings,
    read: PoolSettings,
    data: Annotated[str, typer.Option(help="The rows that the adapter was trained on.")],
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Find the training rows that led to an answer, and test it by training without them.

    [bold]Example:[/bold] thresher why adapter "my card is stuck" --data train.csv --out why
    """
    from thresher.cli.progress import progress_display
    from thresher.experiments.attribution.why import plan_why
    from thresher.experiments.attribution.why import why as explain

    rows = options.read_and_report(data, read, quiet=quiet)
    if dry_run:
        print_plan(plan_why(adapter, question, data=rows, **vars(settings)), as_json=as_json)
        return
    with progress_display(quiet=quiet) as show:
        result = explain(adapter, question, data=rows, on_progress=show, **vars(settings))
    if as_json:
        print_json(dict(result.content))
    if not quiet:
        print_block(summarize(result), err=True)


def summarize(result: Explanation) -> str:
    """Return the verdict, the answer, and the suspects."""
    content = result.content
    lines = [content["verdict"], f"answer: {_cut(content['answer'])} (loss {content['loss']:.3f})"]
    lines.append(_head_suspects(content["n_suspects"], result.manifest.content["settings"]["suspects"]))
    shown = result.rows.head(min(SHOWN, content["n_suspects"]))
    lines += [
        f"  {row['rank']:>3}  {row['score']:+.3f}  {_cut(row['prompt'])} -> {_cut(row['response'])}"
        for row in shown.iter_rows(named=True)
    ]
    if result.path is not None:
        lines += [f"{result.path}: rows.parquet, why.json", suggest_report(result.path)]
    return join_lines(lines)


def _head_suspects(n: int, n_asked: int) -> str:
    """Return the line above the suspects: how many there are, and whether all are shown."""
    few = ", as at most a third of the rows are left out" if n < n_asked else ""
    return f"{format_count(n, 'suspect')}{few}{f'; the first {SHOWN}' if n > SHOWN else ''}:"


def _cut(text: str) -> str:
    flat = " ".join(str(text).split())
    return flat if len(flat) <= WIDTH else flat[: WIDTH - 1] + "…"
