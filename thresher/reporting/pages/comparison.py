"""The page of a comparison: does a method beat random rows, by how much, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.evaluation.effect import ENOUGH_SEEDS
from thresher.numeric.units import format_count
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Chart, Dots, LegendEntry, Mark, Note, Rows, Rule, Whiskers, linear_axis
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Figure, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages import experiment_tables as tables
from thresher.reporting.pages.experiment_tables import Experiment
from thresher.reporting.pages.reproduce import build_reproduction
from thresher.reporting.pages.row_zero import build_gains, build_losses, write_forgetting, write_row_zero

ALPHA = 0.05
KEYS = ("metric", "is_higher_better", "budgets", "baseline", "verdicts")
Verdict = Mapping[str, Any]


def build_comparison_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `compare` wrote."""
    content = read_json(folder / "comparison.json", KEYS)
    general: Mapping[str, Any] | None = content.get("general")
    baseline, is_higher_better = str(content["baseline"]), bool(content["is_higher_better"])
    experiment = tables.read_experiment(folder, manifest, cells_file="cells.csv", is_higher_better=is_higher_better)
    verdicts = sorted(content["verdicts"], key=lambda v: (v["n_rows"], -_improvement(v), v["method"]))
    methods = [method for method in experiment.methods if method != baseline]
    budgets = " / ".join(fmt.count(size) for size in sorted({v["n_rows"] for v in verdicts}))
    n_clear = sum(is_clear(verdict) for verdict in verdicts)
    return Page(
        kind="comparison",
        title=f"{fmt.join_words(methods) or 'nothing'} against {baseline}",
        answer=write_comparison_answer(content, experiment.metric, _count_test_rows(experiment)),
        more=[
            *tables.describe_incomplete(content),
            *write_row_zero(content.get("base")),
            *write_forgetting(general),
            *_write_remarks(verdicts),
        ],
        tiles=(
            Tile("Comparisons", fmt.count(len(verdicts)), f"{n_clear} with a clear difference"),
            Tile("Budgets", budgets or fmt.NOTHING, "rows"),
            *tables.build_run_tiles(experiment),
        ),
        sections=[
            Section(f"Effect against {baseline}", _build_effect(experiment, verdicts, baseline, general)),
            Section("Scores", (_build_scores(experiment), tables.build_run_table(experiment))),
            Section("Without training", build_gains(content.get("base"), experiment.metric)),
            Section("What is forgotten", build_losses(general, experiment.tones)),
            Section("Cost and effect", (*_build_net(experiment, verdicts), *tables.build_costs(experiment))),
            Section("What was chosen", tables.build_maps(experiment)),
            build_reproduction(manifest, folder),
        ],
        footer=tables.build_footer(manifest.content),
    )


def _count_test_rows(experiment: Experiment) -> int | None:
    n_known = experiment.cells["n"].drop_nulls()
    return int(n_known.max()) if len(n_known) else None  # type: ignore[arg-type]


def is_clear(verdict: Verdict) -> bool:
    """Tell whether a difference survives Holm's correction and its interval excludes zero."""
    p, gap = verdict.get("p_holm"), verdict["difference"]
    if not fmt.is_number(p) or p >= ALPHA:
        return False
    return not (fmt.is_number(gap["low"]) and fmt.is_number(gap["high"]) and gap["low"] <= 0 <= gap["high"])


def _write_remarks(verdicts: list[Verdict]) -> list[str]:
    sentences = [
        "Differences are paired over test rows and seeds; p-values are corrected by Holm's method, which keeps the "
        f"chance of a false alarm among all of these comparisons at {100 * ALPHA:.0f}{fmt.PERCENT} or less."
    ]
    if any(verdict["difference"].get("n_seeds", ENOUGH_SEEDS) < ENOUGH_SEEDS for verdict in verdicts):
        sentences.append(f"Some used fewer than {ENOUGH_SEEDS} seeds, which makes false alarms more frequent.")
    return sentences


def _improvement(verdict: Verdict) -> float:
    """Return the effect, positive where the method is better, for metrics of either direction."""
    value = verdict["difference"]["value"]
    return float(value) if fmt.is_number(value) else 0.0


def write_comparison_answer(content: Mapping[str, Any], metric: fmt.MetricDisplay, n_test: int | None) -> str:
    """Return the answer of a comparison as one sentence, with the rows that it was measured on.

    Args:
        content: of `comparison.json`.
        metric: how its values are shown.
        n_test: test rows; None where they are not known.
    """
    verdicts, baseline = content["verdicts"], str(content["baseline"])
    if not verdicts:
        return "Nothing was compared: no budget has at least two finished runs of a method and of " + baseline + "."
    n_seeds = max(int(verdict["difference"].get("n_seeds", 0)) for verdict in verdicts)
    measured = [] if n_test is None else [format_count(n_test, "test row")]
    measured += [format_count(n_seeds, "seed")] if n_seeds else []
    condition = f" ({', '.join(measured)})" if measured else ""
    return f"{_say_who_wins(verdicts, baseline, metric)}{condition}."


def _say_who_wins(verdicts: Sequence[Verdict], baseline: str, metric: fmt.MetricDisplay) -> str:
    better = [v for v in verdicts if is_clear(v) and _improvement(v) > 0]
    worse = [v for v in verdicts if is_clear(v) and _improvement(v) < 0]
    if better:
        best = max(better, key=_improvement)
        text = f"{best['method']} beats {baseline} at {fmt.rows(best['n_rows'])}: {best['sentence']}"
        others = sorted({v["method"] for v in better} - {best["method"]})
        verb = "so does" if len(others) == 1 else "so do"
        return f"{text}{f'; {verb} {fmt.join_words(others)}' if others else ''}"
    if worse and len(worse) == len(verdicts):
        return f"Every method is worse than {baseline} here"
    detectable = [d for v in verdicts if fmt.is_number(d := v["difference"].get("detectable"))]
    size = ""
    if detectable and metric.is_rate and max(detectable) >= 1:
        size = "; with so few runs and test rows, no difference could have been detected"
    elif detectable:
        size = f"; any difference of {metric.amount(max(detectable))} or more would have shown"
    names = sorted({v["method"] for v in worse})
    but = f", and {fmt.join_words(names)} {'is' if len(names) == 1 else 'are'} worse" if worse else ""
    return f"No method beats {baseline} here{but}{size}"


def _build_effect(
    experiment: Experiment, verdicts: list[Verdict], baseline: str, general: Mapping[str, Any] | None
) -> list[Block]:
    blocks = [*tables.build_failures(experiment)]
    if verdicts:
        in_words = _build_words(verdicts, general)
        blocks += [_build_forest(experiment, verdicts, baseline), in_words, *_build_others(verdicts)]
        blocks += _build_seeds_needed(experiment, verdicts)
    return blocks


def _build_words(verdicts: list[Verdict], general: Mapping[str, Any] | None) -> Table:
    """Return the verdicts, and what each method forgets where that was measured."""
    lost = {
        (method, point["n_rows"]): f"{fmt.signed(point['lost']['value'], 4)} bits per byte"
        for method, entry in (general or {"methods": {}})["methods"].items()
        for point in entry["points"]
    }
    cells = [
        (
            verdict["method"],
            fmt.count(verdict["n_rows"]),
            *([lost.get((verdict["method"], verdict["n_rows"]), fmt.NOTHING)] if lost else []),
            verdict["sentence"],
        )
        for verdict in verdicts
    ]
    columns = ("method", "rows", *(["forgotten"] if lost else []), "verdict")
    return Table(caption="In words", columns=columns, rows=cells, numeric=(1, 2) if lost else (1,))


def _build_others(verdicts: list[Verdict]) -> list[Block]:
    """Return the verdicts in the other rates, which differ where classes are uneven."""
    cells = [
        (verdict["method"], fmt.count(verdict["n_rows"]), fmt.readable_name(metric), other["sentence"])
        for verdict in verdicts
        for metric, other in verdict.get("others", {}).items()
    ]
    caption = (
        "Other metrics, as accuracy mostly reflects the frequent classes; shown next to the verdict, and corrected "
        "for all metrics together"
    )
    return [Table(caption=caption, columns=("method", "rows", "metric", "verdict"), rows=cells, numeric=(1,))] * bool(
        cells
    )


def _build_forest(experiment: Experiment, verdicts: list[Verdict], baseline: str) -> Figure:
    """Return the forest plot: right is better, whatever the direction of the metric."""
    metric = experiment.metric
    has_budgets = len({verdict["n_rows"] for verdict in verdicts}) > 1
    labels = [f"{v['method']}, {fmt.count(v['n_rows'])} rows" if has_budgets else str(v["method"]) for v in verdicts]
    marks: list[Mark] = [Rule(at=0.0)]
    for i, verdict in enumerate(verdicts):
        marks += _build_interval(experiment, verdict, i, labels[i])
    ends = [0.0, *(x for mark in marks if isinstance(mark, Whiskers) for x in (*mark.low, *mark.high))]
    name = fmt.readable_name(metric.name)
    unit = f"points of {name}" if metric.is_rate else name
    chart = Chart(
        x=linear_axis(f"← worse · {unit} · better →", min(ends), max(ends) + 0.14 * (max(ends) - min(ends)), n_ticks=8),
        y=Rows(tuple(labels)),
        marks=marks,
        legend=(
            LegendEntry("clear after Holm's correction", "ink", "square"),
            LegendEntry("no clear difference", "ink", "ring"),
        ),
    )
    turned = "" if metric.is_higher_better else f" A lower {name} is better, so the sign is reversed."
    return Figure(
        name="forest",
        title=f"Difference from {baseline}",
        caption=f"Each line is the 95{fmt.PERCENT} interval of a difference; right of zero is better.{turned}",
        alt="Forest plot. " + " ".join(f"{label}: {v['sentence']}." for label, v in zip(labels, verdicts, strict=True)),
        charts=(chart,),
        table=_build_verdict_table(metric, verdicts),
    )


def _build_interval(experiment: Experiment, verdict: Verdict, row: int, label: str) -> list[Mark]:
    """Return one line of the forest plot; nothing where the difference is unknown."""
    gap, metric = verdict["difference"], experiment.metric
    if not fmt.is_number(gap["value"]):
        return []
    value = metric.scaled(gap["value"])
    low, high = sorted(
        metric.scaled(gap[name] if fmt.is_number(gap[name]) else gap["value"]) for name in ("low", "high")
    )
    tone, clear = experiment.tones.get(str(verdict["method"]), "ink"), is_clear(verdict)
    shape, size, tip = "square" if clear else "ring", 6.0 if clear else 5.0, f"{label}: {verdict['sentence']}"
    return [
        Whiskers(tone=tone, at=[row], low=[low], high=[high], is_lying=True, width=2.6 if clear else 1.6),
        Dots(tone=tone, x=[value], y=[row], shape=shape, size=size, tips=(tip,)),
        Note(tone=tone, x=high, y=row, text=fmt.signed(value, 1 if metric.is_rate else 3)),
    ]


def _build_verdict_table(metric: fmt.MetricDisplay, verdicts: list[Verdict]) -> Table:
    cells = [
        (
            str(verdict["method"]),
            fmt.count(verdict["n_rows"]),
            metric.difference(verdict["difference"]["value"]),
            metric.difference_range(verdict["difference"]["low"], verdict["difference"]["high"]),
            _format_p(verdict["difference"].get("p")),
            _format_p(verdict.get("p_holm")),
            _format_detectable(metric, verdict["difference"].get("detectable")),
        )
        for verdict in verdicts
    ]
    return Table(
        caption="The numbers behind the verdicts",
        columns=("method", "rows", "difference", f"95{fmt.PERCENT} interval", "p", "p after Holm", "detectable"),
        rows=cells,
        numeric=range(1, 7),
    )


def _format_detectable(metric: fmt.MetricDisplay, value: Any) -> str:
    """Return the smallest detectable difference, or "none" where no two rates differ by so much."""
    return "none" if metric.is_rate and fmt.is_number(value) and value >= 1 else metric.amount(value)


def _build_seeds_needed(experiment: Experiment, verdicts: list[Verdict]) -> list[Block]:
    """Return how many seeds it would take to detect the difference that the user asked about."""
    difference = experiment.content.get("asked", {}).get("detect")
    if not fmt.is_number(difference):
        return []
    cells = [
        (verdict["method"], fmt.count(verdict["n_rows"]), _format_seeds(verdict["seeds_needed"]))
        for verdict in verdicts
        if "seeds_needed" in verdict
    ]
    caption = f"Seeds needed to detect a true difference of {experiment.metric.amount(difference)}"
    columns = ("method", "rows", "seeds")
    return [Table(caption=caption, columns=columns, rows=cells, numeric=(1, 2), is_folded=True)]


def _format_seeds(n: int | None) -> str:
    return "no number is enough: use more test rows" if n is None else fmt.count(n)


def _format_p(value: Any) -> str:
    return fmt.NOTHING if not fmt.is_number(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _build_scores(experiment: Experiment) -> Table:
    metric, cells = experiment.metric, []
    for method in experiment.methods:
        for size, values in experiment.values(method).items():
            n, mean = len(values), sum(values) / len(values)
            spread = (sum((v - mean) ** 2 for v in values) / (n - 1)) ** 0.5 if n > 1 else None
            cells.append((method, fmt.count(size), metric.text(mean), metric.amount(spread), fmt.count(n)))
    return Table(
        caption="Mean over seeds, and their standard deviation",
        columns=("method", "rows", metric.label, "spread", "runs"),
        rows=cells,
        numeric=range(1, 5),
    )


def _build_net(experiment: Experiment, verdicts: list[Verdict]) -> list[Block]:
    """Return the effect next to the time that selection and training took."""
    if not verdicts:
        return []
    metric = experiment.metric
    has_net = any(verdict.get("net") is not None for verdict in verdicts)
    cells = [
        (
            verdict["method"],
            fmt.count(verdict["n_rows"]),
            metric.difference(verdict["difference"]["value"]),
            fmt.seconds(verdict.get("select_seconds")),
            fmt.seconds(verdict.get("train_seconds")),
            _format_relative_cost(verdict),
            *([_format_net(metric, verdict.get("net"))] if has_net else []),
        )
        for verdict in verdicts
    ]
    net = ["net of selection time"] if has_net else []
    table = Table(
        caption="Effect, and the time of one run",
        columns=("method", "rows", "effect", "selection", "training", "selection to training", *net),
        rows=cells,
        numeric=range(1, 6),
    )
    remark = Paragraph(
        "Net: the remaining effect if random rows get the time that selection took. Cached features took no time."
    )
    return [table, remark] if has_net else [table]


def _format_relative_cost(verdict: Verdict) -> str:
    select, train = verdict.get("select_seconds"), verdict.get("train_seconds")
    return fmt.share(select, train) if fmt.is_number(select) and fmt.is_number(train) else fmt.NOTHING


def _format_net(metric: fmt.MetricDisplay, net: Mapping[str, Any] | None) -> str:
    if net is None:
        return fmt.NOTHING
    return f"{metric.difference(net['value'])} ({metric.difference_range(net['low'], net['high'])})"
