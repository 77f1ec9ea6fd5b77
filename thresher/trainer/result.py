"""The output folder of `train`: metrics, curves, card and manifest, from the finished runs."""

from __future__ import annotations

import json
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

from thresher.artifacts.folder import MANIFEST, write_atomic, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest, versions
from thresher.evaluation.held_out import classification_metrics, compare, language_metrics
from thresher.trainer.adapter import KIND, METRICS
from thresher.trainer.model_card import model_card, write_loss_csv, write_loss_png
from thresher.trainer.request import PACKAGES, Request
from thresher.trainer.runs import ADAPTER, CONTROL, MAIN, PREDICTIONS, RUNS, Run


def write_result(request: Request, runs: list[Run], work: Path, *, identity: str, facts: dict[str, Any]) -> None:
    """Write the output folder from the finished runs; the manifest last.

    Args:
        request: resolved.
        runs: all of them, the first one is the result.
        work: folder to write into.
        identity: of the work.
        facts: what may differ between two runs of the same work, for the manifest's section `run`.
    """
    first = runs[0]
    for unfinished in work.rglob(".*.tmp*"):  # a file that an earlier call was killed at
        unfinished.unlink()
    copytree(first.folder / ADAPTER, work, dirs_exist_ok=True)
    metrics = _metrics(request, runs)
    _write_run(first, work, metrics["held_out"])
    control = next((run for run in runs if run.role == CONTROL), None)
    if control is not None:
        (work / CONTROL).mkdir(exist_ok=True)
        _write_run(control, work / CONTROL, _held_out_metrics(control))
        write_atomic(work / CONTROL / METRICS, _json({"seed": control.seed, **metrics["control"]}))
    write_atomic(work / METRICS, _json(metrics))
    manifest = _manifest(request, metrics, identity, facts)
    write_atomic(work / "README.md", model_card(metrics, manifest.content, base=request.base).encode())
    rmtree(work / RUNS)
    write_atomic(work / MANIFEST, manifest.to_json())


def _write_run(run: Run, folder: Path, held_out: dict[str, Any] | None) -> None:
    write_loss_csv(folder / "loss.csv", run.history)
    write_loss_png(folder / "loss.png", run.history, None if held_out is None else held_out.get("loss"))
    if run.outcomes is not None:
        write_parquet(run.outcomes, folder / PREDICTIONS)


def _held_out_metrics(run: Run) -> dict[str, Any] | None:
    if run.outcomes is None:
        return None
    return classification_metrics(run.outcomes) if "correct" in run.outcomes.columns else language_metrics(run.outcomes)


def _metrics(request: Request, runs: list[Run]) -> dict[str, Any]:
    """Return the content of `metrics.json`: the same for the same work, so without times."""
    first, parts = runs[0], request.parts
    control = next((run for run in runs if run.role == CONTROL), None)
    return {
        "format": "thresher-metrics/1",
        "task": request.task,
        "model": {"name": request.base.name, "fingerprint": request.base.fingerprint},
        "labels": list(request.labels),
        "seed": first.seed,
        "n_steps": first.history.step,
        "best_step": first.history.best_step,
        "is_stopped_early": first.history.is_stopped,
        "counts": {
            "given": len(request.data),
            "unusable": {role: dict(reasons) for role, reasons in request.unusable.items()},
            "held_out": parts.n_held_out,
            "same_text_as_held_out": parts.n_leaked,
            "train": first.counts,
            "eval": _eval_counts(request, first),
        },
        "held_out": _held_out_metrics(first),
        "control": None if control is None else {"train": control.counts, "held_out": _held_out_metrics(control)},
        "comparison": None if control is None else _comparison(runs),
        "runs": [_run_metrics(run) for run in runs],
        "settings": request.settings.to_json(),
    }


def _eval_counts(request: Request, run: Run) -> dict[str, Any] | None:
    if run.eval_counts is None or run.outcomes is None:
        return None
    counts: dict[str, Any] = dict(run.eval_counts)
    if request.task == "classification":
        counts["rows_of_unknown_label"] = int((~run.outcomes["label"].is_in(list(request.labels))).sum())
    return counts


def _run_metrics(run: Run) -> dict[str, Any]:
    held_out = _held_out_metrics(run)
    if held_out is not None:
        held_out.pop("classes", None)
    return {
        "role": run.role,
        "seed": run.seed,
        "n_steps": run.history.step,
        "rows": run.counts["rows"],
        "held_out": held_out,
    }


def _comparison(runs: list[Run]) -> dict[str, Any]:
    sides = {
        role: [run.outcomes for run in runs if run.role == role and run.outcomes is not None]
        for role in (MAIN, CONTROL)
    }
    found = compare(sides[MAIN], sides[CONTROL])
    return {
        "metric": found.metric,
        "is_higher_better": found.is_higher_better,
        "seeds": [run.seed for run in runs if run.role == MAIN],
        "subset": found.ours.to_json(),
        "random": found.theirs.to_json(),
        "difference": found.difference.to_json(),
    }


def _manifest(request: Request, metrics: dict[str, Any], identity: str, facts: dict[str, Any]) -> Manifest:
    asked, parts = request.identity(), request.parts
    held_out = {k: v for k, v in (metrics["held_out"] or {}).items() if k != "classes"}
    return Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": identity,
            "data": {
                "fingerprint": request.data.fingerprint,
                "rows": len(request.data),
                "manifest_hash": request.subset_hash,
                "train": asked["train"],
            },
            "eval": None if parts.held_out is None else {"fingerprint": asked["held_out"], "rows": len(parts.held_out)},
            "control": None if parts.control is None else {"fingerprint": asked["control"], "rows": len(parts.control)},
            "model": asked["model"],
            "task": request.task,
            "settings": request.settings.to_json(),
            "seeds": list(request.seeds),
            "versions": versions(PACKAGES),
            "metrics": {"held_out": held_out, "comparison": metrics["comparison"]},
            "run": facts,
        }
    )


def _json(content: dict[str, Any]) -> bytes:
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False).encode() + b"\n"
