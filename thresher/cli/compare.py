"""`thresher compare`: is any selector better than random on these rows?"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.cli import experiment_options as shared
from thresher.cli import options
from thresher.cli.next_steps import suggest_after_comparison
from thresher.cli.with_options import with_options
from thresher.dataset.values.given_settings import GivenSettings
from thresher.experiments.settings import ComparisonSettings
from thresher.numeric.units import format_count
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.experiments.comparison import Comparison

Against = Annotated[
    str | None,
    typer.Option(
        "--against",
        help="Instead of methods, compare training on these rows with and without the rows of POOL, which a model "
        "wrote, at equal steps.",
    ),
]


@with_options(
    ComparisonSettings,
    GivenSettings,
    shared.RowSettings,
    shared.OutputSettings,
    defaults={"workers": "auto"},
)
def compare(
    eval_rows: shared.Eval,
    settings: ComparisonSettings,
    given: GivenSettings,
    read: shared.RowSettings,
    output: shared.OutputSettings,
    pool: shared.Pool = None,
    against: Against = None,
) -> None:
    """Compare selectors with random rows on the same seeds and test rows, with intervals.

    [bold]Example:[/bold] thresher compare train.jsonl --eval test.jsonl --methods all --budget 10%
    --out verdicts
    """
    from thresher.experiments.comparison import compare as compare_methods
    from thresher.experiments.design.plans import plan_comparison

    command = shared.ExperimentCommand(run=compare_methods, summarize=summarize, plan=plan_comparison)
    if against is not None:
        command = _build_grown_command(against, read, quiet=output.quiet)
    shared.run_experiment(command, pool, eval_rows, settings, read=read, output=output, given=given)


def _build_grown_command(against: str, read: shared.RowSettings, *, quiet: bool) -> shared.ExperimentCommand:
    """Return the command that trains on the rows of `against` without and with the others."""
    from thresher.experiments.grown.compare_grown import compare_grown, plan_grown_comparison

    rows = options.read_and_report(against, read, quiet=quiet)
    run, plan = (partial(function, against=rows) for function in (compare_grown, plan_grown_comparison))
    return shared.ExperimentCommand(run=run, summarize=summarize, plan=plan)


def _describe_choices(content: Mapping[str, Any]) -> list[str]:
    """Say from how many rows each seed chose, and what that means for a large part of them."""
    choices = [(each["n_rows"], each["of"]) for each in content.get("choices", ())]
    lines, n_pool = [], content.get("pool", 0)
    if any(of < n_pool for _, of in choices):
        told = ", ".join(f"{n:,} of {of:,} ({n / of:.0%})" for n, of in choices)
        lines.append(f"each seed selects from a random sample of the {n_pool:,} pool rows: {told}")
    large = [(n, of) for n, of in choices if 2 * n > of]
    if large:
        told = ", ".join(f"{n / of:.0%} at {n:,}" for n, of in large)
        lines.append(
            f"by chance alone, every selection shares this part of its rows with a random one: {told}; only "
            f"the rest can make a difference"
        )
    return lines


def summarize(result: Comparison) -> str:
    """Return scores, verdicts and costs, in a few lines."""
    from thresher.evaluation.effect import ENOUGH_SEEDS
    from thresher.evaluation.task_name import names_lm_eval_task
    from thresher.experiments.untouched.forgetting import format_forgetting
    from thresher.experiments.untouched.row_zero import format_row_zero

    content = result.content
    verdicts = {(verdict.method, verdict.n_rows): verdict for verdict in result.verdicts}
    width = max(len(entry["method"]) for entry in content["values"])
    forgotten = _list_forgotten(content)
    lost = f" {'forgotten':>18}" if forgotten else ""
    n_test = max(result.cells["n"].drop_nulls().to_list())
    lines = [_write_answer(result, n_test)]
    lines.append(f"{'method':<{width}} {'rows':>8} {content['metric']:>18}{lost}  against {content['baseline']}")
    sign = -1 if content["is_higher_better"] else 1  # the best first
    for entry in sorted(content["values"], key=lambda entry: (entry["n_rows"], sign * entry["value"])):
        verdict = verdicts.get((entry["method"], entry["n_rows"]))
        score = f"{entry['value']:.4f} ± {entry['stderr']:.4f}"
        sentence = "" if verdict is None else verdict.sentence
        lost = f" {forgotten.get((entry['method'], entry['n_rows']), ''):>18}" if forgotten else ""
        lines.append(f"{entry['method']:<{width}} {entry['n_rows']:>8,} {score:>18}{lost}  {sentence}")
    lines += _list_others(result)
    what = "documents" if names_lm_eval_task(content["metric"]) else "test rows"
    lines.append(f"95 % intervals over {n_test:,} {what} and seeds; verdicts after Holm's correction for their number")
    lines += _describe_choices(content)
    lines += [*format_row_zero(content.get("base"), content["metric"]), *format_forgetting(content.get("general"))]
    if any(verdict.effect.n_seeds < ENOUGH_SEEDS for verdict in result.verdicts):
        lines.append(
            f"fewer than {ENOUGH_SEEDS} seeds say little about how much seeds differ: equal methods may be called "
            f"different in more than 5 of 100 cases"
        )
    detect = result.manifest.content["asked"]["detect"]
    lines.extend(
        f"{verdict.method}, {format_count(verdict.n_rows, 'row')}: selection took {verdict.select_seconds:.1f} s and "
        f"training {verdict.train_seconds:.1f} s; "
        f"it takes {_format_seeds(verdict.seeds_needed)} to see a difference of {detect:g}"
        for verdict in result.verdicts
    )
    lines += shared.describe_failures(content["failed"])
    lines += shared.describe_test_rows(result.manifest.content)
    if result.path is not None:
        lines.append(shared.list_files(result.path))
    lines += suggest_after_comparison(result)
    return join_lines(lines)


def _write_answer(result: Comparison, n_test: int) -> str:
    from thresher.reporting.formatting import describe_metric
    from thresher.reporting.pages.comparison import write_comparison_answer

    content = result.content
    values, task = result.cells["value"].to_list(), result.manifest.content.get("task")
    metric = describe_metric(content["metric"], values, is_higher_better=content["is_higher_better"], task=task)
    return write_comparison_answer(content, metric, n_test)


def _list_forgotten(content: Mapping[str, Any]) -> dict[tuple[str, int], str]:
    """Return what each method forgets of the general rows at each budget; empty where not asked."""
    general = content.get("general")
    return {
        (method, point["n_rows"]): f"{point['lost']['value']:+.4f} bits/byte"
        for method, entry in (general["methods"].items() if general else ())
        for point in entry["points"]
    }


def _list_others(result: Comparison) -> list[str]:
    """Return the verdicts in the other rates, which differ where classes are uneven."""
    from thresher.experiments.comparison import RATES
    from thresher.reporting.formatting import readable_name

    return [
        f"in {readable_name(metric)}, {verdict.method}, {format_count(verdict.n_rows, 'row')}: {other['sentence']}"
        for metric in RATES
        for verdict in result.verdicts
        if (other := verdict.others.get(metric))
    ]


def _format_seeds(needed: int | None) -> str:
    return "more test rows" if needed is None else format_count(needed, "seed")
