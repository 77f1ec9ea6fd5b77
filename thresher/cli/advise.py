"""`thresher advise`: worth it, which rows, how many, what did it break, what next?"""

from __future__ import annotations

from typing import TYPE_CHECKING

from thresher.cli import experiment_options as shared
from thresher.cli.with_options import with_options
from thresher.experiments.advice.settings import AdviceSettings
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.experiments.advice.advise import Advice


@with_options(AdviceSettings, shared.RowSettings, shared.OutputSettings, defaults={"workers": "auto"})
def advise(
    eval_rows: shared.Eval,
    settings: AdviceSettings,
    read: shared.RowSettings,
    output: shared.OutputSettings,
    pool: shared.Pool = None,
) -> None:
    """Ask the whole question: is training worth it, on which rows, on how many, what does it break?

    Cleans, measures the untouched model, walks the learning curve, chooses rows, and trains. Each
    step is the folder of the single command in --out, so a killed run continues where it was.

    [bold]Example:[/bold] thresher advise train.jsonl --eval test.jsonl --max-time 30m --out advice
    """
    from thresher.experiments.advice.advise import advise as ask

    command = shared.ExperimentCommand(run=ask, summarize=summarize)
    shared.run_experiment(command, pool, eval_rows, settings, read=read, output=output)


def summarize(result: Advice) -> str:
    """Return each question with its answer."""
    lines = [f"{each['question']} {each['answer']}" for each in result.content["answers"]]
    return join_lines([*lines, shared.list_files(result.path)])
