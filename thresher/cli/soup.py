"""`thresher soup`: do adapters of several data sets, merged, beat the best of them?"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thresher.cli import options
from thresher.cli.next_steps import suggest_report
from thresher.cli.output import print_block, print_json, print_plan
from thresher.cli.with_options import with_options
from thresher.experiments.soups.settings import SoupSettings
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.experiments.soups.soup import Soup


@with_options(SoupSettings)
def soup(
    adapters: Annotated[list[Path], typer.Argument(help="Folders written by 'thresher train', two or more.")],
    settings: SoupSettings,
    dev: Annotated[str, typer.Option(help="Rows for deciding which adapters to add.")],
    eval_rows: Annotated[str, typer.Option("--eval", help="Test rows for comparing the soups.")],
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Merge adapters that were trained on different rows, and compare with the best one.

    [bold]Example:[/bold] thresher soup a b c --dev dev.jsonl --eval test.jsonl --out soup
    """
    from thresher.cli.progress import progress_display
    from thresher.experiments.soups.plan import plan_soup
    from thresher.experiments.soups.soup import soup as merge

    if dry_run:
        print_plan(plan_soup(adapters, dev=dev, eval=eval_rows, **vars(settings)), as_json=as_json)
        return
    with progress_display(quiet=quiet) as show:
        result = merge(adapters, dev=dev, eval=eval_rows, on_progress=show, **vars(settings))
    if as_json:
        print_json(dict(result.content))
    if not quiet:
        print_block(summarize(result), err=True)


def summarize(result: Soup) -> str:
    """Return the answer, the scores of adapters and soups, and the verdicts."""
    content = result.content
    metric, single = content["metric"], content["best_single"]
    lines = [content["answer"]]
    lines += [
        f"adapter {number}: {each['path']}, {metric} on the dev rows {each['dev']:.4f}"
        for number, each in enumerate(content["adapters"], start=1)
    ]
    lines.append(f"best single adapter: {content['adapters'][single['adapter']]['path']}, test {single['test']:.4f}")
    for each in content["soups"]:
        test = "" if each["test"] is None else f", test {each['test']:.4f}"
        members = ", ".join(str(number + 1) for number in each["members"])
        noun = "adapters" if len(each["members"]) > 1 else "adapter"
        lines.append(f"soup by {each['way']} of {noun} {members}: dev {each['dev']:.4f}{test}: {each['verdict']}")
    if result.path is not None:
        lines += [f"{result.path}: adapter/, soup.json", suggest_report(result.path)]
        lines.append(f"next: thresher try {shlex.quote(str(result.path))} TEXT (base next to the merged adapter)")
    return join_lines(lines)
