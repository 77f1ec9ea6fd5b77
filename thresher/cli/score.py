"""`thresher score`: the features alone, for rules of your own."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from thresher.cli import options


def score(
    pool: Annotated[str, typer.Argument(help="File, glob, folder, Hub id, or - for stdin.")],
    features: Annotated[str, typer.Option(help="With commas: length,loss,embedding,number:COLUMN, ...")],
    encoder: options.Encoder = None,
    model: options.Model = None,
    reference: Annotated[str | None, typer.Option(help="Model that learned such rows, for reference_loss.")] = None,
    examples: Annotated[str | None, typer.Option(help="Rows to try as examples, for in_context_utility.")] = None,
    tokenizer: options.Tokenizer = None,
    device: options.Device = None,
    dtype: options.Dtype = None,
    embedding_dtype: options.EmbeddingDtype = options.KeptAs.float32,
    batch_tokens: options.BatchTokens = None,
    max_length: options.MaxLength = None,
    loss_on: options.AskedTurns = options.LossOn.last,
    out: Annotated[Path | None, typer.Option(help=".parquet, .csv or .jsonl; not set: JSON lines on stdout.")] = None,
    force: options.Force = False,
    schema: options.Schema = None,
    columns: options.Map = None,
    id_column: options.IdColumn = None,
    config: options.Config = None,
    split: options.Split = None,
    strict: options.Strict = False,
    max_row_bytes: options.MaxRowBytes = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Compute features of each row, and choose nothing.

    [bold]Example:[/bold] thresher score alpaca.json --features length,loss --out scores.parquet
    """
    from thresher.cli.progress import progress_display
    from thresher.errors import InputError
    from thresher.features.table import score as score_rows

    if as_json and out is None:
        raise InputError("--json: needs --out FILE, because without it the features go to stdout; add --out")
    rows = options.read_rows(
        pool,
        schema=schema,
        columns=columns,
        id_column=id_column,
        config=config,
        split=split,
        strict=strict,
        max_row_bytes=max_row_bytes,
    )
    with progress_display(quiet=quiet) as show:
        made = score_rows(
            rows,
            features,
            encoder=encoder,
            model=model,
            reference=reference,
            examples=None
            if examples is None
            else options.read_telling(examples, quiet=quiet, schema=schema, columns=columns),
            tokenizer=tokenizer,
            device=device,
            dtype=dtype,
            embedding_dtype=embedding_dtype.value,
            batch_tokens=batch_tokens,
            max_length=max_length,
            loss_on=loss_on.value,
            out=out,
            force=force,
            on_progress=show,
        )
    if out is None:
        sys.stdout.write(made.frame.write_ndjson())
    if as_json:
        sys.stdout.write(made.manifest.to_json().decode())
    if not quiet:
        counts = made.manifest.content["counts"]
        lacking = [f"{n:,} rows have no {name}" for name, n in counts["missing"].items() if n]
        lacking.append(f"read as {options.read_as(rows)}")
        typer.echo("; ".join([f"{counts['usable']:,} rows, {counts['rejected']:,} set aside", *lacking]), err=True)
        for line in options.unusable_lines(counts["rejected_by_reason"]):
            typer.echo(line, err=True)
        if out is not None:
            typer.echo(f"features are in {out}", err=True)
