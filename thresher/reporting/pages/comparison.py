"""The page of a comparison: does a method beat random rows, by how much, and at what cost."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.evaluation.effect import ENOUGH_SEEDS
from thresher.reporting.charts.chart import Chart, Dots, LegendEntry, Mark, Note, Rows, Rule, Whiskers, linear_axis
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Figure, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.experiment_tables import (
    Experiment,
    costs,
    failures,
    footer,
    maps,
    read_experiment,
    runs,
    total_seconds,
)
from thresher.reporting.pages.reproduce import flat, reproduce
from thresher.reporting.wording import (
    PERCENT,
    MetricDisplay,
    count,
    cut,
    is_number,
    listed,
    plain_name,
    rows,
    seconds,
    share,
    signed,
)

ALPHA = 0.05
KEYS = ("metric", "is_higher_better", "budgets", "baseline", "verdicts")


def comparison_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `compare` wrote."""
    found = read_json(folder / "comparison.json", KEYS)
    experiment = read_experiment(
        folder, manifest, cells_file="cells.csv", is_higher_better=bool(found["is_higher_better"])
    )
    verdicts = sorted(map(_told, found["verdicts"]), key=lambda v: (v["n_rows"], -_improvement(v), v["method"]))
    others = [method for method in experiment.methods if method != found["baseline"]]
    n_clear = sum(is_clear(verdict) for verdict in verdicts)
    effect: list[Block] = [*failures(experiment)]
    if verdicts:
        effect += [_forest(experiment, verdicts, str(found["baseline"])), _in_words(verdicts)]
        effect += _seeds_needed(experiment, verdicts)
    sections = [
        Section(f"Effect against {found['baseline']}", tuple(effect)),
        Section("Scores", (_scores(experiment), runs(experiment))),
        Section("Cost beside effect", (*_net(experiment, verdicts), *costs(experiment))),
        Section("What was chosen", tuple(maps(experiment))),
        reproduce(manifest, folder),
    ]
    return Page(
        kind="comparison",
        title=f"{listed(others) or 'nothing'} against {found['baseline']}",
        answer=_answer(experiment, verdicts, str(found["baseline"])),
        more=(
            "Differences are paired over test rows and seeds; p-values are corrected after Holm, so that among all of "
            f"these comparisons a false alarm is seen in at most {100 * ALPHA:.0f} of 100 cases.",
            *_few_seeds(verdicts),
        ),
        tiles=(
            Tile("Comparisons", count(len(verdicts)), f"{n_clear} with a clear difference"),
            Tile("Budgets", " / ".join(count(size) for size in sorted({v["n_rows"] for v in verdicts})) or "–", "rows"),
            Tile("Runs", count(len(experiment.done)), ""),
            Tile("Time", seconds(total_seconds(experiment)), ""),
        ),
        sections=tuple(section for section in sections if section.blocks),
        footer=footer(manifest.content),
    )


def is_clear(verdict: Mapping[str, Any]) -> bool:
    """Tell whether a difference stands: after Holm's correction, and with an interval that leaves out zero."""
    p, gap = verdict.get("p_holm"), verdict["difference"]
    if not is_number(p) or p >= ALPHA:
        return False
    return not (is_number(gap["low"]) and is_number(gap["high"]) and gap["low"] <= 0 <= gap["high"])


def _few_seeds(verdicts: list[dict[str, Any]]) -> list[str]:
    """Say that two seeds are too few to trust that rate."""
    if not any(verdict["difference"].get("n_seeds", ENOUGH_SEEDS) < ENOUGH_SEEDS for verdict in verdicts):
        return []
    return [f"Some rest on fewer than {ENOUGH_SEEDS} seeds, with which false alarms are more frequent than that."]


def _told(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return a verdict with what may stand in it or in its difference at one place."""
    gap = entry["difference"]
    return {
        **entry,
        "p": entry.get("p", gap.get("p")),
        "detectable": entry.get("detectable", gap.get("detectable")),
        "verdict": str(entry.get("verdict", entry.get("sentence", ""))),
    }


def _improvement(verdict: Mapping[str, Any]) -> float:
    """Return the effect; it is positive where the method is better, whatever the direction of the metric."""
    value = verdict["difference"]["value"]
    return float(value) if is_number(value) else 0.0


def _answer(experiment: Experiment, verdicts: list[dict[str, Any]], baseline: str) -> str:
    if not verdicts:
        return "Nothing was compared: there are no finished runs of two methods at one budget."
    better = [v for v in verdicts if is_clear(v) and _improvement(v) > 0]
    worse = [v for v in verdicts if is_clear(v) and _improvement(v) < 0]
    if better:
        best = max(better, key=lambda v: _improvement(v))
        text = f"{best['method']} beats {baseline} at {rows(best['n_rows'])}: {best['verdict']}"
        others = sorted({v["method"] for v in better} - {best["method"]})
        return f"{text}{f'; so does {listed(others)}' if others else ''}."
    if worse and len(worse) == len(verdicts):
        return f"Every method is worse than {baseline} here."
    told = [v["detectable"] for v in verdicts if is_number(v.get("detectable"))]
    size = f"; differences from {experiment.metric.amount(max(told))} on would have been seen" if told else ""
    if told and experiment.metric.is_rate and max(told) >= 1:  # beyond any difference that two rates can have
        size = "; with so few runs and test rows, no difference could have been seen"
    but = f", and {listed(sorted({v['method'] for v in worse}))} is worse" if worse else ""
    return f"No method beats {baseline} here{but}{size}."


def _forest(experiment: Experiment, verdicts: list[dict[str, Any]], baseline: str) -> Figure:
    """Return the forest plot: right is better, whatever the direction of the metric."""
    metric = experiment.metric
    scale = 100.0 if metric.is_rate else 1.0
    marks: list[Mark] = [Rule(at=0.0)]
    has_budgets = len({verdict["n_rows"] for verdict in verdicts}) > 1
    labels, ends = [], [0.0]
    for i, verdict in enumerate(verdicts):
        method, gap = str(verdict["method"]), verdict["difference"]
        labels.append(f"{method}, {count(verdict['n_rows'])} rows" if has_budgets else method)
        if not is_number(gap["value"]):
            continue
        low, high = sorted(scale * (gap[n] if is_number(gap[n]) else gap["value"]) for n in ("low", "high"))
        ends += [low, high]
        tone = experiment.tones.get(method, "ink")
        tip = f"{labels[-1]}: {verdict['verdict']}"
        clear = is_clear(verdict)
        marks += [
            Whiskers(tone=tone, at=[i], low=[low], high=[high], is_lying=True, width=2.6 if clear else 1.6),
            Dots(
                tone=tone,
                x=[scale * gap["value"]],
                y=[i],
                shape="square" if clear else "ring",
                size=6.0 if clear else 5.0,
                tips=(tip,),
            ),
            Note(tone=tone, x=high, y=i, text=signed(scale * gap["value"], 1 if metric.is_rate else 3)),
        ]
    unit = f"points of {plain_name(metric.name)}" if metric.is_rate else plain_name(metric.name)
    chart = Chart(
        x=linear_axis(f"← worse · {unit} · better →", min(ends), max(ends) + 0.14 * (max(ends) - min(ends)), n_ticks=8),
        y=Rows(tuple(labels)),
        marks=tuple(marks),
        legend=(
            LegendEntry("clear after Holm's correction", "ink", "square"),
            LegendEntry("no clear difference", "ink", "ring"),
        ),
    )
    return Figure(
        name="forest",
        title=f"Difference to {baseline}",
        caption="Each line is the 95\u00a0% interval of a difference; right of zero is better."
        + ("" if metric.is_higher_better else f" A lower {plain_name(metric.name)} is better, so the sign is turned."),
        alt="Forest plot. " + " ".join(f"{label}: {v['verdict']}." for label, v in zip(labels, verdicts, strict=True)),
        charts=(chart,),
        table=_verdicts(metric, verdicts),
    )


def _verdicts(metric: MetricDisplay, verdicts: list[dict[str, Any]]) -> Table:
    cells = []
    for verdict in verdicts:
        gap = verdict["difference"]
        cells.append(
            (
                str(verdict["method"]),
                count(verdict["n_rows"]),
                metric.difference(gap["value"]),
                metric.difference_range(gap["low"], gap["high"]),
                _p(verdict.get("p")),
                _p(verdict.get("p_holm")),
                _detectable(metric, verdict.get("detectable")),
            )
        )
    return Table(
        caption="The numbers behind the verdicts",
        columns=("method", "rows", "difference", f"95{PERCENT} interval", "p", "p after Holm", "detectable"),
        rows=tuple(cells),
        numeric=frozenset({1, 2, 3, 4, 5, 6}),
    )


def _in_words(verdicts: list[dict[str, Any]]) -> Table:
    return Table(
        caption="In words",
        columns=("method", "rows", "verdict"),
        rows=tuple((verdict["method"], count(verdict["n_rows"]), verdict["verdict"]) for verdict in verdicts),
        numeric=frozenset({1}),
    )


def _detectable(metric: MetricDisplay, value: Any) -> str:
    """Return the difference that would have been seen; rates cannot differ by 1 or more."""
    return "none" if metric.is_rate and is_number(value) and value >= 1 else metric.amount(value)


def _seeds_needed(experiment: Experiment, verdicts: list[dict[str, Any]]) -> list[Block]:
    """Return how many seeds it would take to see the difference that was asked for."""
    wanted = experiment.content.get("asked", {}).get("detect")
    if not is_number(wanted):
        return []
    told = [verdict for verdict in verdicts if "seeds_needed" in verdict]
    table = Table(
        caption=f"Seeds that it takes to see a true difference of {experiment.metric.amount(wanted)}",
        columns=("method", "rows", "seeds"),
        rows=tuple(
            (
                verdict["method"],
                count(verdict["n_rows"]),
                "none would do: more test rows" if verdict["seeds_needed"] is None else count(verdict["seeds_needed"]),
            )
            for verdict in told
        ),
        numeric=frozenset({1, 2}),
        is_folded=True,
    )
    return [table]


def _p(value: Any) -> str:
    return "–" if not is_number(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _scores(experiment: Experiment) -> Table:
    metric, cells = experiment.metric, []
    for method in experiment.methods:
        for size, values in experiment.values(method).items():
            mean = sum(values) / len(values)
            spread = (sum((v - mean) ** 2 for v in values) / (len(values) - 1)) ** 0.5 if len(values) > 1 else None
            cells.append((method, count(size), metric.text(mean), metric.amount(spread), count(len(values))))
    return Table(
        caption="Mean over seeds, and the spread between them (standard deviation)",
        columns=("method", "rows", metric.label, "spread", "runs"),
        rows=tuple(cells),
        numeric=frozenset({1, 2, 3, 4}),
    )


def _net(experiment: Experiment, verdicts: list[dict[str, Any]]) -> list[Block]:
    """Return the effect beside what choosing and training took."""
    if not verdicts:
        return []
    metric = experiment.metric
    has_net = any(verdict.get("net") is not None for verdict in verdicts)
    cells = [
        (
            verdict["method"],
            count(verdict["n_rows"]),
            metric.difference(verdict["difference"]["value"]),
            seconds(verdict.get("select_seconds")),
            seconds(verdict.get("train_seconds")),
            _per_training(verdict),
            *([_net_words(metric, verdict.get("net"))] if has_net else []),
        )
        for verdict in verdicts
    ]
    table = Table(
        caption="Effect, and what one run takes",
        columns=(
            "method",
            "rows",
            "effect",
            "choosing",
            "training",
            "choosing, as part of training",
            *(["net of selection time"] if has_net else []),
        ),
        rows=tuple(cells),
        numeric=frozenset({1, 2, 3, 4, 5}),
    )
    if not has_net:
        return [table]
    return [
        table,
        Paragraph(
            "Net: what is left of the effect when random gets the time that choosing took. Features that were in the "
            "cache already took none."
        ),
    ]


def _per_training(verdict: Mapping[str, Any]) -> str:
    select, train = verdict.get("select_seconds"), verdict.get("train_seconds")
    return share(select, train) if is_number(select) and is_number(train) else "–"


def _net_words(metric: MetricDisplay, net: Any) -> str:
    if not isinstance(net, Mapping):
        return str(net) if net is not None else "–"
    if isinstance(net.get("sentence"), str):
        return str(net["sentence"])
    if is_number(net.get("value")):
        has_ends = is_number(net.get("low")) and is_number(net.get("high"))
        ends = f" ({metric.difference_range(net['low'], net['high'])})" if has_ends else ""
        return f"{metric.difference(net['value'])}{ends}"
    return cut(", ".join(f"{plain_name(name)} {value}" for name, value in flat(net)), 200) or "–"
