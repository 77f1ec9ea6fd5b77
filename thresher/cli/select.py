"""`thresher select`: from a file of rows to the rows worth training on."""

from __future__ import annotations

import shutil
import sys
import tempfile
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.artifacts.hub_push import check_push
from thresher.cli import options
from thresher.cli.next_steps import suggest_training
from thresher.cli.output import print_block, print_json, print_json_text
from thresher.cli.with_options import with_options
from thresher.dataset.settings import PoolSettings
from thresher.dataset.values.given_settings import GivenSettings
from thresher.models.settings import ModelSettings
from thresher.printable import join_lines
from thresher.selection.settings import SelectSettings

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.selection.distributed import PoolFiles
    from thresher.subset.subset import Subset


_RAY = "Ray cluster"
SIDES = ("existing", "target")  # rows beside the pool
ROLES = ("encoder", "model")  # what a feature says of the model behind it


class Engine(StrEnum):
    """Who does the work."""

    local = "local"
    ray = "ray"


@with_options(SelectSettings, GivenSettings, ModelSettings, PoolSettings)
def select(
    pool: options.Pool = None,
    *,
    method: Annotated[str, typer.Option(help="'thresher methods' lists them.")] = "auto",
    selection: SelectSettings,
    given: GivenSettings,
    models: ModelSettings,
    read: PoolSettings,
    out: Annotated[Path | None, typer.Option(help="Folder for the result. Default: write kept rows to stdout.")] = None,
    force: options.Force = False,
    push_to_hub: options.PushToHub = None,
    engine: Annotated[
        Engine, typer.Option(help="local, or ray: shards of files on a cluster.", rich_help_panel=_RAY)
    ] = Engine.local,
    address: Annotated[str | None, typer.Option(help="HOST:PORT or auto.", rich_help_panel=_RAY)] = None,
    partitions: Annotated[
        int | None, typer.Option(help="Number of partitions to select from separately first.", rich_help_panel=_RAY)
    ] = None,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Select the rows worth training on, with a reason for each dropped row.

    'thresher score' computes the features that methods use, without selecting.

    [bold]Example:[/bold] thresher select train.jsonl --budget 10% --out chosen
    """
    from thresher.cli.progress import progress_display
    from thresher.dataset import load
    from thresher.errors import InputError
    from thresher.experiments.advice.choose import select as select_rows
    from thresher.selection.distributed import shards
    from thresher.selection.request import check_roles_first
    from thresher.selection.run import check_cluster_options

    if as_json and out is None and not dry_run:
        raise InputError("--json: needs --out DIR, because without it the kept rows go to stdout; add --out")
    check_push(push_to_hub, out)
    check_roles_first(method, selection)
    read_pool = shards if engine is Engine.ray and not dry_run else load
    rows = read_pool(options.list_pool(pool, read), **vars(read.to_read_settings()))
    if out is None and not dry_run:
        _refuse_bytes_on_a_terminal(rows)
    with progress_display(quiet=quiet) as show:
        side = options.get_side_settings(read)
        sides = {role: options.read_side_rows(getattr(selection, role), side, quiet=quiet, pool=pool) for role in SIDES}
        settings: dict[str, Any] = {**vars(selection), **vars(given), **vars(models), **sides, "strict": read.strict}
        if dry_run:
            check_cluster_options(engine.value, address, partitions)
            _print_plan(rows, method, as_json=as_json, on_progress=show, **settings)
            return
        settings |= {"engine": engine.value, "address": address, "partitions": partitions}
        subset = select_rows(rows, method, out=out, force=force, on_progress=show, **settings)
    _print_result(subset, out, options.describe_schema(rows), as_json=as_json, quiet=quiet)
    options.publish(out, push_to_hub, quiet=quiet)


def _print_result(subset: Subset, out: Path | None, schema: str | None, *, as_json: bool, quiet: bool) -> None:
    if out is None:
        _print_rows(subset)
    if as_json:
        print_json_text(subset.manifest.to_json().decode())
    if not quiet:
        print_block(format_summary(subset, out, schema), err=True)


def _print_plan(rows: Dataset | PoolFiles, method: Any, *, as_json: bool, **settings: Any) -> None:
    """Print a plan on stdout: it is what a dry run is for."""
    from thresher.selection.dry_run import plan

    estimate = plan(rows, method, **settings)
    if as_json:
        print_json(estimate.to_json())
    else:
        print_block(str(estimate))


def _refuse_bytes_on_a_terminal(rows: Dataset | PoolFiles) -> None:
    """Refuse to write rows to a terminal that are no text in the user's own format.

    Raises:
        InputError: stdout is a terminal, and the rows come from Parquet, Arrow or a compressed
            file.
    """
    from thresher.dataset import Dataset
    from thresher.dataset.sources import TEXT_SUFFIXES
    from thresher.errors import InputError

    if isinstance(rows, Dataset) and sys.stdout.isatty() and rows.shards[0].suffix not in TEXT_SUFFIXES:
        raise InputError(
            f"stdout: the kept rows are {rows.shards[0].suffix}, which a terminal cannot show; give --out DIR, or send "
            f"them to a file with >"
        )


def _print_rows(subset: Subset) -> None:
    """Write the kept rows to stdout in the user's own format."""
    with tempfile.TemporaryDirectory() as folder:
        path = subset.pool.write(subset.kept, Path(folder), "subset")
        if sys.stdout.isatty():  # a person looks at them; a file or a pipe gets the bytes
            print_block(path.read_bytes().decode(errors="backslashreplace").rstrip("\n"))
            return
        with open(path, "rb") as file:
            shutil.copyfileobj(file, sys.stdout.buffer)
    sys.stdout.buffer.flush()


def format_summary(subset: Subset, out: Path | None, schema: str | None) -> str:
    """Return what happened, in a few lines.

    Args:
        subset: that was chosen.
        out: folder that it was written to.
        schema: how the columns were read; None where only the name of the schema is known.
    """
    from thresher.subset.cut import REASONS
    from thresher.subset.subset import list_decisions

    content = subset.manifest.content
    counts = content["counts"]
    lines = options.format_read(content, schema)
    lines.append(
        f"{content['method']}: {counts['kept']:,} of {counts['usable']:,} rows kept (budget {content['budget']}), "
        f"{counts['dropped']:,} dropped"
    )
    lines += [f"  {why}" for why in list_decisions(content)]
    lines += [f"  {count:,} {reason}: {REASONS[reason]}" for reason, count in counts["dropped_by_reason"].items()]
    lines += [f"    {count:,} {reason}" for reason, count in counts["excluded_by_reason"].items()]
    if n_long := content["feature_notes"].get("embedding", {}).get("rows_read_in_windows"):
        lines.append(f"  {n_long:,} texts are longer than the encoder's limit; they were read in windows")
    used = {f"{role} {about[role]}" for about in content["features"].values() for role in ROLES if role in about}
    models = f" with {', '.join(sorted(used))}" if used else ""
    seconds = content["run"]["seconds"]
    trained = f"training {seconds['preparation']:.1f} s, " if seconds.get("preparation", 0) >= 0.1 else ""
    spent = f"{trained}features {seconds['features']:.1f} s{models}, selection {seconds['selection']:.1f} s"
    lines.append(f"{seconds['total']:.1f} s ({spent})")
    if out is not None:
        names = sorted(path.name for path in out.iterdir())
        lines.append(f"{out}: {', '.join(names[:12])}{f' and {len(names) - 12} more' if len(names) > 12 else ''}")
    lines += options.reading_notes(content.get("reading_notes", ()))
    lines += [suggest_training(out)] if out is not None else []
    if "shortfall" in content:  # last, where nobody overlooks it
        lines.append(f"WARNING: {content['shortfall']}; with --strict this is an error")
    return join_lines(lines)
