"""`thresher curve`: how many rows are about as good as all of them?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from thresher.cli import experiment_options as shared
from thresher.cli.with_options import with_options
from thresher.dataset.values.given_settings import GivenSettings
from thresher.experiments.settings import CurveSettings
from thresher.printable import join_lines

if TYPE_CHECKING:
    from thresher.experiments.curve import LearningCurve


@with_options(CurveSettings, GivenSettings, shared.RowSettings, shared.OutputSettings, defaults={"workers": "auto"})
def curve(
    eval_rows: shared.Eval,
    settings: CurveSettings,
    given: GivenSettings,
    read: shared.RowSettings,
    output: shared.OutputSettings,
    pool: shared.Pool = None,
) -> None:
    """Train at rising numbers of rows, and say how many are about as good as all of them.

    A killed run continues with the cell it was at; cells done before are not run again.

    [bold]Example:[/bold] thresher curve train.jsonl --eval test.jsonl --methods facility-location
    --out curve
    """
    from thresher.experiments.design.plans import plan_curve
    from thresher.experiments.learning_curve import learning_curve

    command = shared.ExperimentCommand(run=learning_curve, summarize=summarize, plan=plan_curve)
    shared.run_experiment(command, pool, eval_rows, settings, read=read, output=output, given=given)


def summarize(result: LearningCurve) -> str:
    """Return the points and the answer of each method, in a few lines."""
    from thresher.experiments.untouched.forgetting import format_forgetting
    from thresher.experiments.untouched.row_zero import format_row_zero

    content = result.content
    methods = content["methods"]
    lines = [content["answer"], *_format_points(content)]
    n_test = max(result.cells["n"].drop_nulls().to_list())
    lines.append(f"rows       mean ± standard error over {n_test:,} test rows and seeds (number of seeds)")
    lines += [*format_row_zero(content.get("base"), content["metric"]), *format_forgetting(content.get("general"))]
    for method, entry in methods.items():
        lines.append(f"{method}: {result.enough.get(method, 'too few runs to fit a law')}")
        lines += [f"  {note}" for note in entry["notes"]]
        for target in entry.get("targets", ()):
            lines.append(f"  {content['metric']} {target['target']:g}: {_format_rows(target)} rows")
        for gain in entry.get("gains", ()):
            low, high = gain["low"], gain["high"]
            lines.append(f"  {gain['more']:,} more rows gain {gain['median']:.4f} [{low:.4f}, {high:.4f}]")
    failed = result.cells["status"].to_list().count("failed")
    if failed:
        lines.append(f"{failed} cells failed; curve.csv has the reasons")
    lines.append(
        f"{len(result.cells)} cells, {content['cost_share']:.0%} of the full grid's cost; {content['stopped']}"
    )
    lines += shared.describe_test_rows(result.manifest.content)
    if result.path is not None:
        lines.append(shared.list_files(result.path))
    return join_lines(lines)


def _format_points(content: Mapping[str, Any]) -> list[str]:
    """Return a line for each size, with a column for each method."""
    points = {
        method: {point["n_rows"]: point for point in entry["points"]} for method, entry in content["methods"].items()
    }
    lines = [f"{content['metric']:<10}" + "".join(f"{name:>24}" for name in points)]
    for size in sorted({size for by_size in points.values() for size in by_size}):
        cells = []
        for by_size in points.values():
            point = by_size.get(size)
            cells.append("" if point is None else f"{point['value']:.4f} ± {point['stderr']:.4f} ({point['n_seeds']})")
        lines.append(f"{size:>10,}" + "".join(f"{cell:>24}" for cell in cells))
    return lines


def _format_rows(interval: Mapping[str, float | None]) -> str:
    ends = [interval[name] for name in ("median", "low", "high")]
    median, low, high = ("out of reach" if end is None else f"{end:,.0f}" for end in ends)
    return f"{median} [{low}, {high}]"
