"""`thresher tune`: which training settings are best?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from thresher.cli import experiment_options as shared
from thresher.cli.next_steps import suggest_after_tuning
from thresher.cli.with_options import with_options
from thresher.experiments.settings import TuneSettings
from thresher.numeric.units import format_count
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.experiments.tuning import Tuning


@with_options(TuneSettings, shared.RowSettings, shared.OutputSettings, defaults={"workers": "auto"})
def tune(
    eval_rows: Annotated[str, typer.Option("--eval", help="Test rows, which the search never sees, or a share.")],
    settings: TuneSettings,
    read: shared.RowSettings,
    output: shared.OutputSettings,
    data: Annotated[
        str | None, typer.Argument(help="Rows to train on: file, glob, folder, Hub id, or - for stdin.")
    ] = None,
) -> None:
    """Search learning rate, rank, alpha, dropout, batch size and epochs.

    Settings in --train are the same in all trials. Trials are judged after 20 % of their steps; the
    best few run to the end.

    [bold]Example:[/bold] thresher tune chosen/subset.jsonl --eval test.jsonl --trials 20 --out
    tuned
    """
    from thresher.experiments.design.plans import plan_tuning
    from thresher.experiments.tuning import tune as search_settings

    command = shared.ExperimentCommand(run=search_settings, summarize=summarize, plan=plan_tuning)
    shared.run_experiment(command, data, eval_rows, settings, read=read, output=output)


def summarize(result: Tuning) -> str:
    """Return the winner, its score against the default, and how far early values held."""
    from thresher.experiments.adapter_averaging import describe_greedy
    from thresher.experiments.search import describe_length
    from thresher.experiments.untouched.row_zero import format_row_zero
    from thresher.reporting.pages.tuning import count_measured, write_tuning_answer

    content, best = result.content, result.best
    failed = result.trials["status"].to_list().count("failed")
    n_finished = len(result.trials["final"].drop_nulls())
    measured = count_measured(result.manifest.content)
    lines = [
        write_tuning_answer(content, len(result.trials), n_finished, *measured),
        f"{format_count(len(result.trials), 'trial')}, judged at {content['early_share']:.0%} of their steps "
        f"on {format_count(content['dev_rows'], 'row')} held out of the data, {failed} failed",
    ]
    kind = "" if best.adapter == "lora" else f"--adapter {best.adapter} "
    lines.append(
        f"best: trial {content['best_trial']}: {kind}--learning-rate {best.learning_rate:.3g} "
        f"--lora-rank {best.lora_rank} --lora-alpha {best.lora_alpha:g} --lora-dropout {best.lora_dropout:.3g} "
        f"--batch-size {best.batch_size} "
        f"{describe_length(best, prefix='--')}"
    )
    test = content["test"]
    if test is not None:
        values = f"{test['winner']:.4f}, with the default settings {test['default']:.4f}"
        lines.append(f"on the test rows: {content['metric']} {values}")
    if content.get("general"):
        lines.append(content["general"]["sentence"])
    lines += format_row_zero(content.get("base"), content["metric"])
    average = content.get("average")
    if average is not None:
        lines.append(
            f"{len(average['trials'])} finalists averaged: {content['metric']} {average['average']:.4f}; against the "
            f"winner: {average['verdict']}"
        )
        lines.append(f"greedy soup: {describe_greedy(average, content['metric'])}")
    agreement = content["agreement"]
    if agreement["rank_correlation"] is not None:
        n_stayed = agreement["top_five_kept"]
        stayed = "" if n_stayed is None else f"; {n_stayed} of the early top five are in the final top five"
        lines.append(
            f"rank correlation of early and final values {agreement['rank_correlation']:.2f} "
            f"(n = {agreement['n']} trials that ran to the end){stayed}"
        )
    lines += shared.describe_test_rows(result.manifest.content)
    if result.path is not None:
        lines.append(shared.list_files(result.path))
    lines += suggest_after_tuning(result)
    return join_lines(lines)
