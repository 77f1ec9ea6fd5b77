"""`thresher curve`: how many rows are about as good as all of them?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from thresher.cli import experiment_options as shared
from thresher.cli.next_steps import suggest_after_curve
from thresher.cli.with_options import with_options
from thresher.dataset.values.given_settings import GivenSettings
from thresher.errors import InputError
from thresher.experiments.settings import CurveSettings
from thresher.numeric.units import format_count
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.experiments.curve import LearningCurve

OptionalEval = Annotated[
    str | None, typer.Option("--eval", help="Rows to measure on, or a share of the pool to hold out (such as 10%).")
]


@with_options(CurveSettings, GivenSettings, shared.RowSettings, shared.OutputSettings, defaults={"workers": "auto"})
def curve(
    settings: CurveSettings,
    given: GivenSettings,
    read: shared.RowSettings,
    output: shared.OutputSettings,
    pool: shared.Pool = None,
    eval_rows: OptionalEval = None,
) -> None:
    """Train on increasing numbers of rows, and say how many are about as good as all of them.

    A killed run resumes with the unfinished cell; finished cells are not run again.

    [bold]Example:[/bold] thresher curve train.jsonl --eval test.jsonl
    --out curve

    [bold]Scores of your own:[/bold] thresher curve --from results.csv --within 1%
    """
    from thresher.experiments.design.plans import plan_curve
    from thresher.experiments.learning_curve import learning_curve
    from thresher.experiments.own.fit_points import check_only_points

    if settings.points is not None:
        others = {"pool": pool, "eval": eval_rows, "dry_run": output.dry_run}
        others |= {name: value for group in (given, read) for name, value in list_changes(group).items()}
        check_only_points(settings, others)
        result = learning_curve(**vars(settings))
        shared.show_result(result, output, summarize_points)
        return
    if eval_rows is None:
        raise InputError("curve: needs --eval, rows to measure on, or scores that you have measured by --from")
    command = shared.ExperimentCommand(run=learning_curve, summarize=summarize, plan=plan_curve)
    shared.run_experiment(command, pool, eval_rows, settings, read=read, output=output, given=given)


def list_changes(settings: Any) -> dict[str, Any]:
    """Return the fields of settings that do not have their default."""
    return {field.name: value for field in fields(settings) if (value := vars(settings)[field.name]) != field.default}


def summarize_points(result: LearningCurve) -> str:
    """Return the points and the answer of curves that were measured elsewhere."""
    content = result.content
    lines = [content["answer"], *content.get("outlook", ()), *_format_points(content)]
    lines.append("rows       mean ± standard error over runs (number of runs); the test rows are taken as they are")
    lines += [*content["read"], *_format_methods(result)]
    failed = result.cells["status"].to_list().count("failed")
    if failed:
        lines.append(f"left out: {format_count(failed, 'run')} without a score")
    if result.path is not None:
        lines.append(shared.list_files(result.path))
    return join_lines(lines)


def summarize(result: LearningCurve) -> str:
    """Return the points and the answer of each method, in a few lines."""
    from thresher.evaluation.task_name import names_lm_eval_task
    from thresher.experiments.untouched.forgetting import format_forgetting
    from thresher.experiments.untouched.row_zero import format_row_zero

    content = result.content
    lines = [content["answer"], *content.get("outlook", ()), *_format_points(content)]
    n_test = max(result.cells["n"].drop_nulls().to_list())
    what = "documents" if names_lm_eval_task(content["metric"]) else "test rows"
    unit = content.get("unit", "rows")
    lines.append(f"{unit:<10} mean ± standard error over {n_test:,} {what} and seeds (number of seeds)")
    lines += [*format_row_zero(content.get("base"), content["metric"]), *format_forgetting(content.get("general"))]
    lines += _format_methods(result)
    lines += shared.describe_failures([run for run in result.cells.to_dicts() if run["status"] == "failed"])
    lines.append(
        f"{format_count(len(result.cells), 'cell')}, {content['cost_share']:.0%} of the full grid's cost; "
        f"{content['stopped']}"
    )
    lines += shared.describe_test_rows(result.manifest.content)
    if result.path is not None:
        lines.append(shared.list_files(result.path))
    lines += suggest_after_curve(result)
    return join_lines(lines)


def _format_methods(result: LearningCurve) -> list[str]:
    """Return the answer of each method, with its notes, targets and gains."""
    lines = []
    for method, entry in result.content["methods"].items():
        answer, notes = result.enough.get(method), entry["notes"]
        if answer is None:  # then the first note says why
            answer, *notes = notes or ["too few runs to fit a law"]
        is_said = len(result.content["methods"]) == 1 and answer in result.enough.values()
        lines += [] if is_said else [f"{method}: {answer}"]
        lines += [f"  {note}" for note in notes]
        for target in entry.get("targets", ()):
            lines.append(f"  {result.content['metric']} {target['target']:g}: {_format_rows(target)}")
        for gain in entry.get("gains", ()):
            low, high = gain["low"], gain["high"]
            lines.append(
                f"  {format_count(gain['more'], 'more row')}: gain {gain['median']:.4f} [{low:.4f}, {high:.4f}]"
            )
    return lines


def _format_points(content: Mapping[str, Any]) -> list[str]:
    """Return a line for each size, with a column for each method."""
    points = {
        method: {point["n_rows"]: point for point in entry["points"]} for method, entry in content["methods"].items()
    }
    width = 2 + max(22, *map(len, points))
    lines = [f"{content['metric']:<10}" + "".join(f"{name:>{width}}" for name in points)]
    for size in sorted({size for by_size in points.values() for size in by_size}):
        cells = []
        for by_size in points.values():
            point = by_size.get(size)
            cells.append("" if point is None else _format_point(point))
        lines.append(f"{size:>10,}" + "".join(f"{cell:>{width}}" for cell in cells))
    return lines


def _format_point(point: Mapping[str, Any]) -> str:
    """Return "0.7400 ± 0.0120 (3)", without an error where it is not known from a single run."""
    error = "" if point["stderr"] is None else f" ± {point['stderr']:.4f}"
    return f"{point['value']:.4f}{error} ({point['n_seeds']})"


def _format_rows(interval: Mapping[str, float | None]) -> str:
    """Return "250 rows [200, 310]"; 0 stands for fewer than the smallest size."""
    fewer = f"fewer than {interval.get('smallest', 0):,}"
    ends = [interval[name] for name in ("median", "low", "high")]
    median, low, high = ("out of reach" if end is None else f"{end:,.0f}" if end else fewer for end in ends)
    if ends == [None] * 3:
        return "out of reach"
    return f"{fewer} rows" if interval["high"] == 0 else f"{median} rows [{low}, {high}]"
