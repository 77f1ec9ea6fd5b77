"""`thresher novelty`: what an adapter has learned, in texts that its base would not write."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from thresher.cli.output import print_block, print_json, print_line
from thresher.cli.with_options import with_options
from thresher.printable import join_lines
from thresher.trainer.deployment.settings import ContrastSettings


@with_options(ContrastSettings, name="novelty")
def novelty(
    adapter: Annotated[Path, typer.Argument(help="Folder that 'thresher train' wrote.")],
    settings: ContrastSettings,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON on stdout.")] = False,
) -> None:
    """Let an adapter write what its base would not, to see what it was trained on.

    The method 'novelty' of 'thresher select' ranks rows by the same contrast.

    [bold]Example:[/bold] thresher novelty adapter --write 20
    """
    from thresher.trainer.adapter import Adapter

    texts = Adapter.read(adapter).contrast(**vars(settings))
    if as_json:
        print_json(texts.to_dicts())
        return
    lines = [f"{row['excess']:+6.2f}  {' '.join(row['text'].split())}" for row in texts.iter_rows(named=True)]
    name = shlex.quote(str(adapter))
    print_block(join_lines(["nats per token more likely than by the base, and the text:", *lines]))
    print_line(f"next: thresher select ROWS --method novelty --set reference={name} --budget 10% --out new", err=True)
