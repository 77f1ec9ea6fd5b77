"""The page of `train --experts`: several adapters beside one, and beside random clusters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Notice, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.bases.sources import build_effects
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.reproduce import build_reproduction

KEYS = ("metric", "k", "scores", "against", "rows", "routed", "agreement", "settings")
CONTROLS = {"single": "one adapter with the same number of steps", "random": "experts on random clusters"}


def build_experts_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `train --experts` wrote."""
    content, result = manifest.content, read_json(folder / "experts.json", KEYS)
    name = str(result["metric"])
    is_rate = name in fmt.RATES
    metric = fmt.MetricDisplay(name, is_higher_better=is_rate, is_rate=is_rate, task=None)
    asked, n = result["settings"]["k"], result["k"]
    fewer = [f"{asked} were asked for; the rows are so alike that they make {n}."] if n < asked else []
    verdicts = [str(each["verdict"]) for each in result["against"].values()]
    first = verdicts[0] if verdicts else "one adapter, trained as usual: there is nothing to compare"
    return Page(
        kind="experts",
        title="1 adapter" if n == 1 else f"{fmt.count(n)} experts",
        answer=f"{first[0].upper()}{first[1:]}.",
        more=fewer,
        tiles=(
            Tile("Score", metric.text(result["scores"].get("experts")), metric.label),
            Tile("Training rows", fmt.count(content["data"]["rows"])),
            Tile("Time", fmt.seconds(content["run"].get("seconds"))),
        ),
        sections=[
            Section("Is more than one adapter better?", _build_verdicts(result, asked)),
            Section("Rows and questions of each expert", _build_rows(result)),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _build_verdicts(result: Mapping[str, Any], asked: int) -> list[Block]:
    if not result["against"]:
        reason = "one was asked for" if asked == 1 else "the rows make a single cluster"
        return [Notice(f"There is a single adapter, because {reason}, so nothing was compared.")]
    effects = [
        {
            "arm": f"instead of {CONTROLS[name]}",
            "value": result["scores"]["experts"],
            "against_value": result["scores"][name],
            "difference": each,
            "sentence": each["verdict"],
        }
        for name, each in result["against"].items()
    ]
    about = "All have the same number of training steps in total. 95 % intervals over held-out rows and seeds."
    return [build_effects(effects, result["metric"], "the control", about, None, is_corrected=False)]


def _build_rows(result: Mapping[str, Any]) -> list[Block]:
    if result["rows"] is None:
        return [Paragraph("Rows were not divided.")]
    cells = [
        (f"experts/{number}", fmt.count(rows), fmt.count(routed))
        for number, (rows, routed) in enumerate(zip(result["rows"], result["routed"], strict=True))
    ]
    how = "embeddings of their prompts" if result["settings"]["clusters"] == "embedding" else "their gradients"
    return [
        Paragraph(
            f"Rows are clustered by {how}. A question goes to the expert with the nearest centroid; "
            f"{fmt.share(result['agreement'], 1)} of the training rows would be routed to the expert that trained on "
            "them."
        ),
        Table(
            caption="Sizes", columns=("adapter", "training rows", "held-out rows routed"), rows=cells, numeric=(1, 2)
        ),
    ]
