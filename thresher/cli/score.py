"""`thresher score`: the features alone, for rules of your own."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thresher.cli import options
from thresher.cli.next_steps import suggest_selection
from thresher.cli.output import print_json_text, print_line, print_plan
from thresher.cli.with_options import with_options
from thresher.dataset.settings import PoolSettings
from thresher.dataset.values.given_settings import GivenSettings
from thresher.models.settings import ModelSettings

if TYPE_CHECKING:
    from thresher.dataset import Dataset
    from thresher.features.table import FeatureTable


@with_options(ModelSettings, GivenSettings, PoolSettings)
def score(
    features: Annotated[str, typer.Option(help="Separated by commas: length,loss,embedding,number:COLUMN, ...")],
    models: ModelSettings,
    given: GivenSettings,
    read: PoolSettings,
    pool: options.Pool = None,
    reference: Annotated[
        str | None, typer.Option(help="Model that has learned similar rows, for reference_loss.")
    ] = None,
    examples: Annotated[str | None, typer.Option(help="Rows to try as examples, for in_context_utility.")] = None,
    out: Annotated[Path | None, typer.Option(help=".parquet, .csv or .jsonl. Default: JSON lines on stdout.")] = None,
    force: options.Force = False,
    dry_run: options.DryRun = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Compute features for each row, without selecting.

    [bold]Example:[/bold] thresher score alpaca.json --features length,loss --out scores.parquet
    """
    from thresher.cli.progress import progress_display
    from thresher.errors import InputError
    from thresher.features.table import parse_names, plan_score, refuse_unused_examples
    from thresher.features.table import score as score_rows

    if as_json and out is None and not dry_run:
        raise InputError("--json: needs --out FILE, because without it the features go to stdout; add --out")
    refuse_unused_examples(parse_names(features), examples)
    rows = given.attach(options.read_rows(pool, read))
    with progress_display(quiet=quiet) as show:
        if dry_run:
            names = parse_names(features)
            print_plan(plan_score(rows, names, models, reference=reference, on_progress=show), as_json=as_json)
            return
        table = score_rows(
            rows,
            features,
            reference=reference,
            examples=options.read_side_rows(examples, options.get_side_settings(read), quiet=quiet, pool=pool),
            out=out,
            force=force,
            on_progress=show,
            **vars(models),
        )
    _print_result(table, out, rows, as_json=as_json, quiet=quiet)


def _print_result(table: FeatureTable, out: Path | None, rows: Dataset, *, as_json: bool, quiet: bool) -> None:
    if out is None:
        print_json_text(table.frame.write_ndjson())
    if as_json:
        print_json_text(table.manifest.to_json().decode())
    if not quiet:
        counts = table.manifest.content["counts"]
        lacking = [f"{n:,} rows have no {name}" for name, n in counts["missing"].items() if n]
        lacking.append(f"read as {options.describe_schema(rows)}")
        print_line("; ".join([f"{counts['usable']:,} rows, {counts['rejected']:,} rejected", *lacking]), err=True)
        for line in options.format_rejected(counts["rejected_by_reason"]):
            print_line(line, err=True)
        if out is not None:
            print_line(f"features are in {out}", err=True)
            given = f"--embeddings {shlex.quote(str(out))}" if _holds_vectors(table, out) else "--method NAME"
            print_line(suggest_selection("POOL", "10%", given), err=True)
        for line in options.reading_notes(rows.notes):
            print_line(line, err=True)


def _holds_vectors(table: FeatureTable, out: Path) -> bool:
    """Say whether `select --embeddings` reads the table."""
    return out.suffix == ".parquet" and "embedding" in table.frame.columns
