"""The rows of a job's pool by night: how many there are, came and left, by the kept snapshots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from thresher.artifacts.manifest import Manifest
from thresher.errors import ManifestError
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.chart import Axis, Chart, Dots, LegendEntry, Line, Mark, Tick, linear_axis
from thresher.reporting.files import read_json
from thresher.reporting.page import Figure, Table

CHANGES = ("changes.json", "churn.json")  # its name now, and in folders written before version 0.2
SHOWN = {"rows": ("in the pool", "blue", "circle"), "entered": ("entered", "orange", "square"),
         "left": ("left", "gray", "diamond")}  # fmt: skip
MAX_TICKS = 8


def read_changes(folder: Path, keys: Sequence[str]) -> Any:
    """Return what changed with a snapshot."""
    return read_json(next((folder / name for name in CHANGES if (folder / name).is_file()), folder / CHANGES[0]), keys)


def list_nights(folder: Path, manifest: Manifest) -> list[dict[str, Any]]:
    """Return version, time and counts of a snapshot and of the earlier ones beside it, rising.

    Args:
        folder: of the snapshot, `.../snapshots/vNNNNNN`.
        manifest: of it.
    """
    nights = []
    for other in sorted(folder.resolve().parent.glob("v[0-9]*")):
        about = manifest if other == folder.resolve() else _read_earlier(other, manifest)
        if about is not None:
            counts = read_changes(other, ("counts",))["counts"]
            nights.append({"version": about.content["version"], "created": about.content["run"]["created"], **counts})
    return [night for night in nights if night["version"] <= manifest.content["version"]]


def _read_earlier(folder: Path, manifest: Manifest) -> Manifest | None:
    """Return the manifest of a folder beside a snapshot; None where it is no snapshot of its job.

    One that is being deleted, as the oldest is by the next run, is none.
    """
    try:
        about = Manifest.read(folder)
    except ManifestError:
        return None
    is_same = all(about.content.get(key) == manifest.content[key] for key in ("kind", "job"))
    return about if is_same else None


def build_nights_figure(nights: Sequence[Mapping[str, Any]]) -> Figure:
    """Return the figure of two snapshots or more."""
    versions = [float(night["version"]) for night in nights]
    marks: list[Mark] = []
    for key, (name, tone, shape) in reversed(SHOWN.items()):
        counts = [float(night[key]) for night in nights]
        tips = tuple(
            f"{_write_day(night)}, snapshot {night['version']}: {night[key]:,} rows {name}" for night in nights
        )
        marks += [Line(tone=tone, x=versions, y=counts), Dots(tone=tone, x=versions, y=counts, shape=shape, tips=tips)]
    step = -(-len(nights) // MAX_TICKS)
    ticks = tuple(Tick(float(night["version"]), _write_day(night)) for night in nights[::-1][::step][::-1])
    reach = 0.04 * (versions[-1] - versions[0])
    top = max(float(night[key]) for night in nights for key in SHOWN)
    chart = Chart(
        x=Axis(label="night", low=versions[0] - reach, high=versions[-1] + reach, ticks=ticks),
        y=linear_axis("rows", 0, top, is_from_zero=True),
        marks=marks,
        legend=[LegendEntry(name, tone, shape) for name, tone, shape in SHOWN.values()],
    )
    last = nights[-1]
    cells = [
        (str(night["version"]), night["created"][:16].replace("T", " "), *(fmt.count(night[key]) for key in SHOWN))
        for night in nights
    ]
    return Figure(
        name="nights",
        title="Rows by night",
        caption="Nights with a snapshot that still exists; hover over a point for its numbers.",
        alt=f"The pool went from {nights[0]['rows']:,} to {last['rows']:,} rows over {len(nights)} snapshots.",
        charts=(chart,),
        table=Table(
            caption="Rows by night", columns=("snapshot", "published (UTC)", "in the pool", "entered", "left"),
            rows=cells, numeric=(2, 3, 4),
        ),
    )  # fmt: skip


def _write_day(night: Mapping[str, Any]) -> str:
    return str(night["created"])[5:10]
