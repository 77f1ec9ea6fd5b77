"""The page of a learning curve: how many rows are enough, and what better selection is worth."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.palette import RANDOM
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Items, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages import experiment_tables as tables
from thresher.reporting.pages.experiment_tables import Experiment
from thresher.reporting.pages.figures.curve_figure import build_curve_figure
from thresher.reporting.pages.outlook import INTERVAL, build_laws, build_outlook
from thresher.reporting.pages.reproduce import build_reproduction
from thresher.reporting.pages.row_zero import build_gains, build_losses, write_forgetting, write_row_zero
from thresher.reporting.pages.slices import build_slice_figures

KEYS = ("metric", "is_higher_better", "delta", "methods")
STATUS = {
    "reached": "reached: the interval ends within the measured sizes",
    "extrapolated": "extrapolated: the interval ends beyond the largest measured size",
    "not identifiable": "not identifiable: too little was measured to tell",
}
Fitted = Mapping[str, Any]  # content of saturation.json


def build_curve_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `curve` wrote."""
    fitted = read_json(folder / "saturation.json", KEYS)
    is_higher_better = bool(fitted["is_higher_better"])
    experiment = tables.read_experiment(folder, manifest, cells_file="curve.csv", is_higher_better=is_higher_better)
    curve: list[Block] = [build_curve_figure(experiment, fitted)] if len(experiment.done) else []
    curve += [_build_saturations(experiment, fitted), *_build_notes(fitted), *tables.build_failures(experiment)]
    best_method, runs = _find_best_method(experiment, fitted), tables.build_run_table(experiment)
    return Page(
        kind="learning curve",
        title=f"Learning curve of {fmt.join_words(experiment.methods)}",
        answer=_write_answer(experiment, fitted, best_method),
        more=[
            *tables.describe_incomplete(fitted),
            *write_row_zero(fitted.get("base")),
            *write_forgetting(fitted.get("general")),
            *_write_remarks(experiment, fitted, best_method),
        ],
        tiles=(
            _build_saturation_tile(fitted, best_method),
            Tile("Best mean", *_best_mean(experiment)),
            *tables.build_run_tiles(experiment),
        ),
        sections=[
            Section("How the score rises", curve),
            Section("Without training", build_gains(fitted.get("base"), experiment.metric)),
            Section("What is forgotten", build_losses(fitted.get("general"), experiment.tones)),
            Section("What more rows would bring", build_outlook(experiment, fitted)),
            Section("The laws behind the curve", build_laws(experiment, fitted)),
            Section("Parts of the test set", build_slice_figures(experiment)),
            Section("What was chosen", tables.build_maps(experiment)),
            Section("Cost", [*_build_savings(fitted), *tables.build_costs(experiment), runs]),
            build_reproduction(manifest, folder),
        ],
        footer=tables.build_footer(manifest.content),
    )


def _find_saturation(fitted: Fitted, method: str) -> Mapping[str, Any] | None:
    saturation: Mapping[str, Any] | None = (fitted["methods"].get(method) or {}).get("saturation")
    return saturation


def _find_best_method(experiment: Experiment, fitted: Fitted) -> str | None:
    """Return the method that the answer is about: the best score among those with an answer.

    The number of rows does not decide: saturating early at a low score is no better answer.
    """
    sign = 1 if experiment.metric.is_higher_better else -1
    last_means = {}
    for method in experiment.methods:
        values = experiment.values(method)
        if values and (_find_saturation(fitted, method) or {}).get("rows") is not None:
            largest = max(values)
            last_means[method] = sign * sum(values[largest]) / len(values[largest])
    return max(last_means, key=lambda method: last_means[method]) if last_means else None


def _write_answer(experiment: Experiment, fitted: Fitted, best_method: str | None) -> str:
    gain = f"doubling the data gains less than {experiment.metric.amount(fitted['delta'])}"
    if best_method is None:
        return _write_no_answer(experiment, fitted, gain)
    saturation = _find_saturation(fitted, best_method) or {}
    whose = "random rows" if best_method == RANDOM else f"rows chosen by {best_method}"
    smallest = min(experiment.values(best_method), default=0)
    enough = f"About {fmt.rounded(saturation['rows'])} {whose}"
    if saturation["high"] <= smallest:
        enough = f"{fmt.count(smallest)} {whose} or fewer"
    text = f"{enough} are enough: from there, {gain} (80{fmt.PERCENT} interval {_format_interval(saturation)})"
    misfit = fitted["methods"][best_method].get("misfit")
    if fmt.is_number(misfit) and misfit > 1:
        return f"{text}; but no law fits the points well, so look at the curve itself."
    return f"{text}."


def _format_range(saturation: Mapping[str, Any]) -> str:
    return f"{fmt.rounded(saturation['low'])} to {fmt.rounded(saturation['high'])}"


def _format_interval(saturation: Mapping[str, Any]) -> str:
    return _format_range(saturation) + (", extrapolated" if saturation["status"] == "extrapolated" else "")


def _write_no_answer(experiment: Experiment, fitted: Fitted, gain: str) -> str:
    fits = {method: fit for method in experiment.methods if (fit := _find_saturation(fitted, method)) is not None}
    if not fits:
        return "Too few runs to tell how many rows are enough: a law needs three sizes, and two runs at one of them."
    sizes = fits[RANDOM if RANDOM in fits else next(iter(fits))].get("next_sizes") or []
    advice = f"; measure {fmt.join_words(fmt.count(size) for size in sizes)} rows next" if sizes else ""
    return f"It is too early to tell how many rows are enough, meaning that {gain}{advice}."


def _write_remarks(experiment: Experiment, fitted: Fitted, best_method: str | None) -> list[str]:
    sentences = []
    for method in experiment.methods:
        saturation = _find_saturation(fitted, method)
        if method == best_method or saturation is None:
            continue
        if saturation["rows"] is None:
            sentences.append(f"{method}: not identifiable, {fmt.count(saturation['low'])} rows or more.")
        else:
            rows = fmt.rounded(saturation["rows"])
            sentences.append(f"{method}: about {rows} rows ({_format_interval(saturation)}).")
    if fitted.get("stopped"):
        sentences.append(f"Measuring ended because {fitted['stopped']}.")
    return sentences


def _build_saturation_tile(fitted: Fitted, best_method: str | None) -> Tile:
    if best_method is None:
        return Tile("Enough rows", "not known", "see the sizes to measure next")
    saturation = _find_saturation(fitted, best_method) or {}
    return Tile("Enough rows", fmt.rounded(saturation["rows"]), f"{_format_range(saturation)}, {best_method}")


def _best_mean(experiment: Experiment) -> tuple[str, str]:
    sign = 1 if experiment.metric.is_higher_better else -1
    means = [
        (sign * sum(values) / len(values), method, size)
        for method in experiment.methods
        for size, values in experiment.values(method).items()
    ]
    if not means:
        return ("none", "every run failed")
    value, method, size = max(means)
    return (experiment.metric.text(sign * value), f"{method}, {fmt.rows(size)}")


def _build_saturations(experiment: Experiment, fitted: Fitted) -> Table:
    metric, cells = experiment.metric, []
    for method in experiment.methods:
        entry = fitted["methods"].get(method) or {}
        saturation, top = entry.get("saturation"), entry.get("asymptote")
        if saturation is None:
            cells.append((method, fmt.NOTHING, fmt.NOTHING, "not fitted: too few runs", fmt.NOTHING, fmt.NOTHING))
            continue
        high = fmt.count(saturation["high"]) if fmt.is_number(saturation["high"]) else "open"
        cells.append(
            (
                method,
                fmt.count(saturation["rows"]),
                f"{fmt.count(saturation['low'])} to {high}",
                STATUS.get(saturation["status"], str(saturation["status"])),
                f"{metric.text(top['median'])} ({metric.text_range(top['low'], top['high'])})" if top else fmt.NOTHING,
                ", ".join(map(fmt.count, saturation.get("next_sizes") or ())) or fmt.NOTHING,
            )
        )
    endless = f"{fmt.readable_name(metric.name)} with endless rows"
    return Table(
        caption=f"Number of rows from which doubling gains less than {metric.amount(fitted['delta'])}",
        columns=("method", "rows", INTERVAL, "status", endless, "measure next"),
        rows=cells,
        numeric=(1, 2),
    )


def _build_notes(fitted: Fitted) -> list[Block]:
    entries = fitted["methods"].items()
    notes = [f"{method}: {note}" for method, entry in entries for note in (entry or {}).get("notes") or []]
    return [Items(notes)] if notes else []


def _build_savings(fitted: Fitted) -> list[Block]:
    part = fitted.get("cost_share")
    if not fmt.is_number(part) or part >= 1:
        return []
    return [Paragraph(f"The runs cost {fmt.share(part, 1)} of what the full grid of sizes and seeds would cost.")]
