"""`thresher curve`: from how many rows on does more data stop paying?"""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from thresher.cli import experiment_options as shared
from thresher.cli import options

if TYPE_CHECKING:
    from thresher.experiments.curve import LearningCurve


class Equal(StrEnum):
    """What all sizes get the same of."""

    epochs = "epochs"
    steps = "steps"


def curve(
    pool: shared.Pool,
    eval_rows: shared.Eval,
    methods: Annotated[str, typer.Option(help="With commas; random is always among them.")] = "facility-location",
    sizes: Annotated[str, typer.Option(help="auto (doubling up to the pool), or 100,200,400.")] = "auto",
    seeds: Annotated[int, typer.Option(help="Runs at each size; in the adaptive mode, at most.")] = 5,
    grid: Annotated[
        bool, typer.Option("--grid", help="Run every size with every seed, not only those that sharpen the answer.")
    ] = False,
    delta: Annotated[
        float | None, typer.Option(help="Gain of a doubling that no longer pays; not set: 0.005 or one error.")
    ] = None,
    target: Annotated[list[float] | None, typer.Option(help="Score to find the needed rows for; repeatable.")] = None,
    more: Annotated[list[int] | None, typer.Option(help="Further rows to find the gain of; repeatable.")] = None,
    equal: Annotated[Equal, typer.Option(help="What every size gets as much of.")] = Equal.epochs,
    max_time: Annotated[str | None, typer.Option(help="Begin no run after so long: 90s, 30m, 4h.")] = None,
    max_runs: Annotated[int | None, typer.Option(help="Most runs.")] = None,
    slices: Annotated[
        list[str] | None, typer.Option("--slice", help="Column of the test set to draw curves for; repeatable.")
    ] = None,
    model: shared.Model = None,
    metric: shared.Metric = None,
    train: shared.Train = None,
    settings: shared.MethodSettings = None,
    encoder: options.Encoder = None,
    device: options.Device = None,
    overlap: shared.OverlapOption = shared.OverlapChoice.refuse,
    workers: shared.Workers = "auto",
    engine: shared.Engine = "local",
    out: shared.Out = None,
    force: options.Force = False,
    page: shared.Page = True,
    schema: options.Schema = None,
    columns: options.Map = None,
    id_column: options.IdColumn = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Train at rising numbers of rows, and say from how many on more data stops paying.

    A killed run continues with the cell it was at; cells done before are not run again.

    [bold]Example:[/bold] thresher curve train.jsonl --eval test.jsonl --methods facility-location
    --out curve
    """
    from thresher.cli.progress import progress_display
    from thresher.experiments.learning_curve import learning_curve

    with progress_display(quiet=quiet) as show:
        made = learning_curve(
            options.read_telling(pool, quiet=quiet, schema=schema, columns=columns, id_column=id_column),
            eval=shared.eval_rows(eval_rows, quiet=quiet, schema=schema, columns=columns, id_column=id_column),
            methods=methods,
            sizes=shared.whole_numbers("--sizes", sizes),
            seeds=seeds,
            grid=grid,
            model=model,
            metric=metric,
            delta=delta,
            equal=equal.value,
            max_time=shared.seconds("--max-time", max_time),
            max_runs=max_runs,
            targets=target or (),
            more=more or (),
            settings=shared.train_settings(train),
            method_settings=shared.method_settings(settings),
            encoder=encoder,
            device=device,
            slices=slices or (),
            overlap=overlap.value,
            workers=shared.worker_count(workers),
            engine=engine,
            out=out,
            force=force,
            on_progress=show,
        )
    if as_json:
        import orjson

        sys.stdout.write(orjson.dumps(made.content, option=orjson.OPT_INDENT_2).decode() + "\n")
    if not quiet:
        typer.echo(summary(made), err=True)
    shared.write_page(out, wanted=page, quiet=quiet)


def summary(made: LearningCurve) -> str:
    """Return the points and the answer of each method, in a few lines."""
    content = made.content
    methods = content["methods"]
    sizes = sorted({point["n_rows"] for entry in methods.values() for point in entry["points"]})
    lines = [f"{content['metric']:<10}" + "".join(f"{name:>24}" for name in methods)]
    for size in sizes:
        cells = []
        for entry in methods.values():
            point = next((point for point in entry["points"] if point["n_rows"] == size), None)
            cells.append("" if point is None else f"{point['value']:.4f} ± {point['stderr']:.4f} ({point['n_seeds']})")
        lines.append(f"{size:>10,}" + "".join(f"{cell:>24}" for cell in cells))
    n_test = max(made.cells["n"].drop_nulls().to_list())
    lines.append(f"rows       mean ± standard error over {n_test:,} test rows and seeds (number of seeds)")
    for method, entry in methods.items():
        found = made.saturation.get(method)
        lines.append(f"{method}: {'too few runs to fit a law' if found is None else found}")
        lines += [f"  {note}" for note in entry["notes"]]
        for wanted in entry.get("targets", ()):
            lines.append(f"  {content['metric']} {wanted['target']:g}: {_rows(wanted)} rows")
        for gain in entry.get("gains", ()):
            low, high = gain["low"], gain["high"]
            lines.append(f"  {gain['more']:,} more rows gain {gain['median']:.4f} [{low:.4f}, {high:.4f}]")
    failed = made.cells["status"].to_list().count("failed")
    if failed:
        lines.append(f"{failed} cells failed; curve.csv has the reasons")
    lines.append(f"{len(made.cells)} cells, {content['cost_share']:.0%} of the full grid's cost; {content['stopped']}")
    if made.path is not None:
        lines.append(f"{made.path}: {', '.join(sorted(path.name for path in made.path.iterdir()))}")
    return "\n".join(lines)


def _rows(found: dict[str, float | None]) -> str:
    ends = ["out of reach" if found[name] is None else f"{found[name]:,.0f}" for name in ("median", "low", "high")]
    return f"{ends[0]} [{ends[1]}, {ends[2]}]"
