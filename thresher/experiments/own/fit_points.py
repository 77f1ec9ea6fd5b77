"""The curve of scores that were measured elsewhere: the same laws and answers, nothing trained."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_csv, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.safe_csv import escape_formulas
from thresher.artifacts.seal import encode_record
from thresher.errors import InputError
from thresher.evaluation.curves.curve_fit import CurveFit
from thresher.evaluation.curves.enough import Enough, find_enough
from thresher.experiments.curve import LearningCurve, Runs, fit_runs, group_values
from thresher.experiments.curve_io import (
    CURVE,
    KIND,
    SATURATION,
    TOO_FEW_RUNS,
    build_curve,
    compute_trades,
    describe_fit,
    find_leader,
    name_sentences,
    read_curve,
)
from thresher.experiments.own.points import ONE_ARM, Points, parse_point_columns, read_points
from thresher.experiments.planning import check_rates
from thresher.experiments.result_folder import RunClock, run_in_folder
from thresher.experiments.settings import CurveSettings
from thresher.experiments.tables import RECIPE

# what else may be asked of points; of all other options nothing would come
ASKED = ("points", "point_columns", "lower_is_better", "pool_rows", "within", "targets", "more", "out", "force")
PICKS = {"method": pl.String, "seed": pl.Int64, "rank": pl.Int64, "row_id": pl.String, "n_rows": pl.Int64}


def check_only_points(settings: CurveSettings, others: Mapping[str, Any]) -> None:
    """Refuse whatever is about training beside points that were measured elsewhere.

    Args:
        settings: of the curve.
        others: what else was given, by name; None or False where it was not.

    Raises:
        InputError: something of it was given.
    """
    names = {field.name: field for field in fields(settings) if field.name not in (*ASKED, "workers")}
    changed = [name for name, field in names.items() if vars(settings)[name] != field.default]
    changed += [name for name, value in others.items() if value is not None and value is not False]
    if changed:
        raise InputError(
            f"curve: with --from nothing is trained, so {', '.join(changed)} must be left out; "
            f"within, target, more, pool_rows and out may be given"
        )


def fit_points(settings: CurveSettings) -> LearningCurve:
    """Answer from scores that were measured elsewhere how many rows are enough.

    Args:
        settings: with `points`.

    Raises:
        InputError: the points do not fit.
        OutputError: `out` holds something else.
    """
    columns = None if settings.point_columns is None else parse_point_columns(settings.point_columns)
    points = read_points(settings.points, columns, lower_is_better=settings.lower_is_better)
    _check_values(points, settings)
    asked = {
        "within": str(settings.within),
        "targets": settings.targets,
        "more": settings.more,
        "pool_rows": settings.pool_rows,
    }
    read = {"points": points.cells.to_dicts(), "higher": points.is_higher_better}
    identity = digest({"recipe": RECIPE, **read, "asked": asked})
    clock = RunClock()

    def run(_: Path | None) -> LearningCurve:
        runs = {(m, n, s): v for m, n, s, v in points.cells.select("method", "n_rows", "seed", "value").iter_rows()}
        methods = points.cells["method"].unique(maintain_order=True).to_list()
        fitted = {name: fit_runs(runs, name, is_higher_better=points.is_higher_better) for name in methods}
        fits = {name: fit for name, fit in fitted.items() if fit is not None}
        content = _build_content(points, settings, runs, fits)
        manifest = _build_manifest(points, settings, identity, asked, clock)
        return build_curve(points.cells, content, fits, manifest, None)

    def write(curve: LearningCurve, folder: Path) -> None:
        write_csv(escape_formulas(curve.cells), folder / CURVE)
        write_parquet(pl.DataFrame(schema=PICKS), folder / "picks.parquet")
        write_atomic(folder / SATURATION, encode_record(curve.content))
        write_atomic(folder / MANIFEST, curve.manifest.to_json())

    return run_in_folder(identity, settings, run=run, write=write, read=read_curve)


def _check_values(points: Points, settings: CurveSettings) -> None:
    largest = int(points.cells["n_rows"].max())  # type: ignore[arg-type]
    if settings.pool_rows is not None and settings.pool_rows < largest:
        raise InputError(f"curve: pool_rows must be at least the {largest:,} rows of a run, got {settings.pool_rows:,}")
    values = points.cells["value"].drop_nulls()
    if points.is_higher_better and values.is_between(0, 1).all():
        check_rates(settings, points.metric)


def _build_content(points: Points, settings: CurveSettings, runs: Runs, fits: Mapping[str, CurveFit]) -> dict[str, Any]:
    """Return the content of `saturation.json`, with the entries of a curve that was trained."""
    of = int(points.cells["n_rows"].max())  # type: ignore[arg-type]
    n_pool = settings.pool_rows or of
    answers = {
        name: find_enough(fit, within=settings.tolerance, n_pool=n_pool, n_test=None) for name, fit in fits.items()
    }
    methods = points.cells["method"].unique(maintain_order=True).to_list()
    return {
        **name_sentences(_write_answer(answers, fits)),
        "metric": points.metric,
        "is_higher_better": points.is_higher_better,
        "within": str(settings.within),
        "of": of,
        "pool": n_pool,
        "unit": "rows",
        "source": points.source,
        "read": list(points.notes),
        "stopped": "these are the runs that were given",
        "unfinished": [],
        "cost_share": 1.0,
        "methods": {
            name: _describe_arm(group_values(runs, name), fits.get(name), answers.get(name), settings)
            for name in methods
        },
        "trade": compute_trades(fits, {name: list(group_values(runs, name)) for name in fits}),
    }


def _write_answer(answers: Mapping[str, Enough], fits: Mapping[str, CurveFit]) -> list[str]:
    if not answers:
        return [TOO_FEW_RUNS]
    arm = find_leader(answers, fits)
    whose = "" if arm == ONE_ARM else f"rows of {arm}"
    return [answers[arm].describe(whose, "" if arm == ONE_ARM else arm), answers[arm].describe_next()]


def _describe_arm(
    values: Mapping[int, list[float]], fit: CurveFit | None, enough: Enough | None, settings: CurveSettings
) -> dict[str, Any]:
    """Return the points of an arm, each with its standard error over runs, and its laws."""
    spread = {size: float(np.std(own, ddof=1)) if len(own) > 1 else None for size, own in values.items()}
    if fit is not None:  # the spread between runs is estimated from all sizes together
        spread |= {int(size): float(sd) for size, sd in zip(fit.sizes, fit.seed_sd, strict=True)}
    points = [
        {
            "n_rows": size,
            "value": float(np.mean(own)),
            "stderr": None if (sd := spread[size]) is None else sd / len(own) ** 0.5,
            "n_seeds": len(own),
        }
        for size, own in values.items()
    ]
    if fit is None or enough is None:
        return {"points": points, "enough": None, "notes": ["too few runs to fit a law"]}
    return {"points": points, **describe_fit(fit, enough, settings), "notes": []}


def _build_manifest(
    points: Points, settings: CurveSettings, identity: str, asked: Mapping[str, Any], clock: RunClock
) -> Manifest:
    words = ["thresher", "curve", "--from", points.source]
    if settings.point_columns is not None:
        pairs = parse_point_columns(settings.point_columns)
        words += ["--point-columns", ",".join(f"{role}={name}" for role, name in pairs.items())]
    words += ["--lower-is-better"] if settings.lower_is_better else []
    words += ["--pool-rows", str(settings.pool_rows)] if settings.pool_rows else []
    words += ["--within", str(settings.within)]
    for flag, values in (("--target", settings.targets), ("--more", settings.more)):
        words += [word for value in values for word in (flag, str(value))]
    if settings.out is not None:
        words += ["--out", str(settings.out)]
    return Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": identity,
            "is_complete": True,
            "metric": points.metric,
            "asked": dict(asked),
            "cells": len(points.cells),
            "versions": versions(),
            "run": {**clock.to_json(), "command": shlex.join(words)},
        }
    )
