"""The page of a mix: the best shares, what further rows bring, and the verdict of training."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Chart, Dots, Rows, Whiskers, linear_axis
from thresher.reporting.files import read_json, read_table
from thresher.reporting.page import Block, Code, Figure, Page, Paragraph, Section, Table, Tile
from thresher.reporting.pages.bases.sources import build_effects
from thresher.reporting.pages.experiment_tables import build_footer, describe_incomplete
from thresher.reporting.pages.reproduce import build_reproduction

KEYS = ("answer", "metric", "sources", "mixes", "n_rows", "share_of_mixes", "quota", "verdict", "forgetting")


def build_mix_page(folder: Path, manifest: Manifest) -> Page:
    """Return the page of a folder that `mix` wrote."""
    content, result = manifest.content, read_json(folder / "mix.json", KEYS)
    mixes = read_table(folder / "mixes.csv", ("mix", "n_rows", "value"))
    return Page(
        kind="mix of sources",
        title=f"A mix of {fmt.count(len(result['sources']))} sources",
        answer=f"Best shares: {result['answer']}.",
        more=[*describe_incomplete(result), *result["forgetting"]],
        tiles=(
            Tile("Mixes trained", fmt.count(result["mixes"]), f"of up to {fmt.rows(result['n_rows'])}"),
            Tile("80 % region", fmt.share(result["share_of_mixes"], 1), "of all mixes"),
            Tile("Time", fmt.seconds(content["run"]["seconds"])),
        ),
        sections=[
            Section("The best shares", _build_shares(result)),
            Section("Against equal shares", _build_verdict(result, content)),
            Section("The mixes used to fit the law", [_build_mixes(mixes)]),
            build_reproduction(manifest, folder),
        ],
        footer=build_footer(content),
    )


def _build_shares(result: Mapping[str, Any]) -> list[Block]:
    sources = result["sources"]
    labels, y = tuple(str(each["name"]) for each in sources), list(range(len(sources)))
    low, high, shares = ([100 * each[name] for each in sources] for name in ("low", "high", "share"))
    tips = tuple(f"{name}: {share:.0f} %" for name, share in zip(labels, shares, strict=True))
    rows = [
        (
            str(each["name"]),
            fmt.count(each["rows"]),
            fmt.share(each["share"], 1),
            f"{100 * each['low']:.0f} to {100 * each['high']:.0f} %",
            "no further rows" if each["next"] is None else str(each["next"]["sentence"]),
        )
        for each in sources
    ]
    figure = Figure(
        name="shares",
        title="Best share of each source",
        caption="Bars are the range of each share within the region that contains the best shares with a "
        "probability of 80 %; shares are not independent, so not every combination of these ranges is in it.",
        alt=f"Dot plot of the best shares of {len(rows)} sources; the table below has the numbers.",
        charts=(
            Chart(
                x=linear_axis("share (%)", 0.0, 100.0, pad=0.0),
                y=Rows(labels),
                marks=[
                    Whiskers(tone="blue", at=y, low=low, high=high, is_lying=True),
                    Dots(tone="blue", x=shares, y=y, tips=tips),
                ],
            ),
        ),
        table=Table(
            caption="Shares, and the gain in the metric from more rows with its 80 % interval",
            columns=("source", "rows", "best share", "region", "further rows"),
            rows=rows,
            numeric=(1, 2, 3),
        ),
    )
    if result["quota"] is None:
        return [figure]
    command = f"thresher select ROWS --method random --budget N --quota {shlex.quote(result['quota'])}"
    return [figure, Code(command, "The command that selects rows in these shares")]


def _build_verdict(result: Mapping[str, Any], content: Mapping[str, Any]) -> list[Block]:
    verdict = result["verdict"]
    if verdict is None:
        return [Paragraph("Not trained: the best shares are equal shares, or --seeds is 0.")]
    about = f"{fmt.rows(result['n_rows'])} on both sides, with the same seeds."
    return [build_effects([verdict], result["metric"], "equal shares", about, content.get("task"))]


def _build_mixes(mixes: pl.DataFrame) -> Table:
    shares = [name for name in mixes.columns if name.startswith("share of ")]
    rows = [
        (
            str(line["mix"]),
            *(fmt.share(line[name], 1) for name in shares),
            fmt.count(line["n_rows"]),
            fmt.significant(line["value"]) if fmt.is_number(line["value"]) else fmt.NOTHING,
        )
        for line in mixes.iter_rows(named=True)
    ]
    columns = ("mix", *(name.removeprefix("share of ") for name in shares), "rows", "score")
    return Table(caption="Every mix and its score", columns=columns, rows=rows, numeric=range(1, len(columns)))
