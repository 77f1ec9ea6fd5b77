"""The tables of an experiment folder: cells, their outcomes, the rows they were trained on, and what it all cost."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.folder import write_csv, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.dataset import Dataset
from thresher.dataset.formats.files import SourceFile
from thresher.errors import InputError
from thresher.evaluation.estimate import mean_over_seeds
from thresher.experiments.experiment import Experiment
from thresher.experiments.runner import ExperimentRunner
from thresher.trainer.context import PACKAGES, content_hash

CELL_SCHEMA: dict[str, Any] = {  # columns of the table of cells that may be empty at its start
    "value": pl.Float64,
    "stderr": pl.Float64,
    "n": pl.Int64,
    "loss": pl.Float64,
    "steps": pl.Int64,
    "reason": pl.String,
    "cell": pl.String,
}
MAX_GROUPS = 200  # of one slice; a column with more values is an id rather than a group


def describe_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return what determines the results on an experiment, as JSON values."""
    asked = experiment.request(experiment.pool.take(np.arange(1)), seed=0).identity()
    return {
        "pool": {
            "fingerprint": experiment.pool.fingerprint,
            "content": content_hash(experiment.pool),
            "rows": len(experiment.pool),
        },
        "test": {
            "fingerprint": experiment.test.fingerprint,
            "content": content_hash(experiment.test),
            "rows": len(experiment.test),
        },
        "model": asked["model"],
        "task": asked["task"],
        "settings": asked["settings"],
        "labels": list(experiment.labels),
        "metric": experiment.metric.name,
        "versions": versions(PACKAGES),
    }


def cell_table(runner: ExperimentRunner) -> pl.DataFrame:
    """Return one line per cell; nothing in it depends on the clock or on who ran the cell."""
    lines = []
    for method, n_rows, seed in sorted(runner.outcomes):
        outcome, found = runner.outcomes[method, n_rows, seed], runner.estimate((method, n_rows, seed))
        table = outcome.outcomes
        lines.append(
            {
                "method": method,
                "n_rows": n_rows,
                "seed": seed,
                "metric": runner.experiment.metric.name,
                "value": None if found is None else found.value,
                "stderr": None if found is None else found.stderr,
                "n": None if found is None else found.n,
                "loss": None if table is None else _mean_loss(table),
                "steps": outcome.facts.get("steps"),
                "status": "failed" if table is None else "done",
                "reason": outcome.reason,
                "cell": outcome.key,
            }
        )
    return pl.DataFrame(lines, schema_overrides=CELL_SCHEMA)


def _mean_loss(table: pl.DataFrame) -> float | None:
    weights = table["n_tokens"].to_numpy().sum() if "n_tokens" in table.columns else table["loss"].count()
    return None if not weights else float(table["loss"].drop_nulls().to_numpy().sum() / weights)


def cost_table(runner: ExperimentRunner) -> pl.DataFrame:
    """Return the seconds of each cell: `method`, `n_rows`, `seed`, `select_seconds`, `train_seconds`, `is_reused`."""
    return pl.DataFrame(
        [
            {
                "method": name[0],
                "n_rows": name[1],
                "seed": name[2],
                "select_seconds": runner.cells[name].select_seconds,
                "train_seconds": runner.outcomes[name].facts.get("train_seconds"),
                "is_reused": runner.outcomes[name].is_reused,
            }
            for name in sorted(runner.outcomes)
        ],
        schema_overrides={"train_seconds": pl.Float64},
    )


def outcome_table(runner: ExperimentRunner) -> pl.DataFrame:
    """Return one row per finished cell and test row, so that differences can be paired."""
    found = []
    for name in sorted(runner.outcomes):
        table = runner.outcomes[name].outcomes
        if table is not None:
            place = [pl.lit(name[0]).alias("method"), pl.lit(name[1]).alias("n_rows"), pl.lit(name[2]).alias("seed")]
            found.append(table.select(*place, pl.all()))
    return pl.concat(found)


def pick_table(runner: ExperimentRunner) -> pl.DataFrame:
    """Return the rankings as far as they were used: `method`, `seed`, `rank` (from 1), `row_id`."""
    ids, found = runner.experiment.pool.frame["row_id"], []
    for method, seed in sorted({(method, seed) for method, _, seed in runner.cells}):
        rows = max((cell.rows for name, cell in runner.cells.items() if (name[0], name[2]) == (method, seed)), key=len)
        rank = pl.Series("rank", np.arange(1, len(rows) + 1))
        found.append(
            pl.DataFrame({"rank": rank, "row_id": ids.gather(rows)}).select(
                pl.lit(method).alias("method"), pl.lit(seed).alias("seed"), "rank", "row_id"
            )
        )
    return pl.concat(found)


def check_slices(runner: ExperimentRunner, columns: Sequence[str]) -> None:
    """Refuse slices that cannot be drawn, before anything is run.

    Raises:
        InputError: a column has too many values, or the metric has no value per row.
        NotFoundError: there is no such column.
    """
    if columns and runner.experiment.metric.column is None:
        raise InputError(
            f"slices: {runner.experiment.metric.name} has no value per row to slice; choose accuracy or loss"
        )
    _groups(runner.experiment.test, columns, is_labelled=bool(runner.experiment.labels))


def slice_table(runner: ExperimentRunner, columns: Sequence[str]) -> pl.DataFrame:
    """Return the metric of each group of test rows, over all seeds.

    Args:
        runner: with finished cells.
        columns: of the test set; classification data is also sliced by its label.

    Raises:
        InputError: a column has too many values to be a group.
    """
    names = {"method": pl.String, "n_rows": pl.Int64, "slice": pl.String, "group": pl.String}
    schema: dict[str, Any] = {**names, "value": pl.Float64, "stderr": pl.Float64, "n": pl.Int64}
    metric, lines = runner.experiment.metric, []
    groups = _groups(runner.experiment.test, columns, is_labelled=bool(runner.experiment.labels))
    if metric.column is None:
        groups = {}
    for method, n_rows in sorted({name[:2] for name in runner.outcomes}):
        tables = runner.tables(method, n_rows)
        if not tables:
            continue
        usable = tables[0].filter(pl.col(str(metric.column)).is_not_null())["row_id"].to_list() if groups else []
        values = np.stack([metric.per_row(table) for table in tables]) if groups else np.empty((0, 0))
        weights = metric.weights(tables[0])
        for name, group_of in groups.items():
            group = np.array([group_of[row] for row in usable])
            for value in sorted(set(group)):
                index = np.flatnonzero(group == value)
                found = mean_over_seeds(values[:, index], None if weights is None else weights[index])
                place = {"method": method, "n_rows": n_rows, "slice": name, "group": value}
                lines.append(place | {"value": found.value, "stderr": found.stderr, "n": found.n})
    return pl.DataFrame(lines, schema=schema)


def _groups(test: Dataset, columns: Sequence[str], *, is_labelled: bool) -> dict[str, dict[str, str]]:
    """Return slice -> row id -> group."""
    found = {}
    for name in dict.fromkeys([*(["label"] if is_labelled else []), *columns]):
        column = test.frame["response"] if name == "label" and is_labelled else test.column(name)
        n_groups = column.n_unique()
        if n_groups > MAX_GROUPS:
            if name == "label":
                continue
            raise InputError(f"slices: {name} must have at most {MAX_GROUPS} values, found {n_groups}")
        text = column.cast(pl.String).fill_null("(none)")
        found[name] = dict(zip(test.frame["row_id"], text, strict=True))
    return found


def write_tables(runner: ExperimentRunner, folder: Path, cells_name: str) -> None:
    """Write the tables that every experiment has: cells, cost, outcomes and picks."""
    write_csv(cell_table(runner), folder / cells_name)
    write_csv(cost_table(runner), folder / "cost.csv")
    write_parquet(outcome_table(runner), folder / "outcomes.parquet")
    write_parquet(pick_table(runner), folder / "picks.parquet")


def experiment_manifest(
    runner: ExperimentRunner, kind: str, named: str, asked: Mapping[str, Any], *, began: str, started: float
) -> Manifest:
    """Return the manifest of an experiment.

    Args:
        runner: with finished cells.
        kind: of the folder.
        named: identity of the experiment.
        asked: what it asked for, as JSON values.
        began: time of day.
        started: on the monotonic clock.
    """
    return Manifest(
        {
            "format": FORMAT,
            "kind": kind,
            "identity": named,
            **describe_experiment(runner.experiment),
            "asked": dict(asked),
            "select": dict(runner.rankings.options),
            "method_settings": {method: dict(values) for method, values in runner.rankings.settings.items()},
            **input_content(runner.experiment),
            "cells": len(runner.outcomes),
            "run": {
                "created": began,
                "seconds": round(time.monotonic() - started, 3),
                "workers": runner.n_workers,
                "engine": runner.engine,
                **input_places(runner.experiment),
            },
        }
    )


def input_content(experiment: Experiment) -> dict[str, Any]:
    """Return what a manifest says of the files that an experiment was given, and of how they were read."""
    pool, test = experiment.pool, experiment.test
    return {
        "inputs": [_source(source) for source in pool.sources],
        "eval": [_source(source) for source in test.sources],
        "schema": {
            "name": pool.schema.name,
            "columns": {role: list(names) for role, names in pool.schema.columns.items()},
        },
        "id_column": pool.id_column,
        "overlap": experiment.overlap,
    }


def input_places(experiment: Experiment) -> dict[str, Any]:
    """Return where those files were: a part of what may differ between two runs of the same work."""
    return {"inputs": [source.path for source in experiment.pool.sources], "eval": experiment.eval_name}


def _source(source: SourceFile) -> dict[str, Any]:
    return {"name": source.name, "bytes": source.bytes, "sha256": source.sha256}


def identity(runner: ExperimentRunner, asked: dict[str, Any]) -> str:
    """Return the identity of an experiment on an experiment."""
    options = {
        "options": dict(runner.rankings.options),
        "methods": {k: dict(v) for k, v in runner.rankings.settings.items()},
    }
    return digest({"bench": describe_experiment(runner.experiment), "asked": asked, "select": options})
