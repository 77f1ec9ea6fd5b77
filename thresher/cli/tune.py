"""`thresher tune`: which training settings are best?"""

from __future__ import annotations

import sys
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from thresher.cli import experiment_options as shared
from thresher.cli import options

if TYPE_CHECKING:
    from thresher.experiments.tuning import Tuning


class Sampler(StrEnum):
    """How the next trial is chosen."""

    tpe = "tpe"
    gp = "gp"


def tune(
    data: Annotated[str, typer.Argument(help="Rows to train on: file, glob, folder, Hub id, or - for stdin.")],
    eval_rows: Annotated[str, typer.Option("--eval", help="Test rows, which the search does not see, or a share.")],
    trials: Annotated[int, typer.Option(help="Settings to try; the first are the default ones.")] = 20,
    finalists: Annotated[int, typer.Option(help="Best trials that run to the end.")] = 5,
    checks: Annotated[
        int, typer.Option(help="Further trials, drawn at random, that run to the end to check the early values.")
    ] = 3,
    seeds: Annotated[int, typer.Option(help="Runs of winner and default on the test rows.")] = 3,
    average: Annotated[int, typer.Option(help="Finalists to average into one adapter, beside the winner.")] = 0,
    dev: Annotated[str, typer.Option(help="Share of the data held out to judge trials.")] = "15%",
    sampler: Annotated[Sampler, typer.Option(help="Parzen estimator or Gaussian process.")] = Sampler.tpe,
    model: shared.Model = None,
    metric: shared.Metric = None,
    train: shared.Train = None,
    overlap: shared.OverlapOption = shared.OverlapChoice.refuse,
    seed: options.Seed = 0,
    workers: shared.Workers = "auto",
    out: shared.Out = None,
    force: options.Force = False,
    page: shared.Page = True,
    schema: options.Schema = None,
    columns: options.Map = None,
    id_column: options.IdColumn = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Search learning rate, rank, alpha, dropout, batch size and epochs; trials are judged at 20 % of their steps.

    [bold]Example:[/bold] thresher tune chosen/subset.jsonl --eval test.jsonl --trials 20 --out
    tuned
    """
    from thresher.cli.progress import progress_display
    from thresher.experiments.tuning import tune as search_settings

    with progress_display(quiet=quiet) as show:
        made = search_settings(
            options.read_telling(data, quiet=quiet, schema=schema, columns=columns, id_column=id_column),
            eval=shared.eval_rows(eval_rows, quiet=quiet, schema=schema, columns=columns, id_column=id_column),
            trials=trials,
            finalists=finalists,
            checks=checks,
            seeds=seeds,
            average=average,
            dev=dev,
            model=model,
            metric=metric,
            settings=shared.train_settings(train),
            sampler=sampler.value,
            overlap=overlap.value,
            seed=seed,
            workers=shared.worker_count(workers),
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


def summary(made: Tuning) -> str:
    """Return the winner, how it compares with the default, and how far early values could be trusted."""
    content, best = made.content, made.best
    failed = made.trials["status"].to_list().count("failed")
    lines = [
        f"{len(made.trials)} trials, judged at {content['early_share']:.0%} of their steps on {content['dev_rows']:,} "
        f"rows held out of the data, {failed} failed"
    ]
    lines.append(
        f"best: trial {content['best_trial']}: --learning-rate {best.learning_rate:.3g} --lora-rank {best.lora_rank} "
        f"--lora-alpha {best.lora_alpha:g} --lora-dropout {best.lora_dropout:.3g} --batch-size {best.batch_size} "
        f"--epochs {best.epochs:g}"
    )
    test = content["test"]
    if test is not None:
        values = f"{test['winner']:.4f}, with the default settings {test['default']:.4f}"
        lines.append(f"on the test rows: {content['metric']} {values}")
    lines.append(f"winner against default: {content['verdict']}")
    average = content.get("average")
    if average is not None:
        lines.append(
            f"{len(average['trials'])} finalists averaged: {content['metric']} {average['average']:.4f}; against the "
            f"winner: {average['verdict']}"
        )
    agreement = content["agreement"]
    if agreement["rank_correlation"] is not None:
        kept = agreement["top_five_kept"]
        stayed = "" if kept is None else f"; {kept} of the early best five are among the best five at the end"
        lines.append(
            f"rank correlation of early and final values {agreement['rank_correlation']:.2f} "
            f"(n = {agreement['n']} trials that ran to the end){stayed}"
        )
    if made.path is not None:
        lines.append(f"{made.path}: {', '.join(sorted(path.name for path in made.path.iterdir()))}")
    return "\n".join(lines)
