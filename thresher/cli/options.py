"""What several commands share: their common options, rows read from them, lines of summaries."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.cli.output import print_line
from thresher.dataset.settings import EvalReadSettings, PoolSettings, ReadSettings
from thresher.numeric.units import format_count

if TYPE_CHECKING:
    from thresher.dataset import Dataset, Source
    from thresher.selection.distributed import PoolFiles


Pool = Annotated[str | None, typer.Argument(help="File, glob, folder, Hub id, - for stdin, or a TOML file of sources.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress and no summary.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print the summary as JSON on stdout.")]
PushToHub = Annotated[
    str | None, typer.Option("--push-to-hub", help="Publish the result on the Hub as owner/name (private).")
]
Force = Annotated[bool, typer.Option("--force", help="Replace an earlier result in --out.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Estimate time, memory and disk from a few batches; write nothing.")
]
Out = Annotated[Path | None, typer.Option(help="Folder for the result; required except with --dry-run.")]
Seed = Annotated[int, typer.Option(help="Random seed.")]


def require_out(out: Path | None) -> Path:
    """Return the folder for a result.

    Raises:
        InputError: none is given.
    """
    from thresher.errors import InputError

    if out is None:
        raise InputError("out: the result needs a folder, got none; give --out, or --dry-run for an estimate")
    return out


def publish(folder: Path | None, repo_id: str | None, *, quiet: bool) -> None:
    """Publish a folder on the Hub where a repository is named, and say where it is."""
    if folder is None or repo_id is None:
        return
    from thresher.artifacts.hub_push import push_to_hub

    address = push_to_hub(folder, repo_id)
    if not quiet:
        print_line(f"published: {address}", err=True)


def list_pool(source: str | None, read: PoolSettings) -> str | list[Source]:
    """Return what a command shall read: its argument, or several sources side by side.

    Raises:
        InputError: nothing is named.
    """
    from thresher.dataset.mixture.parsing import merge_repeated
    from thresher.errors import InputError

    if source is None and not read.sources:
        raise InputError("rows are required, found none; name a file, a folder or a Hub id, or give --source")
    if source is not None and not read.sources:
        return source
    return merge_repeated([*([source] if source is not None else []), *(read.sources or ())])


def read_rows(source: str | None, read: PoolSettings) -> Dataset:
    """Load the rows that the options describe."""
    from thresher.dataset import load

    return load(list_pool(source, read), **vars(read.to_read_settings()))


def read_and_report(source: str | None, read: PoolSettings, *, quiet: bool) -> Dataset:
    """Load rows, and say at once how they were read, and how many were rejected and why."""
    rows = read_rows(source, read)
    report_rows(source or "rows", rows, quiet=quiet)
    return rows


def report_rows(name: str, rows: Dataset, *, quiet: bool) -> None:
    """Say how rows were read, and how many were rejected and why; of several sources for each."""
    from thresher.dataset.rejection import describe_rejected

    if quiet:
        return
    for one in rows.readings:
        schema = one.schema.describe(one.column_names)
        print_line(f"{one.name}: {format_count(one.n_read, 'row')} read ({rows.kind}; {schema})", err=True)
        if one.rejected:
            print_line(f"{one.name}: {describe_rejected(one.n_read, one.rejected)}", err=True)
    if not rows.readings:
        print_line(f"{name}: {format_count(rows.n_read, 'row')} read ({rows.kind}; {describe_schema(rows)})", err=True)
    if rows.n_rejected and (
        not rows.readings or rows.n_rejected > sum(sum(r.rejected.values()) for r in rows.readings)
    ):
        print_line(f"{name}: {describe_rejected(rows.n_read, rows.rejected_by_reason)}", err=True)
    for note in rows.notes:
        print_line(f"{name}: note: {note}", err=True)


def check_side_settings(role: str, source: str | None, own: Mapping[str, Any], *, is_share: bool = False) -> None:
    """Refuse settings of rows that are not given, before anything is read.

    Args:
        role: option that names the rows.
        source: what it names; None where it is not given.
        own: settings of these rows by their names in `SourceSettings`.
        is_share: `source` is a share of the pool.

    Raises:
        InputError: there are such settings.
    """
    from thresher.errors import InputError

    names = ", ".join(f"--{role}-{'map' if name == 'columns' else name}" for name in own)
    if own and source is None:
        raise InputError(f"{names}: must be given with --{role}, found none; name the rows with --{role}")
    if own and is_share:
        raise InputError(f"{names}: rows of their own are required, got --{role} {source}, a share; leave it out")


def name_eval_rows(source: str | None, eval_read: EvalReadSettings) -> Any:
    """Return the rows to measure on with the settings that are given for them.

    Raises:
        InputError: settings are given for rows that are not.
    """
    from thresher.dataset.mixture.source import Source
    from thresher.trainer.split import parse_share

    check_side_settings("eval", source, eval_read.given, is_share=parse_share(source) is not None)
    return Source(source, **eval_read.given) if eval_read.given else source


def read_side_rows(
    source: str | None,
    read: ReadSettings,
    *,
    quiet: bool,
    own: Mapping[str, Any] | None = None,
    pool: str | None = None,
) -> Dataset | None:
    """Load rows beside the pool: as told of them, else as the pool where they have its columns.

    Args:
        source: what the user named; None where nothing.
        read: of the pool; its configuration and split are not those of other rows.
        quiet: say nothing of how they were read.
        own: settings of these rows by their names in `SourceSettings`.
        pool: what the user named as the pool; a folder of results says how its rows are read.
    """
    from thresher.dataset.loading import load_side_rows
    from thresher.dataset.mixture.recorded import adopt_recorded
    from thresher.dataset.mixture.source import Source

    if source is None:
        return None
    limit, (read, _) = read.max_row_bytes, adopt_recorded(pool, read, with_id=False)
    read = replace(read, config=None, split=None, max_row_bytes=limit)
    rows = load_side_rows(Source(source, **own) if own else source, read)
    report_rows(source, rows, quiet=quiet)
    return rows


def get_side_settings(read: ReadSettings) -> ReadSettings:
    """Return how rows beside the pool are read where nothing is said of them."""
    return ReadSettings(schema=read.schema, columns=read.columns, wanted=read.wanted, max_row_bytes=read.max_row_bytes)


def describe_schema(rows: Dataset | PoolFiles) -> str | None:
    """Return how the columns were read; None for files that were named and not read here."""
    from thresher.dataset import Dataset

    if not isinstance(rows, Dataset):
        return None
    common = rows.schema.describe(rows.column_names)
    own = [f"{one.name} ({one.n_read:,} rows, {one.schema.describe(one.column_names)})" for one in rows.readings]
    return f"{common}; from {' and '.join(own)}" if own else common


def reading_notes(notes: Iterable[str]) -> list[str]:
    """Return the last lines of a summary: what a user should know of how rows were read."""
    return [f"note: {note}" for note in notes]


def list_side_notes(content: Mapping[str, Any]) -> list[str]:
    """Return the notes on how the rows of each side were read, from a manifest, each once."""
    sides = content.get("reading", {}).items()
    notes = {note: side for side, about in reversed(sides) for note in about.get("notes", ())}
    return [f"note: {side}: {note}" for note, side in reversed(notes.items())]


def format_read(content: Mapping[str, Any], schema: str | None) -> list[str]:
    """Return how many rows were read and rejected, a line for each of the five first reasons.

    Args:
        content: of a manifest.
        schema: how the columns were read; None where only the name of the schema is known.
    """
    counts = content["counts"]
    read = f"{format_count(counts['read'], 'row')} read ({schema or content['schema']['name']})"
    return [f"{read}, {counts['rejected']:,} rejected as unusable", *format_rejected(counts["rejected_by_reason"])]


def format_rejected(by_reason: Mapping[str, int]) -> list[str]:
    """Return a line for each of the five most frequent reasons, and one for the rest."""
    reasons = list(by_reason.items())
    lines = [f"  {count:,} {reason}" for reason, count in reasons[:5]]
    if len(reasons) > 5:
        lines.append(f"  {sum(count for _, count in reasons[5:]):,} for {len(reasons) - 5} more reasons")
    return lines
