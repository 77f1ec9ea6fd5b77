"""`thresher export`: kept rows as another trainer takes them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from thresher.artifacts.folder import MANIFEST
from thresher.artifacts.local_path import expand_path
from thresher.cli import options
from thresher.cli.output import print_line
from thresher.errors import ManifestError

HOW = {  # what to type next
    "trl": "import load from {out}/trl.py: SFTTrainer(..., train_dataset=load())",
    "llama-factory": "llamafactory-cli train ... --dataset thresher --dataset_dir {out}",
    "axolotl": "put the stanza of {out}/axolotl.yaml into your configuration",
    "openai": "client.files.create(file=open('{out}/train.jsonl', 'rb'), purpose='fine-tune')",
}


def export(
    folder: Annotated[Path, typer.Argument(help="Folder written by select, curate, correct, label, grow or a job.")],
    to: Annotated[
        Literal["trl", "llama-factory", "axolotl", "openai"], typer.Option(help="The trainer that will use the rows.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the files.")],
    force: options.Force = False,
    quiet: options.Quiet = False,
) -> None:
    """Write the kept rows for another trainer: TRL, LLaMA-Factory, axolotl or OpenAI.

    [bold]Example:[/bold] thresher export chosen --to trl --out for-trl
    """
    from thresher.dataset import load
    from thresher.subset.export import export_rows
    from thresher.subset.subset import is_subset_folder, read_subset_rows

    path = expand_path(folder)
    if not (path / MANIFEST).is_file():
        raise ManifestError(f"{path}: must be a folder that thresher wrote, found no {MANIFEST} in it; give one")
    rows = read_subset_rows(path) if is_subset_folder(path) else load(path)
    written = export_rows(rows, to, out, force=force)
    if not quiet:
        print_line(f"{written}: {len(rows):,} rows for {to}", err=True)
        print_line(f"next: {HOW[to].format(out=written)}", err=True)
