"""The page of a soup: merged adapters beside the best single one."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.bases.sources import build_effects
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.reproduce import build_reproduction

KEYS = ("metric", "adapters", "best_single", "soups", "kept")


def build_soup_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `soup` wrote."""
    content, result = manifest.content, read_json(folder / "soup.json", KEYS)
    name = str(result["metric"])
    is_rate = name in fmt.RATES
    metric = fmt.MetricDisplay(name, is_higher_better=is_rate, is_rate=is_rate, task=None)
    best = result["adapters"][result["best_single"]["adapter"]]
    kept = str(result["kept"])
    return Page(
        kind="soup of adapters",
        title=f"{fmt.count(len(result['adapters']))} adapters merged",
        answer="No soup beats the best single adapter on the dev rows; adapter/ has that one."
        if kept == "the best single adapter"
        else f"{kept[0].upper()}{kept[1:]} is best on the dev rows; adapter/ has it.",
        tiles=(
            Tile("Best single adapter", metric.text(result["best_single"]["test"]), f"{metric.label}, test rows"),
            Tile("Soups", fmt.count(len(result["soups"])), "one per way of merging"),
            Tile("Time", fmt.seconds(content["run"].get("seconds"))),
        ),
        sections=[
            Section("Does a soup beat the best adapter?", _build_verdicts(result)),
            Section("The adapters", [_build_adapters(result, metric, str(best["path"]))]),
            Section("The soups", [_build_soups(result, metric)]),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _build_verdicts(result: Mapping[str, Any]) -> list[Block]:
    measured = [
        {
            "arm": str(each["way"]),
            "value": each["test"],
            "against_value": result["best_single"]["test"],
            "difference": each["gain"],
            "sentence": each["verdict"],
        }
        for each in result["soups"]
        if each["gain"] is not None
    ]
    if not measured:
        return [Paragraph("No adapter improved on the best single one on the dev rows, so there is no soup to test.")]
    about = "On the test rows, which played no part in choosing the adapters; 95 % intervals."
    return [build_effects(measured, result["metric"], "the best adapter", about, None, is_corrected=False)]


def _build_adapters(result: Mapping[str, Any], metric: fmt.MetricDisplay, best: str) -> Table:
    rows = [
        (f"{number}, best" if str(each["path"]) == best else str(number), str(each["path"]), metric.text(each["dev"]))
        for number, each in enumerate(result["adapters"], start=1)
    ]
    columns = ("adapter", "folder", f"{metric.label}, dev rows")
    return Table(caption="What was merged", columns=columns, rows=rows, numeric=(2,))


def _build_soups(result: Mapping[str, Any], metric: fmt.MetricDisplay) -> Table:
    rows = [
        (
            str(each["way"]),
            ", ".join(str(number + 1) for number in each["members"]),
            metric.text(each["dev"]),
            metric.text(each["test"]),
        )
        for each in result["soups"]
    ]
    columns = ("merged by", "adapters", f"{metric.label}, dev rows", "test rows")
    return Table(caption="In the order of joining", columns=columns, rows=rows, numeric=(2, 3))
