"""What the pages of experiments share: their cells, the rows that were picked, and what it all cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.reporting.charts.palette import RANDOM, shapes, tones
from thresher.reporting.files import read_table
from thresher.reporting.page import Block, Notice, Paragraph, Share, ShareBars, Table
from thresher.reporting.pages.pool import read_pool
from thresher.reporting.pages.pool_map import Choice, pool_map
from thresher.reporting.wording import MetricDisplay, count, cut, is_number, metric_of, rows, seconds, share

CELL_COLUMNS = ("method", "n_rows", "seed", "metric", "value", "stderr", "n", "status", "reason")
PICK_COLUMNS = ("method", "seed", "rank", "row_id")
SECONDS = ("select_seconds", "train_seconds")
MAX_MAPS = 8
MAX_FAILED = 20


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The tables of an experiment folder.

    Attributes:
        folder: where it lies.
        content: of the manifest.
        cells: one line per cell, with `select_seconds` and `train_seconds` (null where nobody wrote
            them down).
        picks: `method`, `seed`, `rank`, `row_id`.
        metric: how its values are shown.
        methods: in the order of the cells, random first.
        tones: of the methods.
        shapes: of their points.
    """

    folder: Path
    content: Mapping[str, Any]
    cells: pl.DataFrame
    picks: pl.DataFrame
    metric: MetricDisplay
    methods: tuple[str, ...]
    tones: Mapping[str, str]
    shapes: Mapping[str, str]

    @property
    def done(self) -> pl.DataFrame:
        """The cells that have a value."""
        return self.cells.filter(pl.col("value").is_not_null() & pl.col("value").is_finite())

    def values(self, method: str) -> dict[int, list[float]]:
        """Return the values of each run of a method, by size."""
        found = self.done.filter(pl.col("method") == method).sort("n_rows", "seed")
        by_size: dict[int, list[float]] = {}
        for size, value in found.select("n_rows", "value").iter_rows():
            by_size.setdefault(size, []).append(value)
        return by_size


def read_experiment(folder: Path, manifest: Manifest, *, cells_file: str, is_higher_better: bool) -> Experiment:
    """Read the tables of an experiment folder."""
    cells = read_table(folder / cells_file, CELL_COLUMNS).with_columns(
        pl.col("method", "metric", "status", "reason").cast(pl.String), pl.col("value", "stderr").cast(pl.Float64)
    )
    path = folder / "cost.csv"
    if path.is_file():
        cost = read_table(path, ("method", "n_rows", "seed", *SECONDS))
        keys = ["method", "n_rows", "seed"]
        cells = cells.drop(SECONDS, strict=False).join(cost.select(*keys, *SECONDS), on=keys, how="left")
    cells = cells.with_columns(pl.lit(None, pl.Float64).alias(name) for name in SECONDS if name not in cells.columns)
    names = cells["method"].unique(maintain_order=True).to_list()
    methods = tuple(sorted(names, key=lambda name: (name != RANDOM, names.index(name))))
    metric = cells["metric"][0] if len(cells) else "metric"
    return Experiment(
        folder=folder,
        content=manifest.content,
        cells=cells,
        picks=read_table(folder / "picks.parquet", PICK_COLUMNS),
        metric=metric_of(
            metric, cells["value"].to_list(), is_higher_better=is_higher_better, task=manifest.content.get("task")
        ),
        methods=methods,
        tones=tones(methods),
        shapes=shapes(methods),
    )


def maps(experiment: Experiment) -> list[Block]:
    """Return the map of the pool, with the largest subset of each method."""
    picks = experiment.picks
    if not len(picks):
        return []
    pool = read_pool(experiment.content, row_ids=picks["row_id"])
    if pool.rows is None:
        return [Notice(f"There is no map. {pool.missing}")]
    choices = []
    for method in experiment.methods[:MAX_MAPS]:
        own = picks.filter(pl.col("method") == method)
        first = own.filter(pl.col("seed") == own["seed"].min())
        if len(first):
            title = f"{method}: {rows(len(first))}, seed {first['seed'][0]}"
            choices.append(Choice(title, pool.positions(first["row_id"])))
    left_out = experiment.methods[MAX_MAPS:]
    blocks: list[Block] = [pool_map(pool.rows, choices, None)]
    if left_out:
        blocks.append(Paragraph(f"Not drawn: {', '.join(left_out)}."))
    return blocks


def costs(experiment: Experiment) -> list[Block]:
    """Return what choosing and training took, per method and size."""
    cells = experiment.cells.filter(pl.col("train_seconds").is_not_null())
    if not len(cells):
        return [Paragraph("The folder does not tell what its cells took.")]
    table = (
        cells.group_by("method", "n_rows", maintain_order=True)
        .agg(pl.len().alias("runs"), *(pl.col(name).mean() for name in SECONDS))
        .sort("n_rows", "method")
    )
    total = cells.group_by("method", maintain_order=True).agg(pl.col("train_seconds").sum())
    spent = dict(total.iter_rows())
    longest = max(spent.values()) or 1.0
    bars = ShareBars(
        "Training time of all runs",
        ("method", "time"),
        tuple(
            Share(method, spent[method] / longest, seconds(spent[method]), experiment.tones[method])
            for method in experiment.methods
            if method in spent
        ),
    )
    each = Table(
        caption="Time of one run, on average",
        columns=("method", "rows", "runs", "choosing", "training and measuring"),
        rows=tuple(
            (method, count(size), count(runs), seconds(select), seconds(train))
            for method, size, runs, select, train in table.iter_rows()
        ),
        numeric=frozenset({1, 2, 3, 4}),
        is_folded=True,
    )
    return [bars, each]


def failures(experiment: Experiment) -> list[Block]:
    """Return the cells that failed, with their reasons."""
    failed = experiment.cells.filter(pl.col("status") != "done")
    if not len(failed):
        return []
    cells = [
        (method, count(size), str(seed), cut(reason or "not told", 300))
        for method, size, seed, reason in failed.select("method", "n_rows", "seed", "reason")
        .head(MAX_FAILED)
        .iter_rows()
    ]
    text = f"{len(failed)} of {len(experiment.cells)} runs failed ({share(len(failed), len(experiment.cells))})"
    return [
        Notice(f"{text}; everything on this page is without them."),
        Table(
            caption="Runs that failed" if len(failed) <= MAX_FAILED else f"The first {MAX_FAILED} runs that failed",
            columns=("method", "rows", "seed", "reason"),
            rows=tuple(cells),
            numeric=frozenset({1, 2}),
            text=frozenset({3}),
        ),
    ]


def runs(experiment: Experiment) -> Table:
    """Return every finished run."""
    metric = experiment.metric
    found = experiment.done.sort("method", "n_rows", "seed").select("method", "n_rows", "seed", "value", "stderr", "n")
    return Table(
        caption=f"Every run ({len(found):,})",
        columns=("method", "rows", "seed", metric.label, "test rows"),
        rows=tuple(
            (method, count(size), str(seed), metric.text(value, stderr), count(n))
            for method, size, seed, value, stderr, n in found.iter_rows()
        ),
        numeric=frozenset({1, 2, 3, 4}),
        is_folded=True,
    )


def total_seconds(experiment: Experiment) -> float | None:
    """Return what the command took, or else the sum over its cells."""
    told = experiment.content.get("run", {}).get("seconds")
    if isinstance(told, Mapping):
        told = told.get("total")
    if is_number(told):
        return float(told)
    spent = experiment.cells["train_seconds"].sum()
    return float(spent) if spent else None


def footer(content: Mapping[str, Any]) -> dict[str, str]:
    """Return when the folder was made, and by which version."""
    run = content.get("run", {})
    return {
        "Made": str(run.get("created", run.get("started", ""))),
        "thresher": str(content.get("versions", {}).get("thresher", "")),
    }
