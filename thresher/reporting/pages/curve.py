"""The page of a learning curve: how many rows are enough, and what better selection is worth."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.evaluation.curves.enough import Enough
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Items, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages import experiment_tables as tables
from thresher.reporting.pages.experiment_tables import Experiment
from thresher.reporting.pages.figures.curve_figure import build_curve_figure
from thresher.reporting.pages.outlook import INTERVAL, build_laws, build_outlook
from thresher.reporting.pages.reproduce import build_reproduction
from thresher.reporting.pages.row_zero import build_gains, build_losses, write_forgetting, write_row_zero
from thresher.reporting.pages.slices import build_slice_figures

KEYS = ("answer", "metric", "is_higher_better", "of", "methods")
VERDICTS = {"enough": "enough", "all": "half is not enough", "cannot tell": "cannot tell"}
Fitted = Mapping[str, Any]  # content of saturation.json


def build_curve_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `curve` wrote."""
    fitted = read_json(folder / "saturation.json", KEYS)
    is_higher_better = bool(fitted["is_higher_better"])
    experiment = tables.read_experiment(folder, manifest, cells_file="curve.csv", is_higher_better=is_higher_better)
    experiment = replace(experiment, unit=fitted.get("unit", "rows"))
    curve: list[Block] = [build_curve_figure(experiment, fitted)] if len(experiment.done) else []
    curve += [_build_answers(experiment, fitted), *_build_notes(fitted), *tables.build_failures(experiment)]
    runs = tables.build_run_table(experiment)
    unit = experiment.unit
    rises = "rises" if is_higher_better else "falls"
    return Page(
        kind="learning curve",
        title=f"Learning curve of {fmt.join_words([_name(method) for method in experiment.methods])}",
        answer=_write_answer(fitted),
        more=[
            *fitted.get("outlook", []),
            *tables.describe_incomplete(fitted),
            *write_row_zero(fitted.get("base")),
            *write_forgetting(fitted.get("general")),
            *_write_remarks(fitted),
        ],
        tiles=(
            _build_tile(fitted),
            Tile("Best mean", *_best_mean(experiment)),
            *tables.build_run_tiles(experiment),
        ),
        sections=[
            Section(f"How the {fmt.readable_name(experiment.metric.name)} {rises} with the {unit}", curve),
            Section("Without training", build_gains(fitted.get("base"), experiment.metric, unit)),
            Section("What is forgotten", build_losses(fitted.get("general"), experiment.tones, unit)),
            Section(f"What more {unit} would add", build_outlook(experiment, fitted)),
            Section("The laws behind the curve", build_laws(experiment, fitted)),
            Section("Groups of test rows", build_slice_figures(experiment)),
            Section("What was chosen", tables.build_maps(experiment)),
            Section("Cost", [*_build_savings(fitted), *tables.build_costs(experiment), runs]),
            build_reproduction(manifest, folder),
        ],
        footer=tables.build_footer(manifest.content),
    )


def _name(method: str) -> str:
    """Return "random (rank 16)" for "random, rank 16"."""
    name, _, variant = method.partition(", ")
    return f"{name} ({variant})" if variant else name


def _list_answers(fitted: Fitted) -> dict[str, Mapping[str, Any]]:
    """Return the answers of the methods that have one."""
    entries = {method: (entry or {}).get("enough") for method, entry in fitted["methods"].items()}
    return {method: answer for method, answer in entries.items() if answer}


def _write_answer(fitted: Fitted) -> str:
    misfits = [(fitted["methods"][method] or {}).get("misfit") for method in _list_answers(fitted)]
    if any(fmt.is_number(misfit) and misfit > 1 for misfit in misfits):
        return f"{fitted['answer']} No law fits the points well, so look at the curve itself."
    return str(fitted["answer"])


def _write_remarks(fitted: Fitted) -> list[str]:
    answers = _list_answers(fitted)
    sentences = []
    if len(answers) > 1:
        sentences = [f"{method[0].upper()}{method[1:]}: {_describe(answer)}." for method, answer in answers.items()]
    if fitted.get("stopped"):
        sentences.append(f"Measuring ended because {fitted['stopped']}.")
    return sentences


def _describe(answer: Mapping[str, Any]) -> str:
    unit = answer.get("unit", "rows")
    if answer["verdict"] == "enough":
        return f"about {fmt.count(answer['rows'])} {unit} are enough ({_format_range(answer)})"
    if answer["verdict"] == "all":
        return f"half of {fmt.count(answer['of'])} {unit} is not enough"
    return f"anywhere from {_format_range(answer)} {unit} may be enough"


def _format_range(answer: Mapping[str, Any]) -> str:
    return f"{fmt.count(answer['low'])} to {fmt.count(answer['high'])}"


def _build_tile(fitted: Fitted) -> Tile:
    answers, unit = _list_answers(fitted), fitted.get("unit", "rows")
    firm = {method: answer for method, answer in answers.items() if answer["verdict"] == "enough"}
    if firm:
        method = min(firm, key=lambda name: firm[name]["high"])
        return Tile(f"Enough {unit}", fmt.count(firm[method]["rows"]), f"{_format_range(firm[method])}, {method}")
    if any(answer["verdict"] == "all" for answer in answers.values()):
        return Tile(
            f"Enough {unit}", f"more than {fmt.count(fitted['of'] // 2)}", f"of {fmt.count(fitted['of'])} measured"
        )
    return Tile(f"Enough {unit}", "not known", "the first sentence says what would help")


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
    return (experiment.metric.text(sign * value), f"{method}, {experiment.amount(size)}")


def _build_answers(experiment: Experiment, fitted: Fitted) -> Table:
    metric, cells, unit = experiment.metric, [], experiment.unit
    answers = _list_answers(fitted)
    for method in experiment.methods:
        top, answer = (fitted["methods"].get(method) or {}).get("asymptote"), answers.get(method)
        if answer is None:
            cells.append((method, fmt.NOTHING, fmt.NOTHING, "too few runs", fmt.NOTHING, fmt.NOTHING))
            continue
        cells.append(
            (
                method,
                fmt.count(answer["rows"]),
                _format_range(answer),
                VERDICTS.get(answer["verdict"], str(answer["verdict"])),
                _format_outlook(experiment, answer),
                f"{metric.text(top['median'])} ({metric.text_range(top['low'], top['high'])})" if top else fmt.NOTHING,
            )
        )
    tolerances = [Enough.from_json(dict(answer)).tolerance for answer in answers.values()]
    tolerances = tolerances or [str(fitted.get("within"))]
    return Table(
        caption=f"Number of {unit} that come within {tolerances[0]} of all {fmt.count(fitted['of'])}",
        columns=(
            "method",
            unit,
            INTERVAL,
            "verdict",
            f"expected gain with {fmt.count(2 * fitted['of'])} {unit}",
            f"{fmt.readable_name(metric.name)} with unlimited {unit}",
        ),
        rows=cells,
        numeric=(1, 2),
    )


def _format_outlook(experiment: Experiment, answer: Fitted) -> str:
    if answer.get("unlike_laws") or answer.get("worse"):
        return "not known"
    following, metric = answer["next_doubling"], experiment.metric
    return f"{metric.difference(following['median'])} ({metric.difference_range(following['low'], following['high'])})"


def _build_notes(fitted: Fitted) -> list[Block]:
    entries = fitted["methods"].items()
    notes = [f"{method}: {note}" for method, entry in entries for note in (entry or {}).get("notes") or []]
    return [Items(notes)] if notes else []


def _build_savings(fitted: Fitted) -> list[Block]:
    part = fitted.get("cost_share")
    if not fmt.is_number(part) or part >= 1:
        return []
    return [Paragraph(f"The runs cost {fmt.share(part, 1)} of the full grid of sizes and seeds.")]
