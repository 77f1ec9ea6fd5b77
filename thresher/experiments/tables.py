"""The tables of an experiment folder: cells, outcomes, picked rows and costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.folder import write_csv, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.dataset import Dataset
from thresher.dataset.provenance import describe_schema, describe_sides
from thresher.dataset.values.given import hash_given
from thresher.errors import InputError
from thresher.evaluation.estimate import mean_over_seeds
from thresher.evaluation.lm_eval_task import LmEvalMetric
from thresher.experiments.cells.cell import Outcome
from thresher.experiments.design.column_hashes import hash_columns, list_method_columns
from thresher.experiments.experiment import Experiment
from thresher.experiments.own.trainer import ONE_NUMBER
from thresher.experiments.result_folder import RunClock
from thresher.experiments.runner import ExperimentRunner
from thresher.numeric.arrays import Int64
from thresher.trainer.context import PACKAGES, content_hash
from thresher.trainer.weights import hash_weights

CELL_SCHEMA: dict[str, Any] = {  # columns of the table of cells that may be empty at its start
    "value": pl.Float64,
    "stderr": pl.Float64,
    "n": pl.Int64,
    "loss": pl.Float64,
    "steps": pl.Int64,
    "reason": pl.String,
    "cell": pl.String,
}
# of laws, intervals, verdicts and what models are held against; raise it when the same cells would
# say something else: it is in the identity of every command that trains cells
RECIPE = "experiment-4"
# of a training's identity, what is of its rows or of one run, or stands beside it here
OF_ONE_RUN = frozenset(
    {"data", "train", "held_out", "control", "sources", "subset", "seeds", "is_merged", "weights"}
    | {"labels", "versions", "shots", "forget"}
)
MAX_GROUPS = 200  # of one slice; a column with more values is an id rather than a group


def describe_experiment(experiment: Experiment) -> dict[str, Any]:
    """Return what determines the results of an experiment's cells, as JSON values."""
    sides = {"pool": experiment.pool, "test": experiment.test}
    return {
        "recipe": RECIPE,
        **{
            side: {"fingerprint": data.fingerprint, "content": content_hash(data), "rows": len(data)}
            for side, data in sides.items()
        },
        **_describe_training(experiment),
        "labels": list(experiment.labels),
        "metric": experiment.metric.name,
        "untouched": experiment.untouched.list_changed(general="none"),
        "versions": versions(PACKAGES),
    }


def _describe_training(experiment: Experiment) -> dict[str, Any]:
    if experiment.trainer is not None:
        own = experiment.trainer.to_json()
        return {"model": None, "task": experiment.pool.kind, "settings": {}, "trainer": own}
    context = experiment.build_context(experiment.pool.take(np.arange(1)), seed=0)
    settings = context.settings
    # the one row that stands for all of them may weigh nothing
    identity = replace(context, settings=replace(settings, weight=None)).identity()
    shared = {name: value for name, value in identity.items() if name not in OF_ONE_RUN}
    if "recipe" in shared:
        shared["adapter_recipe"] = shared.pop("recipe")
    if settings.weight is not None:
        shared["settings"] = {**shared["settings"], "weight": settings.weight}
        shared["weights"] = hash_weights(experiment.pool, settings.weight)
    return shared


def build_cell_table(runner: ExperimentRunner) -> pl.DataFrame:
    """Return one line per cell; nothing in it depends on the clock or on who ran the cell."""
    lines = []
    for name in sorted(runner.outcomes):
        outcome, estimate = runner.outcomes[name], runner.estimate(name)
        table = outcome.outcomes
        lines.append(
            {
                **_name_columns(name),
                "metric": runner.experiment.metric.name,
                "value": None if estimate is None else estimate.value,
                "stderr": None if estimate is None else estimate.stderr,
                "n": None if estimate is None else estimate.n,
                "loss": None if table is None else _mean_loss(table),
                "steps": outcome.facts.get("steps"),
                "status": _name_status(outcome),
                "reason": outcome.reason,
                "cell": outcome.key,
            }
        )
    return pl.DataFrame(lines, schema_overrides=CELL_SCHEMA)


def _name_status(outcome: Outcome) -> str:
    if outcome.is_unfinished:
        return "unfinished"
    return "failed" if outcome.outcomes is None else "done"


def _name_columns(name: tuple[str, int, int]) -> dict[str, Any]:
    return dict(zip(("method", "n_rows", "seed"), name, strict=True))


def _mean_loss(table: pl.DataFrame) -> float | None:
    if "loss" not in table.columns:
        return None
    weights = table["n_tokens"].to_numpy().sum() if "n_tokens" in table.columns else table["loss"].count()
    return None if not weights else float(table["loss"].drop_nulls().to_numpy().sum() / weights)


def build_cost_table(runner: ExperimentRunner) -> pl.DataFrame:
    """Return a line per cell: its name, `select_seconds`, `train_seconds` and `is_reused`."""
    lines = [
        {
            **_name_columns(name),
            "select_seconds": runner.cells[name].select_seconds,
            "train_seconds": outcome.facts.get("train_seconds"),
            "is_reused": outcome.is_reused,
        }
        for name, outcome in sorted(runner.outcomes.items(), key=lambda entry: entry[0])
    ]
    return pl.DataFrame(lines, schema_overrides={"train_seconds": pl.Float64})


def build_outcome_table(runner: ExperimentRunner) -> pl.DataFrame:
    """Return one row per finished cell and test row, so that differences can be paired."""
    parts = []
    for name in sorted(runner.outcomes):
        table = runner.outcomes[name].outcomes
        if table is not None:
            columns = [pl.lit(value).alias(column) for column, value in _name_columns(name).items()]
            parts.append(table.select(*columns, pl.all()))
    return pl.concat(parts)


def build_pick_table(runner: ExperimentRunner) -> pl.DataFrame:
    """Return the rankings as far as they were used: `method`, `seed`, `rank` (from 1), `row_id`.

    The choices of smaller sizes are the first rows of a ranking; those that are not have rankings
    of their own. `n_rows` is the largest size that one is of.
    """
    ids, parts = runner.experiment.pool.frame["row_id"], []
    for method, seed in sorted({(method, seed) for method, _, seed in runner.cells}):
        choices = [cell.rows for name, cell in runner.cells.items() if (name[0], name[2]) == (method, seed)]
        rankings: list[Int64] = []
        for rows in sorted((np.asarray(each) for each in choices), key=len, reverse=True):
            if not any(np.array_equal(longer[: len(rows)], rows) for longer in rankings):
                rankings.append(rows)
        for rows in rankings:
            columns = [pl.lit(value).alias(name) for name, value in (("method", method), ("seed", seed))]
            table = pl.DataFrame({"rank": np.arange(1, len(rows) + 1), "row_id": ids.gather(rows)})
            parts.append(table.select(*columns, "rank", "row_id", n_rows=pl.lit(len(rows), pl.Int64)))
    return pl.concat(parts)


def check_slices(runner: ExperimentRunner, columns: Sequence[str]) -> None:
    """Refuse slices that cannot be measured, before anything is run.

    Raises:
        InputError: a column has too many values, or the metric has no value per row.
        NotFoundError: there is no such column.
    """
    metric = runner.experiment.metric
    if columns and (metric.column is None or isinstance(metric, LmEvalMetric)):
        raise InputError(f"slices: {metric.name} has no value per row to slice; choose accuracy or loss")
    _group_test_rows(runner.experiment, columns)


def build_slice_table(runner: ExperimentRunner, columns: Sequence[str]) -> pl.DataFrame:
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
    has_slices = metric.column is not None and not isinstance(metric, LmEvalMetric)
    slices = _group_test_rows(runner.experiment, columns) if has_slices else {}
    for method, n_rows in runner.list_groups() if slices else ():
        tables = runner.list_tables(method, n_rows)
        if not tables or (ONE_NUMBER in tables[0].columns and tables[0][ONE_NUMBER].any()):
            continue  # one number for all test rows says nothing of parts of them
        # test rows that have a value, in the order of `values`: (seeds, rows)
        row_ids = tables[0].filter(~np.isnan(metric.per_row_or_nan(tables[0])))["row_id"].to_list()
        values, weights = np.stack([metric.per_row(table) for table in tables]), metric.weights(tables[0])
        for name, group_by_row in slices.items():
            groups = np.array([group_by_row[row] for row in row_ids])
            for group in sorted(set(groups)):
                index = np.flatnonzero(groups == group)
                mean = mean_over_seeds(values[:, index], None if weights is None else weights[index])
                place = {"method": method, "n_rows": n_rows, "slice": name, "group": group}
                lines.append(place | {"value": mean.value, "stderr": mean.stderr, "n": mean.n})
    return pl.DataFrame(lines, schema=schema)


def _group_test_rows(experiment: Experiment, columns: Sequence[str]) -> dict[str, dict[str, str]]:
    """Return slice -> row id -> group."""
    test, has_labels, slices = experiment.test, bool(experiment.labels), {}
    for name in dict.fromkeys([*(["label"] if has_labels else []), *columns]):
        column = _read_column(test, name, is_label=name == "label" and has_labels)
        n_groups = column.n_unique()
        if n_groups > MAX_GROUPS:
            if name == "label":
                continue
            raise InputError(f"slices: {name} must have at most {MAX_GROUPS} values, found {n_groups}")
        text = column.cast(pl.String).fill_null("(none)")
        slices[name] = dict(zip(test.frame["row_id"], text, strict=True))
    return slices


def _read_column(test: Dataset, name: str, *, is_label: bool) -> pl.Series:
    return test.frame["response"] if is_label else test.column(name)


def write_tables(runner: ExperimentRunner, folder: Path, cells_name: str) -> None:
    """Write the tables that every experiment has: cells, cost, outcomes and picks."""
    write_csv(build_cell_table(runner), folder / cells_name)
    write_csv(build_cost_table(runner), folder / "cost.csv")
    write_parquet(build_outcome_table(runner), folder / "outcomes.parquet")
    write_parquet(build_pick_table(runner), folder / "picks.parquet")


def build_manifest(
    runner: ExperimentRunner, kind: str, identity: str, asked: Mapping[str, Any], clock: RunClock
) -> Manifest:
    """Return the manifest of an experiment.

    Args:
        runner: with finished cells.
        kind: of the folder.
        identity: of the experiment.
        asked: what it asked for, as JSON values.
        clock: started with the run.
    """
    return Manifest(
        {
            "format": FORMAT,
            "kind": kind,
            "identity": identity,
            "is_complete": not runner.list_unfinished(),
            **describe_experiment(runner.experiment),
            "asked": dict(asked),
            "select": dict(runner.rankings.options),
            "method_settings": {method: dict(values) for method, values in runner.rankings.settings.items()},
            **describe_inputs(runner.experiment),
            "cells": len(runner.outcomes),
            **_describe_intervals(runner),
            "run": {
                **clock.to_json(),
                "workers": runner.n_workers,
                "engine": runner.engine,
                **describe_places(runner.experiment),
                **_describe_target(runner),
            },
        }
    )


def _describe_intervals(runner: ExperimentRunner) -> dict[str, str]:
    """Say that the intervals are over seeds alone, where runs have one number each."""
    tables = (outcome.outcomes for outcome in runner.outcomes.values())
    has_one = any(table is not None and ONE_NUMBER in table.columns and table[ONE_NUMBER].any() for table in tables)
    return {"intervals": "seeds"} if has_one else {}


def _describe_target(runner: ExperimentRunner) -> dict[str, Any]:
    """Return where the rows of the task were; nothing without any."""
    target = runner.rankings.target
    return {} if target is None else {"target_rows": [source.path for source in target.sources]}


def describe_inputs(experiment: Experiment) -> dict[str, Any]:
    """Return what a manifest says of an experiment's files, and of how they were read."""
    pool, test = experiment.pool, experiment.test
    files = {
        key: [{"name": source.name, "bytes": source.bytes, "sha256": source.sha256} for source in data.sources]
        for key, data in (("inputs", pool), ("eval", test))
    }
    return {
        **files,
        "schema": {name: value for name, value in describe_schema(pool).items() if name != "kind"},
        "reading": describe_sides({"pool": pool, "eval": test}),
        "id_column": pool.id_column,
        "unknown_labels": experiment.unknown_labels,
        "overlap": experiment.overlap,
        "held_out_groups": list(experiment.held_out_groups),
    }


def describe_places(experiment: Experiment) -> dict[str, Any]:
    """Return where those files were, which may differ between two runs of the same work."""
    return {"inputs": [source.path for source in experiment.pool.sources], "eval": experiment.eval_name}


def compute_identity(runner: ExperimentRunner, asked: dict[str, Any]) -> str:
    """Return the identity of an experiment: what it asks for, of which cells, chosen how."""
    methods = {method: dict(values) for method, values in runner.rankings.settings.items()}
    options: dict[str, Any] = {"options": dict(runner.rankings.options), "methods": methods}
    given = hash_given(runner.experiment.pool)
    if given:
        options["given"] = given
    if runner.rankings.target is not None:
        options["target"] = runner.rankings.target.fingerprint
    options |= _hash_columns(runner, asked)
    about = describe_experiment(runner.experiment)
    return digest({"bench": about, "asked": asked, "select": options})


def _hash_columns(runner: ExperimentRunner, asked: Mapping[str, Any]) -> dict[str, Any]:
    """Return hashes of the columns that are named by methods, quotas, axis and slices."""
    plan, rankings = asked.get("plan", asked), runner.rankings
    names = set[str]()
    if plan.get("axis") is not None:
        names.add(plan["axis"])
    elif plan.get("methods"):
        names = list_method_columns(plan["methods"], rankings.settings, rankings.selectors)
    pool = runner.experiment.pool  # a method refuses a pool without a column that it needs
    known = {"source", *pool.column_names, *(["label"] if runner.experiment.labels else [])}
    sides = {
        "columns": hash_columns(pool, names & known),
        "slices": hash_columns(runner.experiment.test, asked.get("slices", ())),
    }
    return {side: hashes for side, hashes in sides.items() if hashes}
