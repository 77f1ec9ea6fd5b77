"""The page of advice: worth it, which rows, how many, what did it break, what next?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import MANIFEST
from thresher.artifacts.manifest import Manifest
from thresher.printable import split_sentence
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.curve import KEYS as CURVE_KEYS
from thresher.reporting.pages.experiment_tables import build_footer, read_experiment
from thresher.reporting.pages.figures.curve_figure import build_curve_figure
from thresher.reporting.pages.figures.pilot import build_trained_pilot
from thresher.reporting.pages.reproduce import build_reproduction
from thresher.reporting.pages.row_zero import build_forgetting, build_references

KEYS = ("pool", "dropped", "method", "rows", "left_out", "answers")
STEPS = {
    "clean": "the pool without duplicates and test rows; dropped.parquet has the reasons",
    "pilot": "short training runs of several methods, which decided between them",
    "curve": "the untouched model and the learning curve",
    "subset": "the selected rows, and why the others were dropped",
    "adapter": "the adapter, with its measurements",
}


def build_advice_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `advise` wrote."""
    advice = read_json(folder / "advice.json", KEYS)
    metrics: Mapping[str, Any] = {}
    if (folder / "adapter" / "metrics.json").is_file():
        metrics = read_json(folder / "adapter" / "metrics.json", ("counts",))
    first, *others = advice["answers"]
    answer, scores = split_sentence(first["answer"])
    content, pool = manifest.content, advice["pool"]
    left_out = [f"Time ran out for: {', '.join(advice['left_out'])}."] if advice["left_out"] else []
    return Page(
        kind="advice",
        title=f"Advice for {fmt.rows(pool['given'])}",
        answer=answer,
        more=[*([scores] if scores else []), *left_out],
        tiles=(
            Tile("Clean rows", fmt.count(pool["clean"]), f"of {fmt.count(pool['given'])}"),
            Tile("Chosen", fmt.count(advice["rows"]["n"]), f"by {advice['method']}"),
            Tile("Time", fmt.seconds(content["run"]["seconds"])),
        ),
        sections=[
            Section("The questions", [_build_answers([first, *others])]),
            Section("Which method", build_trained_pilot(advice.get("pilot"))),
            Section("How many rows", _build_curve(folder)),
            Section("The untouched model", build_references(metrics.get("base"), str(content["task"]))),
            Section("What it forgot", build_forgetting(metrics.get("general"))),
            Section("The steps", _build_steps(folder, advice)),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _build_answers(answers: list[Mapping[str, str]]) -> Table:
    rows = [(each["question"], each["answer"]) for each in answers]
    return Table(caption="Questions and answers", columns=("question", "answer"), rows=rows, text=(1,))


def _build_curve(folder: Path) -> list[Block]:
    """Return the learning curve; nothing where it was left out."""
    own = folder / "curve"
    if not (own / MANIFEST).is_file():
        return []
    fitted = read_json(own / "saturation.json", CURVE_KEYS)
    is_higher_better = bool(fitted["is_higher_better"])
    experiment = read_experiment(own, Manifest.read(own), cells_file="curve.csv", is_higher_better=is_higher_better)
    figure = [build_curve_figure(experiment, fitted)] if len(experiment.done) else []
    return [Paragraph(" ".join([str(fitted["answer"]), *fitted.get("outlook", [])])), *figure]


def _build_steps(folder: Path, advice: Mapping[str, Any]) -> list[Block]:
    dropped = [f"{rule}: {fmt.rows(n)}" for rule, n in advice["dropped"].items() if n]
    asked = {name: what for name, what in STEPS.items() if name != "pilot" or advice.get("pilot")}
    lines = [(name, what, "there" if (folder / name).is_dir() else "left out") for name, what in asked.items()]
    return [
        Table(caption="Folder of each step", columns=("folder", "what", "state"), rows=lines),
        Paragraph(f"thresher report {folder / 'subset'} writes the page of a step; the same works for the others."),
        Paragraph(f"Dropped by cleaning: {fmt.join_words(dropped) if dropped else 'nothing'}."),
    ]
