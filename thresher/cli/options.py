"""What several commands share: their common options, rows read from them, lines of summaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.dataset.settings import ReadSettings

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.selection.distributed import PoolFiles


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier result in --out.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]


def read_rows(source: str, read: ReadSettings) -> Dataset:
    """Load the rows that the options describe."""
    from thresher.dataset import load

    return load(source, **vars(read))


def read_and_report(source: str, read: ReadSettings, *, quiet: bool) -> Dataset:
    """Load rows, and say at once how they were read, and how many were rejected and why."""
    from thresher.dataset.rejection import describe_rejected

    rows = read_rows(source, read)
    if not quiet:
        typer.echo(f"{source}: {rows.n_read:,} rows read ({rows.kind}; {describe_schema(rows)})", err=True)
        if rows.n_rejected:
            typer.echo(f"{source}: {describe_rejected(rows.n_read, rows.rejected_by_reason)}", err=True)
        for note in rows.notes:
            typer.echo(f"{source}: note: {note}", err=True)
    return rows


def read_side_rows(source: str | None, read: ReadSettings, *, quiet: bool) -> Dataset | None:
    """Load rows beside the pool, read by its schema and columns; None where none are named."""
    read = ReadSettings(schema=read.schema, columns=read.columns)
    return None if source is None else read_and_report(source, read, quiet=quiet)


def describe_schema(rows: Dataset | PoolFiles) -> str | None:
    """Return how the columns were read; None for files that were named and not read here."""
    from thresher.dataset import Dataset

    return rows.schema.describe(rows.column_names) if isinstance(rows, Dataset) else None


def reading_notes(notes: Iterable[str]) -> list[str]:
    """Return the last lines of a summary: what a user should know of how rows were read."""
    return [f"note: {note}" for note in notes]


def format_read(content: Mapping[str, Any], schema: str | None) -> list[str]:
    """Return how many rows were read and rejected, a line for each of the five first reasons.

    Args:
        content: of a manifest.
        schema: how the columns were read; None where only the name of the schema is known.
    """
    counts = content["counts"]
    read = f"{counts['read']:,} rows read ({schema or content['schema']['name']})"
    return [f"{read}, {counts['rejected']:,} rejected as unusable", *format_rejected(counts["rejected_by_reason"])]


def format_rejected(by_reason: Mapping[str, int]) -> list[str]:
    """Return a line for each of the five most frequent reasons, and one for the rest."""
    reasons = list(by_reason.items())
    lines = [f"  {count:,} {reason}" for reason, count in reasons[:5]]
    if len(reasons) > 5:
        lines.append(f"  {sum(count for _, count in reasons[5:]):,} for {len(reasons) - 5} more reasons")
    return lines
