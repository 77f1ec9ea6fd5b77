"""`thresher experts`: one adapter, or several on clusters of the rows?"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from thresher.cli import options
from thresher.cli.output import print_block, print_json
from thresher.cli.with_options import with_options
from thresher.dataset.settings import PoolSettings
from thresher.experiments.experts.settings import ExpertSettings
from thresher.printable import join_lines
from thresher.trainer.settings import TrainSettings

if TYPE_CHECKING:
    from thresher.experiments.experts.experts import Experts


@with_options(ExpertSettings, TrainSettings, PoolSettings)
def experts(
    settings: ExpertSettings,
    train: TrainSettings,
    read: PoolSettings,
    eval_rows: Annotated[str, typer.Option("--eval", help="Rows to measure on, or a share to hold out (10%).")],
    data: options.Pool = None,
    model: Annotated[str | None, typer.Option(help="Base model, as for train.")] = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Train K adapters on clusters of the rows, and compare with one adapter and random clusters.

    [bold]Example:[/bold] thresher experts rows.jsonl --eval test.jsonl --k 4 --out experts
    """
    from thresher.cli.progress import progress_display
    from thresher.experiments.experts.experts import experts as train_experts

    rows = options.read_and_report(data, read, quiet=quiet)
    own = vars(replace(settings, settings=train))
    with progress_display(quiet=quiet) as show:
        result = train_experts(rows, eval=eval_rows, model=model, on_progress=show, **own)
    if as_json:
        print_json(dict(result.content))
    if not quiet:
        print_block(summarize(result), err=True)


def summarize(result: Experts) -> str:
    """Return scores, verdicts, and how rows and questions were divided."""
    content = result.content
    names = {"experts": f"{content['k']} experts", "single": "one adapter", "random": "random clusters"}
    lines = [f"{names[name]}: {content['metric']} {score:.4f}" for name, score in content["scores"].items()]
    lines += [each["verdict"] for each in content["against"].values()]
    if content["rows"] is not None:
        lines.append(
            f"rows per expert: {', '.join(map(str, content['rows']))}; {content['agreement']:.0%} of them would"
        )
        lines[-1] += f" be routed there; held-out rows per expert: {', '.join(map(str, content['routed']))}"
    if result.path is not None:
        lines.append(f"{result.path}: experts/, router.npy, experts.json")
    return join_lines(lines)
