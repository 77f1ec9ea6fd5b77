"""What training did to the weights of each layer: section `diagnosis` of `metrics.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thresher.reporting import formatting as fmt
from thresher.reporting.page import Block, Paragraph, Share, ShareBars, Table
from thresher.trainer.diagnosis import describe_intruders

SMALLEST = 0.01  # percent that are still written
ROUNDED = 10.0  # percent from which on none of their decimals are


def build_diagnosis(section: Mapping[str, Any] | None) -> list[Block]:
    """Return a sentence on new directions, how far each layer moved, and all matrices."""
    if not section:
        return []
    sentence = Paragraph(
        f"{describe_intruders(section)} A direction is one of the first {section['leading']} left singular vectors of "
        f"a trained matrix; it is new if its cosine with each one of the base is below {section['epsilon']:g}."
    )
    if not section["layers"]:
        return [sentence]
    largest = max(each["moved"] or 0.0 for each in section["layers"]) or 1.0
    shares = [
        Share(
            _name_layer(each["layer"]),
            (each["moved"] or 0.0) / largest,
            f"{_format_moved(each['moved'])}{_count_new(each['intruders'])}",
            "orange" if each["intruders"] else "blue",
        )
        for each in section["layers"]
    ]
    bars = ShareBars("How far each layer moved", ("layer", "update, relative to the base's norm"), shares)
    table = Table(
        caption="All adapted matrices",
        columns=("matrix", "moved", "leading directions", "new"),
        rows=[
            (
                fmt.truncate(each["name"], 80),
                _format_moved(each["moved"]),
                fmt.count(each["directions"]),
                fmt.count(each["intruders"]),
            )
            for each in section["matrices"]
        ],
        numeric=(1, 2, 3),
        is_folded=True,
    )
    return [sentence, bars, table]


def _name_layer(number: int | None) -> str:
    return "others" if number is None else f"layer {number}"


def _format_moved(moved: float | None) -> str:
    if moved is None:
        return "base is zero"
    percent = 100 * moved
    if 0 < percent < SMALLEST:
        return f"below {SMALLEST:g} %"
    return f"{percent:,.0f} %" if percent >= ROUNDED else f"{percent:.2g} %"


def _count_new(n: int) -> str:
    return f", {fmt.count(n)} new direction{'' if n == 1 else 's'}" if n else ""
