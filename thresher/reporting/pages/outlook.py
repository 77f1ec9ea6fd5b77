"""What the fitted laws predict: gains, rows for a score, the worth of selection; their weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from thresher.numeric.units import format_amount
from thresher.reporting import formatting as fmt
from thresher.reporting.page import Block, Notice, Paragraph, Table
from thresher.reporting.pages.experiment_tables import Experiment

INTERVAL = f"80{fmt.PERCENT} interval"
LAWS = {
    "power": "power: c + a · n^(−b)",
    "rectified": "rectified: c + a / (d^b + n^b)",
    "exponential": "exponential: c + a · exp(−k n)",
    "logarithmic": "logarithmic: c + a · ln(m / n), up to m rows",
    "broken": "broken: c + a · (ln(m / n) + s · ln(k / n)), up to m and k rows",
    "constant": "constant: c",
}
OUT_OF_REACH = "out of reach"


def build_outlook(experiment: Experiment, fitted: Mapping[str, Any]) -> list[Block]:
    """Return gains of doubling and of more rows, rows for targets, and selection or more labels."""
    metric, unit = experiment.metric, experiment.unit

    def gain(place: Mapping[str, Any]) -> str:
        return f"{metric.difference(place['median'])} ({metric.difference_range(place['low'], place['high'])})"

    def doubled(place: Mapping[str, Any]) -> str:
        return f"{fmt.count(place['n_rows'])} → {fmt.count(2 * place['n_rows'])}"

    def added(place: Mapping[str, Any]) -> str:
        return f"{fmt.count(place['more'])} on top of {fmt.count(place['from'])}"

    tables = (
        _by_method(experiment, fitted, "gain_of_doubling", (f"Gain from twice the {unit}", unit), doubled, gain),
        _by_method(experiment, fitted, "gains", ("Gain from more rows", "more rows"), added, gain),
        _by_method(
            experiment,
            fitted,
            "targets",
            ("Rows needed for a score", fmt.readable_name(metric.name)),
            lambda place: metric.text(place["target"]),
            _format_rows_needed,
        ),
        _build_trades(fitted),
        build_joint(metric, fitted.get("joint")),
    )
    return [table for table in tables if table.rows]


def build_joint(metric: fmt.MetricDisplay, joint: Mapping[str, Any] | None) -> Table:
    """Return what twice the rows and twice the second factor are expected to bring.

    There is no table where the measured points contradict the law that it would come from.
    """
    if joint is None or joint["is_misfit"] or joint["worse"] is not None:
        return Table(caption="", columns=(), rows=[])
    named = "twice the rank" if joint["factor"] == "rank" else "a model of twice the size"
    sides = (("twice the rows", "gain_of_rows", joint["p_rows"]), (named, "gain_of_factor", 1 - joint["p_rows"]))
    at = joint["at"]
    return Table(
        caption=f"More rows or {'a larger rank' if joint['factor'] == 'rank' else 'a larger model'}, from "
        f"{fmt.count(at['rows'])} rows and {joint['factor']} {at['value']}",
        columns=("what", "expected gain", INTERVAL, "probability that it brings more"),
        rows=[
            (
                what,
                metric.difference(joint[key]["median"]),
                metric.difference_range(joint[key]["low"], joint[key]["high"]),
                fmt.share(p, 1)
                if 0.01 <= p <= 0.99
                else f"{'more than 99' if p > 0.5 else 'less than 1'}{fmt.PERCENT}",
            )
            for what, key, p in sides
        ],
        numeric=(1, 2, 3),
    )


def _by_method(
    experiment: Experiment,
    fitted: Mapping[str, Any],
    key: str,
    titles: tuple[str, str],
    name: Callable[[Mapping[str, Any]], str],
    text: Callable[[Mapping[str, Any]], str],
) -> Table:
    """Return a table with one line per place and one column per method.

    Args:
        experiment: whose methods.
        fitted: content of `saturation.json`.
        key: of the list in each method's entry.
        titles: caption, and heading of the first column.
        name: first cell of an entry of the list.
        text: the cell of an entry.
    """
    cells: dict[str, dict[str, str]] = {}
    for method in experiment.methods:
        for place in (fitted["methods"].get(method) or {}).get(key) or []:
            cells.setdefault(name(place), {})[method] = text(place)
    methods = [method for method in experiment.methods if any(method in line for line in cells.values())]
    return Table(
        caption=f"{titles[0]}, with {INTERVAL}",
        columns=(titles[1], *methods),
        rows=[(place, *(line.get(method, fmt.NOTHING) for method in methods)) for place, line in cells.items()],
        numeric=range(1, 1 + len(methods)),
    )


def _format_rows_needed(place: Mapping[str, Any]) -> str:
    """Return "1,113 (1,006 to 1,225)", or words where it is out of what was measured."""
    low, median, high = (place[name] for name in ("low", "median", "high"))
    if not fmt.is_number(low):
        return OUT_OF_REACH
    if high == 0:
        return f"fewer than {fmt.count(place['smallest'])}"
    if low == 0:
        below = f"fewer than {fmt.count(place['smallest'])}"
        most = f"to {fmt.count(high)}" if fmt.is_number(high) else "or any number"
        middle = OUT_OF_REACH if not fmt.is_number(median) else fmt.count(median) if median else below
        return f"{middle} ({below} {most})"
    ends = f"{fmt.count(low)} to {fmt.count(high)}" if fmt.is_number(high) else f"{fmt.count(low)} or more"
    return f"{fmt.count(median) if fmt.is_number(median) else OUT_OF_REACH} ({ends})"


def _build_trades(fitted: Mapping[str, Any]) -> Table:
    """Return how many random rows are as good as a number of selected ones."""
    cells = []
    for trade in fitted.get("trade") or []:
        rows = trade["baseline_rows"]
        factor = fmt.NOTHING
        if fmt.is_number(rows["median"]):
            least = "" if rows["median"] else "below "
            factor = f"{least}{(rows['median'] or rows['smallest']) / trade['n_rows']:.2g} ×"
        cells.append((trade["method"], fmt.count(trade["n_rows"]), _format_rows_needed(rows), factor))
    return Table(
        caption="Better selection or more labels",
        columns=("method", "selected rows", f"as good as this many random rows ({INTERVAL})", "factor"),
        rows=cells,
        numeric=(1, 2, 3),
    )


def build_laws(experiment: Experiment, fitted: Mapping[str, Any]) -> list[Block]:
    """Return the weights of the laws, a notice where none fits, and the spread between seeds."""
    entries = {m: entry for m in experiment.methods if (entry := fitted["methods"].get(m) or {}).get("laws")}
    if not entries:
        return []
    unit = experiment.unit
    names = list(dict.fromkeys([*LAWS, *(law for entry in entries.values() for law in entry["laws"])]))
    blocks: list[Block] = [
        Paragraph(
            f"Several laws describe how the error falls with the number n of {unit}; each is weighted by its "
            "likelihood, averaged over its parameters."
        ),
        Table(
            caption="Weights of the laws",
            columns=("law of the error", *entries),
            rows=[
                (LAWS.get(law, law), *(_format_weight(entry["laws"].get(law)) for entry in entries.values()))
                for law in names
            ],
            numeric=range(1, 1 + len(entries)),
        ),
    ]
    blocks += [
        Notice(
            f"{method}: no law fits the points within chance, so the intervals were widened "
            f"{entry['misfit']:.2g} times; trust the measured points more than the laws."
        )
        for method, entry in entries.items()
        if fmt.is_number(entry.get("misfit")) and entry["misfit"] > 1
    ]
    for method, entry in entries.items():
        if spread := entry.get("seed_sd"):
            (few, at_few), (many, at_many) = (
                (experiment.metric.amount(of["value"]), of["n_rows"]) for of in (spread[0], spread[-1])
            )
            blocks.append(
                Paragraph(
                    f"{method}: runs differ by {few} at {format_amount(at_few, unit)} and by {many} at {at_many:,} "
                    f"(standard deviation of seeds)."
                )
            )
    return blocks


def _format_weight(weight: Any) -> str:
    if not fmt.is_number(weight):
        return "not fitted"
    return fmt.share(weight, 1) if weight >= 0.001 else f"< 0.1{fmt.PERCENT}"
