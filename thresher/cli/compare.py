"""`thresher compare`: is any selector better than random on these rows?"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from thresher.cli import experiment_options as shared
from thresher.cli import options
from thresher.cli.curve import Equal

if TYPE_CHECKING:
    from thresher.experiments.comparison import Comparison


def compare(
    pool: shared.Pool,
    eval_rows: shared.Eval,
    methods: Annotated[
        str, typer.Option(help="With commas, or all that ask no language model; random and length are among them.")
    ] = "all",
    budget: Annotated[str, typer.Option(help="Rows or a share, one or several: 10% or 500,1000.")] = "10%",
    seeds: Annotated[int, typer.Option(help="Runs of each method at each budget, at least 2.")] = 5,
    detect: Annotated[float, typer.Option(help="True difference to report the needed seeds for.")] = 0.01,
    equal: Annotated[Equal, typer.Option(help="What all methods get as much of.")] = Equal.steps,
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
    """Compare selectors with random: the same seeds, the same test rows, an interval and a plain verdict for each.

    [bold]Example:[/bold] thresher compare train.jsonl --eval test.jsonl --methods all --budget 10%
    --out verdicts
    """
    from thresher.cli.progress import progress_display
    from thresher.experiments.comparison import compare as compare_methods

    with progress_display(quiet=quiet) as show:
        made = compare_methods(
            options.read_telling(pool, quiet=quiet, schema=schema, columns=columns, id_column=id_column),
            eval=shared.eval_rows(eval_rows, quiet=quiet, schema=schema, columns=columns, id_column=id_column),
            methods=methods,
            budget=budget,
            seeds=seeds,
            detect=detect,
            model=model,
            metric=metric,
            equal=equal.value,
            settings=shared.train_settings(train),
            method_settings=shared.method_settings(settings),
            encoder=encoder,
            device=device,
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


def summary(made: Comparison) -> str:
    """Return scores, verdicts and costs, in a few lines."""
    from thresher.evaluation.effect import ENOUGH_SEEDS

    content = made.content
    verdicts = {(verdict.method, verdict.n_rows): verdict for verdict in made.verdicts}
    width = max(len(entry["method"]) for entry in content["values"])
    lines = [f"{'method':<{width}} {'rows':>8} {content['metric']:>18}  against {content['baseline']}"]
    sign = -1 if content["is_higher_better"] else 1  # the best first
    for entry in sorted(content["values"], key=lambda entry: (entry["n_rows"], sign * entry["value"])):
        verdict = verdicts.get((entry["method"], entry["n_rows"]))
        score = f"{entry['value']:.4f} ± {entry['stderr']:.4f}"
        said = "" if verdict is None else verdict.sentence
        lines.append(f"{entry['method']:<{width}} {entry['n_rows']:>8,} {score:>18}  {said}")
    n_test = max(made.cells["n"].drop_nulls().to_list())
    lines.append(
        f"95 % intervals over {n_test:,} test rows and seeds; verdicts after Holm's correction for their number"
    )
    if any(verdict.effect.n_seeds < ENOUGH_SEEDS for verdict in made.verdicts):
        lines.append(
            f"fewer than {ENOUGH_SEEDS} seeds hardly show how much seeds differ: equal methods may be called different "
            f"in more than 5 of 100 cases"
        )
    detect = made.manifest.content["asked"]["detect"]
    lines.extend(
        f"{verdict.method}, {verdict.n_rows:,} rows: choosing took {verdict.select_seconds:.1f} s, "
        f"training {verdict.train_seconds:.1f} s; "
        f"to see a difference of {detect:g} takes {_seeds(verdict.seeds_needed)}"
        for verdict in made.verdicts
    )
    if content["failed"]:
        lines.append(f"{len(content['failed'])} cells failed; cells.csv has the reasons")
    if made.path is not None:
        lines.append(f"{made.path}: {', '.join(sorted(path.name for path in made.path.iterdir()))}")
    return "\n".join(lines)


def _seeds(needed: int | None) -> str:
    return "more test rows" if needed is None else f"{needed} seeds"
