"""What the pages of experiments share: their runs, the rows that were picked, and the cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.manifest import Manifest
from thresher.features import column_values
from thresher.numeric.units import format_amount
from thresher.reporting import formatting as fmt
from thresher.reporting.charts.palette import RANDOM, assign_shapes, assign_tones
from thresher.reporting.files import read_table
from thresher.reporting.page import Block, Notice, Paragraph, Share, ShareBars, Table, Tile
from thresher.reporting.pages.rows.pool import read_pool
from thresher.reporting.pages.rows.pool_map import Choice, build_pool_map
from thresher.reporting.pages.rows.subset_rows import list_group_columns

CELL_COLUMNS = ("method", "n_rows", "seed", "metric", "value", "stderr", "n", "status", "reason")
PICK_COLUMNS = ("method", "seed", "rank", "row_id")
SECONDS = ("select_seconds", "train_seconds")
MAX_MAPS = 8
MAX_FAILED = 20


@dataclass(frozen=True, kw_only=True)
class Experiment:
    """The tables of an experiment folder.

    Attributes:
        folder: its path.
        content: of the manifest.
        cells: one line per run, with `select_seconds` and `train_seconds` (null where unknown).
        picks: `method`, `seed`, `rank`, `row_id`, and `n_rows` of the ranking where it is written.
        metric: how its values are shown.
        methods: in the order of the runs, random first.
        tones: colors of the methods.
        shapes: of their points.
        unit: what `n_rows` counts, in the plural.
    """

    folder: Path
    content: Mapping[str, Any]
    cells: pl.DataFrame
    picks: pl.DataFrame
    metric: fmt.MetricDisplay
    methods: tuple[str, ...]
    tones: Mapping[str, str]
    shapes: Mapping[str, str]
    unit: str = "rows"

    def amount(self, size: float) -> str:
        """Return "1,200 rows", or what else the experiment counts."""
        return format_amount(round(size), self.unit)

    @property
    def done(self) -> pl.DataFrame:
        """The runs that have a value."""
        return self.cells.filter(pl.col("value").is_not_null() & pl.col("value").is_finite())

    def values(self, method: str) -> dict[int, list[float]]:
        """Return the values of each run of a method, by size."""
        by_size: dict[int, list[float]] = {}
        own = self.done.filter(pl.col("method") == method).sort("n_rows", "seed")
        for size, value in own.select("n_rows", "value").iter_rows():
            by_size.setdefault(size, []).append(value)
        return by_size


def read_experiment(folder: Path, manifest: Manifest, *, cells_file: str, is_higher_better: bool) -> Experiment:
    """Read the tables of an experiment folder."""
    cells = read_table(folder / cells_file, CELL_COLUMNS).with_columns(
        pl.col("method", "metric", "status", "reason").cast(pl.String), pl.col("value", "stderr").cast(pl.Float64)
    )
    path = folder / "cost.csv"
    if path.is_file():
        keys = ("method", "n_rows", "seed")
        cost = read_table(path, (*keys, *SECONDS)).select(*keys, *SECONDS)
        cells = cells.drop(SECONDS, strict=False).join(cost, on=keys, how="left")
    cells = cells.with_columns(pl.lit(None, pl.Float64).alias(name) for name in SECONDS if name not in cells.columns)
    names = cells["method"].unique(maintain_order=True).to_list()
    methods = tuple(sorted(names, key=lambda name: (name != RANDOM, names.index(name))))
    metric, values = cells["metric"][0] if len(cells) else "metric", cells["value"].to_list()
    return Experiment(
        folder=folder,
        content=manifest.content,
        cells=cells,
        picks=read_table(folder / "picks.parquet", PICK_COLUMNS),
        metric=fmt.describe_metric(
            metric, values, is_higher_better=is_higher_better, task=manifest.content.get("task")
        ),
        methods=methods,
        tones=assign_tones(methods),
        shapes=assign_shapes(methods),
    )


def build_maps(experiment: Experiment) -> list[Block]:
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
        if "n_rows" in first.columns:  # a smaller choice may be no part of the largest one
            first = first.filter(pl.col("n_rows") == pl.col("n_rows").max())
        if len(first):
            title = f"{method}: {fmt.rows(len(first))}, seed {first['seed'][0]}"
            choices.append(Choice(title, pool.positions(first["row_id"])))
    columns = {name: column_values(pool.rows, name) for name in list_group_columns(pool.rows)}
    blocks: list[Block] = [build_pool_map(pool.rows, choices, None, columns)]
    left_out = experiment.methods[MAX_MAPS:]
    if left_out:
        blocks.append(Paragraph(f"Not shown: {', '.join(left_out)}."))
    return blocks


def build_costs(experiment: Experiment) -> list[Block]:
    """Return the time of selection and training, per method and size."""
    cells = experiment.cells.filter(pl.col("train_seconds").is_not_null())
    if not len(cells):
        return [Paragraph("The folder does not record how long its runs took.")]
    spent = dict(cells.group_by("method", maintain_order=True).agg(pl.col("train_seconds").sum()).iter_rows())
    longest = max(spent.values()) or 1.0
    shares = [
        Share(method, spent[method] / longest, fmt.seconds(spent[method]), experiment.tones[method])
        for method in experiment.methods
        if method in spent
    ]
    columns = pl.len().alias("runs"), *(pl.col(name).mean() for name in SECONDS)
    means = cells.group_by("method", "n_rows", maintain_order=True).agg(*columns).sort("n_rows", "method")
    each = Table(
        caption="Time of one run, on average",
        columns=("method", "rows", "runs", "selection", "training and evaluation"),
        rows=[
            (method, fmt.count(size), fmt.count(n), fmt.seconds(select), fmt.seconds(train))
            for method, size, n, select, train in means.iter_rows()
        ],
        numeric=range(1, 5),
        is_folded=True,
    )
    return [ShareBars("Training time of all runs", ("method", "time"), shares), each]


def describe_incomplete(result: Mapping[str, Any]) -> list[str]:
    """Say that a result is incomplete, and what to do; nothing where it is complete.

    Args:
        result: content of the folder's JSON file.
    """
    unfinished = result.get("unfinished")
    if not unfinished:
        return []
    n = len(unfinished)
    runs = f"{fmt.count(n)} runs" if n > 1 else "one run"
    reason = fmt.truncate(str(unfinished[0].get("reason") or "not known"), 300)
    return [
        f"This result is incomplete: the machine killed {runs} on every attempt ({reason}). "
        "Run the same command again to complete it."
    ]


def build_failures(experiment: Experiment) -> list[Block]:
    """Return the runs that were not finished or failed, with their reasons."""
    cells = experiment.cells
    parts = (("unfinished", "were not finished"), ("failed", "failed"))
    lists = [_list_failures(cells.filter(pl.col("status") == status), len(cells), what) for status, what in parts]
    return [block for blocks in lists for block in blocks]


def _list_failures(failed: pl.DataFrame, n: int, what: str) -> list[Block]:
    """Return the table of runs that `what`, and how many of n they are."""
    n_failed = len(failed)
    if not n_failed:
        return []
    shown = failed.select("method", "n_rows", "seed", "reason").head(MAX_FAILED)
    table = Table(
        caption=f"Runs that {what}" if n_failed <= MAX_FAILED else f"The first {MAX_FAILED} runs that {what}",
        columns=("method", "rows", "seed", "reason"),
        rows=[
            (method, fmt.count(size), str(seed), fmt.truncate(reason or "not known", 300))
            for method, size, seed, reason in shown.iter_rows()
        ],
        numeric=(1, 2),
        text=(3,),
    )
    share = fmt.share(n_failed, n)
    return [Notice(f"{n_failed} of {n} runs {what} ({share}); everything on this page leaves them out."), table]


def build_run_table(experiment: Experiment) -> Table:
    """Return every finished run."""
    metric = experiment.metric
    runs = experiment.done.sort("method", "n_rows", "seed").select("method", "n_rows", "seed", "value", "stderr", "n")
    return Table(
        caption=f"Every run ({len(runs):,})",
        columns=("method", "rows", "seed", metric.label, "test rows"),
        rows=[
            (method, fmt.count(size), str(seed), metric.text(value, stderr), fmt.count(n))
            for method, size, seed, value, stderr, n in runs.iter_rows()
        ],
        numeric=range(1, 5),
        is_folded=True,
    )


def build_run_tiles(experiment: Experiment) -> list[Tile]:
    """Return the number of finished runs, and the time of the command."""
    n_done, n = len(experiment.done), len(experiment.cells)
    return [
        Tile("Runs", fmt.count(n_done), f"of {n:,}" if n_done < n else ""),
        Tile("Time", fmt.seconds(experiment.content["run"].get("seconds"))),
    ]


def build_footer(content: Mapping[str, Any]) -> dict[str, str]:
    """Return when the folder was written, and by which version."""
    run = content.get("run", {})
    footer = {
        "Created": str(run.get("created", run.get("started", ""))),
        "thresher": str(content.get("versions", {}).get("thresher", "")),
    }
    return {name: value for name, value in footer.items() if value}
