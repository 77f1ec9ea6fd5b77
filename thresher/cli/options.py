"""Options that several commands share: how rows are read, and what is printed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.dataset.settings import parse_map

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.dataset.settings import ReadSettings
    from thresher.selection.distributed import PoolFiles


READ = "How rows are read"

Schema = Annotated[
    str | None,
    typer.Option(
        help="Name the schema instead of recognizing it: alpaca, prompt-completion, query-response, messages, "
        "sharegpt, text-label, text.",
        rich_help_panel=READ,
    ),
]
Map = Annotated[
    str | None,
    typer.Option(
        "--map",
        help="Columns of your own: prompt=title+body,response=answer or text=title,label=kind.",
        rich_help_panel=READ,
    ),
]
IdColumn = Annotated[
    str | None, typer.Option(help="Column with a unique id; not set: a hash of the content.", rich_help_panel=READ)
]
Config = Annotated[str | None, typer.Option(help="Configuration of a Hub data set.", rich_help_panel=READ)]
Split = Annotated[str | None, typer.Option(help="Split of a Hub or saved data set.", rich_help_panel=READ)]
MaxRowBytes = Annotated[
    int | None,
    typer.Option(help="Longer rows of text files are rejected; not set: 4 MiB.", rich_help_panel=READ, min=1),
]
Strict = Annotated[
    bool, typer.Option("--strict", help="Stop at bad rows instead of rejecting them.", rich_help_panel=READ)
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier result in --out.")]
Encoder = Annotated[str | None, typer.Option(help="minilm, static, or a sentence-transformers model.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, ... Default: the fastest available.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]


def read_rows(source: str, read: ReadSettings | None = None, **reading: Any) -> Dataset:
    """Load the rows that the options describe."""
    from thresher.dataset import load

    if read is None:
        columns = reading.pop("columns", None)
        return load(source, columns=None if columns is None else parse_map(columns), **reading)
    return load(source, **vars(read))


def read_telling(source: str, read: ReadSettings | None = None, *, quiet: bool, **reading: Any) -> Dataset:
    """Load rows of whose bad ones no summary tells: how many there are and why is told at once."""
    from thresher.dataset.rejection import describe_rejected

    rows = read_rows(source, read, **reading)
    if rows.n_rejected and not quiet:
        typer.echo(f"{source}: {describe_rejected(rows.n_read, rows.rejected_by_reason)}", err=True)
    return rows


def read_as(rows: Dataset | PoolFiles) -> str | None:
    """Return how the columns were read; None for files that were named and not read here."""
    from thresher.dataset import Dataset

    return rows.schema.describe(rows.column_names) if isinstance(rows, Dataset) else None


def unusable_lines(by_reason: Mapping[str, int]) -> list[str]:
    """Return a line for each of the five most frequent reasons, and one for the rest."""
    reasons = list(by_reason.items())
    lines = [f"  {count:,} {reason}" for reason, count in reasons[:5]]
    if len(reasons) > 5:
        lines.append(f"  {sum(count for _, count in reasons[5:]):,} for {len(reasons) - 5} more reasons")
    return lines
