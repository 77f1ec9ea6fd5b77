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
    """Answer it all: is training worth it, which rows, how many, and what does it break?

    Cleans, measures the untouched model, runs the learning curve, selects rows, and trains. Each
    step writes a folder in --out, as its own command would, so a killed run resumes.

    [bold]Example:[/bold] thresher advise train.jsonl --eval test.jsonl --max-time 30m --out advice
    """
    from thresher.experiments.advice.advice_plan import plan_advice
    from thresher.experiments.advice.advise import advise as ask

    if not output.dry_run:
        settings.require_out()  # refused, if at all, before any row is read
    command = shared.ExperimentCommand(run=ask, summarize=summarize, plan=plan_advice)
    shared.run_experiment(command, pool, eval_rows, settings, read=read, output=output)


def summarize(result: Advice) -> str:
    """Return each question with its answer."""
    lines = [f"{each['question']} {each['answer']}" for each in result.content["answers"]]
    return join_lines([*lines, shared.list_files(result.path)])
