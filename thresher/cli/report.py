"""`thresher report`: the page of an output folder."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thresher.cli import options
from thresher.cli.output import print_line


def report(
    folder: Annotated[Path, typer.Argument(help="Folder of a result, or a snapshot of a job.")],
    quiet: options.Quiet = False,
) -> None:
    """Write report.html into the folder of a result, and its figures as PNG and SVG; works offline.

    [bold]Example:[/bold] thresher report chosen
    """
    from thresher.reporting import report as write_report

    page = write_report(folder)
    if not quiet:
        print_line(str(page))
