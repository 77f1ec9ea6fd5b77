"""The page of a learning curve: how many rows are enough, how sure that is, and what choosing better is worth."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.reporting.charts.palette import RANDOM
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Items, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.curve_figure import curve_figure
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
from thresher.reporting.pages.outlook import INTERVAL, laws, outlook
from thresher.reporting.pages.reproduce import reproduce
from thresher.reporting.pages.slices import slice_figures
from thresher.reporting.wording import PERCENT, count, is_number, listed, plain_name, roughly, rows, seconds, share

STATUS = {
    "reached": "reached: the interval ends within the sizes that were measured",
    "extrapolated": "extrapolated: the interval ends beyond the largest size that was measured",
    "not identifiable": "not identifiable: too little was measured to say",
}


def curve_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `curve` wrote."""
    fitted = read_json(folder / "saturation.json", ("metric", "is_higher_better", "delta", "methods"))
    experiment = read_experiment(
        folder, manifest, cells_file="curve.csv", is_higher_better=bool(fitted["is_higher_better"])
    )
    n_done = len(experiment.done)
    curve: list[Block] = [curve_figure(experiment, fitted)] if n_done else []
    curve += [_saturations(experiment, fitted), *_notes(fitted), *failures(experiment)]
    sections = [
        Section("How the score rises", tuple(curve)),
        Section("What more rows would bring", tuple(outlook(experiment, fitted))),
        Section("The laws behind the curve", tuple(laws(experiment, fitted))),
        Section("Parts of the test set", tuple(slice_figures(experiment))),
        Section("What was chosen", tuple(maps(experiment))),
        Section("Cost", (*_spent(fitted), *costs(experiment), runs(experiment))),
        reproduce(manifest, folder),
    ]
    return Page(
        kind="learning curve",
        title=f"Learning curve of {listed(experiment.methods)}",
        answer=_answer(experiment, fitted),
        more=tuple(_more(experiment, fitted)),
        tiles=(
            *_enough(experiment, fitted),
            Tile("Best mean", *_best(experiment)),
            Tile("Runs", count(n_done), f"of {len(experiment.cells):,}" if n_done < len(experiment.cells) else ""),
            Tile("Time", seconds(total_seconds(experiment)), ""),
        ),
        sections=tuple(section for section in sections if section.blocks),
        footer=footer(manifest.content),
    )


def _found(fitted: Mapping[str, Any], method: str) -> Mapping[str, Any] | None:
    found: Mapping[str, Any] | None = (fitted["methods"].get(method) or {}).get("saturation")
    return found


def _lead(experiment: Experiment, fitted: Mapping[str, Any]) -> str | None:
    """Return the method that the answer is about: the one with the best score of those that have an answer.

    A method that saturates early at a low score has not the better answer, so the number of rows
    decides nothing.
    """
    means = {method: _last(experiment, method) for method in experiment.methods}
    sign = 1 if experiment.metric.is_higher_better else -1
    known = [
        m for m in experiment.methods if (_found(fitted, m) or {}).get("rows") is not None and means[m] is not None
    ]
    return max(known, key=lambda m: sign * (means[m] or 0.0)) if known else None


def _last(experiment: Experiment, method: str) -> float | None:
    values = experiment.values(method)
    largest = max(values, default=None)
    return None if largest is None else sum(values[largest]) / len(values[largest])


def _answer(experiment: Experiment, fitted: Mapping[str, Any]) -> str:
    gain = f"doubling the data gains less than {experiment.metric.amount(fitted['delta'])}"
    lead = _lead(experiment, fitted)
    if lead is None:
        return _no_answer(experiment, fitted, gain)
    found = _found(fitted, lead) or {}
    whose = "random rows" if lead == RANDOM else f"rows chosen by {lead}"
    smallest = min(experiment.values(lead), default=0)
    enough = f"About {roughly(found['rows'])} {whose}"
    if found["high"] <= smallest:
        enough = f"{count(smallest)} {whose} or fewer"
    text = f"{enough} are enough: from there, {gain}"
    text = f"{text} (80{PERCENT} interval {_between(found)}{_sure(found)})"
    misfit = fitted["methods"][lead].get("misfit")
    if is_number(misfit) and misfit > 1:
        return f"{text}; but no law meets the points well, so look at the curve itself."
    return f"{text}."


def _between(found: Mapping[str, Any]) -> str:
    return f"{roughly(found['low'])} to {roughly(found['high'])}"


def _sure(found: Mapping[str, Any]) -> str:
    return ", extrapolated" if found["status"] == "extrapolated" else ""


def _no_answer(experiment: Experiment, fitted: Mapping[str, Any], gain: str) -> str:
    entries = {method: found for method in experiment.methods if (found := _found(fitted, method)) is not None}
    if not entries:
        return "Too few runs to say how many rows are enough: a law needs three sizes, and two runs at one of them."
    method = RANDOM if RANDOM in entries else next(iter(entries))
    sizes = entries[method].get("next_sizes") or []
    advice = f"; measure {listed(count(size) for size in sizes)} rows next" if sizes else ""
    return f"It cannot be said yet how many rows are enough: that {gain} is not seen{advice}."


def _more(experiment: Experiment, fitted: Mapping[str, Any]) -> list[str]:
    lead = _lead(experiment, fitted)
    sentences = []
    for method in experiment.methods:
        found = _found(fitted, method)
        if method == lead or found is None:
            continue
        if found["rows"] is None:
            sentences.append(f"{method}: not identifiable, {count(found['low'])} rows or more.")
        else:
            sentences.append(f"{method}: about {roughly(found['rows'])} rows ({_between(found)}{_sure(found)}).")
    if fitted.get("stopped"):
        sentences.append(f"Measuring ended because {fitted['stopped']}.")
    return sentences


def _enough(experiment: Experiment, fitted: Mapping[str, Any]) -> list[Tile]:
    lead = _lead(experiment, fitted)
    if lead is None:
        return [Tile("Enough rows", "not known", "see the sizes to measure next")]
    found = _found(fitted, lead) or {}
    return [Tile("Enough rows", roughly(found["rows"]), f"{_between(found)}, {lead}")]


def _best(experiment: Experiment) -> tuple[str, str]:
    sign = 1 if experiment.metric.is_higher_better else -1
    means = [
        (sign * sum(values) / len(values), method, size)
        for method in experiment.methods
        for size, values in experiment.values(method).items()
    ]
    if not means:
        return ("none", "every run failed")
    value, method, size = max(means)
    return (experiment.metric.text(sign * value), f"{method}, {rows(size)}")


def _saturations(experiment: Experiment, fitted: Mapping[str, Any]) -> Table:
    metric, cells = experiment.metric, []
    for method in experiment.methods:
        entry = fitted["methods"].get(method) or {}
        found, top = entry.get("saturation"), entry.get("asymptote")
        if found is None:
            cells.append((method, "–", "–", "not fitted: too few runs", "–", "–"))
            continue
        high = count(found["high"]) if is_number(found["high"]) else "open"
        ahead = entry.get("next") or found.get("next_sizes") or []
        cells.append(
            (
                method,
                count(found["rows"]),
                f"{count(found['low'])} to {high}",
                STATUS.get(found["status"], str(found["status"])),
                "–" if not top else f"{metric.text(top['median'])} ({metric.text_range(top['low'], top['high'])})",
                ", ".join(_next_size(size) for size in ahead) or "–",
            )
        )
    return Table(
        caption=f"From how many rows on doubling gains less than {metric.amount(fitted['delta'])}",
        columns=(
            "method",
            "rows",
            INTERVAL,
            "status",
            f"{plain_name(metric.name)} with endless rows",
            "measure next",
        ),
        rows=tuple(cells),
        numeric=frozenset({1, 2}),
    )


def _next_size(size: Any) -> str:
    if isinstance(size, Mapping):
        size = size.get("n_rows")
    return count(size)


def _notes(fitted: Mapping[str, Any]) -> list[Block]:
    notes = [
        f"{method}: {note}" for method, entry in fitted["methods"].items() for note in (entry or {}).get("notes") or []
    ]
    return [Items(tuple(notes))] if notes else []


def _spent(fitted: Mapping[str, Any]) -> Sequence[Block]:
    part = fitted.get("cost_share")
    if not is_number(part) or part >= 1:
        return ()
    return (Paragraph(f"The runs cost {share(part, 1)} of what the full grid of sizes and seeds would have cost."),)
