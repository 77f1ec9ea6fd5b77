"""The page of `label budget`: what each amount of money is best spent on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.files import read_json
from thresher.reporting.page import Block, Items, Page, Section, Table
from thresher.reporting.pages.experiment_tables import build_footer
from thresher.reporting.pages.reproduce import build_reproduction

KEYS = ("answer", "offers", "kinds", "is_rate")


def build_budget_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `label budget` wrote."""
    result = read_json(folder / "budget.json", KEYS)
    answer = str(result["answer"])
    return Page(
        kind="label budget",
        title="What to pay for",
        answer=f"{answer[:1].upper()}{answer[1:]}.",
        sections=[
            Section("What each amount buys", _build_offers(result)),
            Section("The curves behind it", [_build_kinds(result["kinds"])]),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(manifest.content),
    )


def _build_offers(result: Mapping[str, Any]) -> list[Block]:
    scale = 100 if result["is_rate"] else 1
    cells = [
        (
            f"{offer['money']:,.2f}",
            name,
            fmt.count(offer["rows"][name]),
            f"{scale * score['median']:.1f} [{scale * score['low']:.1f}, {scale * score['high']:.1f}]",
            f"{100 * offer['chance'][name]:.0f} %",
        )
        for offer in result["offers"]
        for name, score in offer["score"].items()
    ]
    columns = ("money", "kind", "rows", "expected score, 80 %", "probability of being best")
    blocks: list[Block] = [Table(caption="Offers", columns=columns, rows=cells, numeric=(0, 2, 3, 4))]
    notes = [f"{offer['money']:,.2f}: {offer['advice']}" for offer in result["offers"] if offer["advice"]]
    notes += [
        f"{offer['money']:,.2f}: {name} lies outside half to twice the rows that were measured"
        for offer in result["offers"]
        for name in offer["is_beyond"]
    ]
    return [*blocks, *([Items(notes)] if notes else [])]


def _build_kinds(kinds: Mapping[str, Mapping[str, Any]]) -> Table:
    cells = [
        (
            name,
            f"{kind['price']:g}",
            f"{kind['fixed']:g}",
            ", ".join(fmt.count(n) for n in kind["rows"]),
            ", ".join(f"{value:.3f}" for value in kind["errors"]),
        )
        for name, kind in kinds.items()
    ]
    columns = ("kind", "price per row", "fixed cost", "rows measured", "error at each")
    return Table(caption="Kinds of rows", columns=columns, rows=cells, numeric=(1, 2))
