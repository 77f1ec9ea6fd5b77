"""The page of a transfer: do verdicts on small models hold on larger ones?"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_json
from thresher.reporting.page import Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.bases.sources import build_effects
from thresher.reporting.pages.experiment_tables import build_footer, describe_incomplete
from thresher.reporting.pages.reproduce import build_reproduction

KEYS = ("answer", "metric", "models", "methods", "steps", "rows")


def build_transfer_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `base transfer` wrote."""
    content, result = manifest.content, read_json(folder / "transfer.json", KEYS)
    answer, steps = str(result["answer"]), result["steps"]
    n_verdicts, n_held = (sum(int(step[name]) for step in steps) for name in ("verdicts", "held"))
    effects = [
        {
            "arm": f"{each['method']}, {each['n_rows']:,} rows, {model['name']}",
            "value": None,
            "against_value": None,
            "difference": effect,
            "sentence": each["sentence"] if model is result["models"][-1] else "",
        }
        for each in result["methods"]
        for model, effect in zip(result["models"], each["effects"], strict=True)
    ]
    about = "Each method on each model, from small to large; 95 % intervals over test rows and seeds."
    return Page(
        kind="transfer between base models",
        title=f"{fmt.count(len(result['models']))} base models",
        answer=f"{answer[0].upper()}{answer[1:]}.",
        more=describe_incomplete(result),
        tiles=(
            Tile("Verdicts that held", fmt.count(n_held), f"of {fmt.count(n_verdicts)} on a smaller model"),
            Tile("Largest model", str(result["models"][-1]["name"])),
            Tile("Time", fmt.seconds(content["run"]["seconds"])),
        ),
        sections=[
            Section("One step up", [_build_methods(result)]),
            Section(
                "Every model", [build_effects(effects, result["metric"], "random rows", about, content.get("task"))]
            ),
            Section("From model to model", [_build_steps(result)]),
            Section("The same rows?", [_build_rows(result)]),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _build_methods(result: Mapping[str, Any]) -> Table:
    rows = [
        (
            str(each["method"]),
            fmt.count(each["n_rows"]),
            str(each["verdict"]),
            fmt.NOTHING if each["holds"] is None else fmt.share(each["holds"], 1),
            f"{each['next']['mean']:+.4f} [{each['next']['low']:+.4f}, {each['next']['high']:+.4f}]",
        )
        for each in result["methods"]
    ]
    columns = ("method", "rows", "verdict on the largest", "holds one step up", "expected effect one step up (80 %)")
    return Table(caption="What to expect on the next larger model", columns=columns, rows=rows, numeric=(1, 3, 4))


def _build_steps(result: Mapping[str, Any]) -> Table:
    rows = []
    for step in result["steps"]:
        correlation = fmt.NOTHING
        if step["correlation"] is not None:
            correlation = f"{step['correlation']:.2f} [{step['low']:.2f}, {step['high']:.2f}]"
        held = f"{step['held']} of {step['verdicts']}"
        rows.append((str(step["from"]), str(step["to"]), correlation, held, fmt.share(step["same_first"], 1)))
    columns = ("from", "to", "rank correlation of effects (80 %)", "verdicts that held", "same best method")
    return Table(caption="Agreement of neighbors", columns=columns, rows=rows, numeric=(2, 3, 4))


def _build_rows(result: Mapping[str, Any]) -> Table | Paragraph:
    if not result["rows"]:
        return Paragraph("No method here uses the trained model itself, so all models get the same rows.")
    rows = [
        (
            str(line["method"]),
            str(line["from"]),
            str(line["to"]),
            fmt.share(line["same_rows"], 1),
            fmt.share(line["by_chance"], 1),
            fmt.NOTHING if line["rank_correlation"] is None else f"{line['rank_correlation']:.2f}",
        )
        for line in result["rows"]
    ]
    columns = ("method", "from", "to", "same rows", "by chance", "rank correlation of scores")
    return Table(caption="Rows selected by methods that use the model", columns=columns, rows=rows, numeric=(3, 4, 5))
