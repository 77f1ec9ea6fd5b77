"""`thresher correct`: replace answers by better ones of a fine-tuned model."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thresher.cli import options
from thresher.cli.with_options import with_options
from thresher.dataset.settings import ReadSettings

if TYPE_CHECKING:
    from thresher.curation.correction.correct import Corrected


@with_options(ReadSettings)
def correct(
    pool: Annotated[str, typer.Argument(help="File, glob, folder, Hub id, or - for stdin.")],
    model: Annotated[str, typer.Option(help="Who writes candidates: a fine-tuned model, adapter or server.")],
    out: Annotated[Path, typer.Option(help="Folder for the result.")],
    read: ReadSettings,
    judge: Annotated[str | None, typer.Option(help="Who compares; not set: the base of the adapter.")] = None,
    eta: Annotated[float, typer.Option(help="Least confidence that a candidate is better.")] = 0.8,
    column: Annotated[str, typer.Option(help="Column for the original answers.")] = "original_response",
    max_new_tokens: Annotated[int, typer.Option(help="Limit of a candidate.")] = 256,
    device: options.Device = None,
    batch_tokens: options.BatchTokens = None,
    force: options.Force = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Replace answers where a judge is confident that a fine-tuned model's answer is better.

    [bold]Example:[/bold] thresher correct pool.jsonl --model adapter --out corrected
    """
    from thresher.cli.progress import progress_display
    from thresher.curation.correction.correct import correct as correct_rows

    rows = options.read_rows(pool, read)
    with progress_display(quiet=quiet) as show:
        corrected = correct_rows(
            rows,
            model=model,
            judge=judge,
            eta=eta,
            column=column,
            max_new_tokens=max_new_tokens,
            device=device,
            batch_tokens=batch_tokens,
            out=out,
            force=force,
            on_progress=show,
        )
    if as_json:
        sys.stdout.write(corrected.manifest.to_json().decode())
    if not quiet:
        typer.echo(summary(corrected, out), err=True)


def summary(corrected: Corrected, out: Path) -> str:
    """Return what happened, in a few lines."""
    content = corrected.manifest.content
    counts = content["counts"]
    lines = [f"{counts['read']:,} rows read, {counts['rejected']:,} set aside as unusable"]
    lines += options.unusable_lines(counts["rejected_by_reason"])
    lines.append(f"{content['model']['name']} wrote, {content['judge']['name']} judged, eta {content['eta']:g}")
    lines += [f"  {n:,} {decision}" for decision, n in counts["decisions"].items()]
    lines += [f"  {note}" for note in content["notes"]]
    lines.append(f"{out}: {', '.join(sorted(path.name for path in out.iterdir()))}")
    return "\n".join(lines)
