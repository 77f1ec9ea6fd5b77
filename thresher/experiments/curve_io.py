"""The folder of a learning curve: written whole, and read back."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic, write_csv
from thresher.artifacts.manifest import Manifest
from thresher.artifacts.safe_csv import escape_formulas
from thresher.evaluation.saturation import CurveFit, Saturation
from thresher.experiments.runner import ExperimentRunner
from thresher.experiments.tables import (
    CELL_SCHEMA,
    cell_table,
    experiment_manifest,
    identity,
    slice_table,
    write_tables,
)

if TYPE_CHECKING:
    from thresher.experiments.curve import CurveProgress, LearningCurve

KIND = "curve"
CURVE, SATURATION = "curve.csv", "saturation.json"
BAND_SIZES = 60  # points of the drawn band
BEYOND = 4  # it reaches so many times beyond the largest measured size


def write_curve(
    runner: ExperimentRunner,
    asked: Mapping[str, Any],
    run: Callable[[], CurveProgress],
    *,
    out: str | Path | None,
    force: bool,
    slices: Sequence[str],
) -> LearningCurve:
    """Run a plan and write its folder, or read back the one that is there.

    Args:
        runner: to run in.
        asked: what the curve asks for, as JSON values.
        run: runs the plan.
        out: folder, or None for none.
        force: replace an earlier result.
        slices: columns of the test set.
    """
    started, began = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    named = identity(runner, dict(asked))
    with ExitStack() as stack:
        folder = None if out is None else stack.enter_context(OutputFolder(out, identity=named, force=force))
        if folder is not None and folder.is_done:
            return read_curve(folder.path)
        state = run()
        content = saturation_content(runner, state)
        manifest = experiment_manifest(runner, KIND, named, asked, began=began, started=started)
        cells = cell_table(runner)
        if folder is None:
            return _as_curve(cells, content, _fits(runner, state), manifest, None)
        work = folder.work
        write_tables(runner, work, CURVE)
        write_csv(escape_formulas(slice_table(runner, slices)), work / "slices.csv")
        write_atomic(work / SATURATION, _json(content))
        write_atomic(work / MANIFEST, manifest.to_json())
        folder.publish()
        return read_curve(folder.path)


def read_curve(path: str | Path) -> LearningCurve:
    """Read a curve's folder; its laws are fitted again, which gives the same draws.

    Raises:
        ManifestError: the folder is not one that `curve` wrote.
    """
    from thresher.errors import ManifestError
    from thresher.experiments.curve import fit_runs

    folder = Path(path)
    manifest = Manifest.read(folder)
    if manifest.content.get("kind") != KIND:
        raise ManifestError(f"{folder}: must be a learning curve, found '{manifest.content.get('kind')}'")
    content = json.loads((folder / SATURATION).read_bytes())
    cells = pl.read_csv(folder / CURVE, schema_overrides=CELL_SCHEMA)
    runs = {(m, n, s): v for m, n, s, v in cells.select("method", "n_rows", "seed", "value").iter_rows()}
    fits = {
        name: fit_runs(
            runs, name, is_higher_better=content["is_higher_better"], test_stderr=entry.get("test_stderr", 0.0)
        )
        for name, entry in content["methods"].items()
    }
    return _as_curve(cells, content, {k: v for k, v in fits.items() if v is not None}, manifest, folder)


def saturation_content(runner: ExperimentRunner, state: CurveProgress) -> dict[str, Any]:
    """Return the content of `saturation.json`: nothing in it depends on the clock."""
    from thresher.experiments.curve import BASELINE, compute_delta

    plan = state.plan
    delta, fits, n_pool = compute_delta(plan, runner, state), _fits(runner, state), len(runner.experiment.pool)
    return {
        "metric": runner.experiment.metric.name,
        "is_higher_better": runner.experiment.metric.is_higher_better,
        "delta": delta,
        "pool": n_pool,
        "stopped": state.stopped,
        "cost_share": round(state.cost / state.full_cost, 4),
        "methods": {method: _method_content(runner, state, method, fits.get(method), delta) for method in plan.methods},
        "trade": _trades(fits, BASELINE, {method: state.points(method) for method in fits}),
    }


def _method_content(
    runner: ExperimentRunner, state: CurveProgress, method: str, fit: CurveFit | None, delta: float
) -> dict[str, Any]:
    points = [
        {"n_rows": size, "value": float(np.mean(values)), "stderr": runner.stderr(method, size), "n_seeds": len(values)}
        for size, values in state.points(method).items()
    ]
    if fit is None:
        return {"points": points, "saturation": None, "notes": ["too few runs to fit a law"]}
    last = float(fit.sizes[-1])
    found = fit.saturation(delta=delta, pool=len(runner.experiment.pool))
    sizes = np.unique(np.geomspace(fit.sizes[0], last * BEYOND, BAND_SIZES).round())
    return {
        "points": points,
        "saturation": found.to_json(),
        "asymptote": fit.asymptote().to_json(),
        "laws": {law: round(weight, 6) for law, weight in fit.weights.items()},
        "misfit": fit.misfit,
        "seed_sd": fit.seed_sd,
        "test_stderr": fit.test_stderr,
        "band": [{"n_rows": int(size), **fit.predict(float(size)).to_json()} for size in sizes],
        "gain_of_doubling": [{"n_rows": int(size), **fit.gain(size, size).to_json()} for size in fit.sizes],
        "targets": _targets(state, fit),
        "gains": [{"from": int(last), "more": more, **fit.gain(last, more).to_json()} for more in state.plan.more],
        "notes": [*dips(runner, method, list(state.points(method))), *limits(fit, found)],
    }


def _targets(state: CurveProgress, fit: CurveFit) -> list[dict[str, Any]]:
    return [{"target": target, **fit.rows_needed(target).to_json()} for target in state.plan.targets]


def dips(runner: ExperimentRunner, method: str, sizes: Sequence[int]) -> list[str]:
    """Say where more rows made the metric worse, by more than chance: after Holm's correction for all steps."""
    from thresher.evaluation.effect import LEVEL, adjust_p_values, estimate_effect

    metric = runner.experiment.metric
    if metric.column is None:
        return []
    found = []
    for small, large in zip(sizes, sizes[1:], strict=False):
        seeds = [
            s for m, n, s in sorted(runner.outcomes) if (m, n) == (method, small) and (m, large, s) in runner.outcomes
        ]
        pairs = [
            (runner.outcomes[method, small, s].outcomes, runner.outcomes[method, large, s].outcomes) for s in seeds
        ]
        done = [(before, after) for before, after in pairs if before is not None and after is not None]
        if len(done) < 2:  # one pair says nothing of the spread between seeds
            continue
        before, after = (np.stack([metric.per_row(table) for table in side]) for side in zip(*done, strict=True))
        weights = metric.weights(done[0][0])
        found.append((small, large, estimate_effect(after, before, weights, is_higher_better=metric.is_higher_better)))
    adjusted = adjust_p_values([change.p for _, _, change in found])
    return [
        f"from {small:,} to {large:,} rows the {metric.name} gets worse by {-change.value:.4f} ± {change.stderr:.4f}"
        for (small, large, change), p in zip(found, adjusted, strict=True)
        if change.value < 0 and p < LEVEL
    ]


def limits(fit: CurveFit, saturation: Saturation) -> list[str]:
    """Say where an answer is one of the measured sizes or of the noise, rather than of the rows."""
    first, last, delta = int(fit.sizes[0]), int(fit.sizes[-1]), saturation.delta
    notes = []
    if saturation.high is not None and saturation.high <= first:
        notes.append(
            f"doubling gains less than {delta:.2g} already at {first:,} rows, the smallest size: fewer rows may do as "
            f"well, or more rows hardly help this model"
        )
    noise = fit.misfit * float(fit.stderr[-1])
    if noise > delta:
        notes.append(
            f"the mean at {last:,} rows is known to {noise:.2g} (spread between seeds) and a doubling shall gain "
            f"{delta:.2g}: more seeds or a larger delta give a surer answer"
        )
    return notes


def _trades(
    fits: Mapping[str, CurveFit], baseline: str, points: Mapping[str, Mapping[int, Any]]
) -> list[dict[str, Any]]:
    """Return how many random rows are as good as so many chosen ones: choosing better against labelling more."""
    base = fits.get(baseline)
    if base is None:
        return []
    found = []
    for method, fit in fits.items():
        for size in points[method] if method != baseline else ():
            rows = base.equivalent_rows(fit, size)
            found.append({"method": method, "n_rows": size, "baseline": baseline, "baseline_rows": rows.to_json()})
    return found


def _fits(runner: ExperimentRunner, state: CurveProgress) -> dict[str, CurveFit]:
    higher, found = runner.experiment.metric.is_higher_better, {}
    for method in state.plan.methods:
        sizes = list(state.points(method))
        noise = runner.test_stderr(method, sizes[-1]) if sizes else 0.0
        fit = state.fit(method, is_higher_better=higher, test_stderr=noise)
        if fit is not None:
            found[method] = fit
    return found


def _as_curve(
    cells: pl.DataFrame, content: Mapping[str, Any], fits: Mapping[str, CurveFit], manifest: Manifest, path: Path | None
) -> LearningCurve:
    from thresher.experiments.curve import LearningCurve

    saturation = {
        method: Saturation(**{**entry["saturation"], "next_sizes": tuple(entry["saturation"]["next_sizes"])})
        for method, entry in content["methods"].items()
        if entry["saturation"] is not None
    }
    return LearningCurve(
        cells=cells,
        fits=fits,
        saturation=saturation,
        content=content,
        path=path,
        manifest=manifest,
    )


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
