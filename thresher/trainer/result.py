"""The output folder of `train`: metrics, curves, card and manifest, from the finished runs."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.artifacts.folder import MANIFEST, copy_folder, write_atomic, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest, versions
from thresher.artifacts.seal import encode_record
from thresher.dataset.provenance import describe_sides
from thresher.evaluation.classification import count_unknown_labels
from thresher.evaluation.forgetting import estimate_forgetting
from thresher.evaluation.held_out import compare
from thresher.trainer.adapter import KIND, METRICS
from thresher.trainer.context import PACKAGES, RunContext
from thresher.trainer.deployment.serving import list_servings
from thresher.trainer.engine.row_choice.skipping import describe_skipping
from thresher.trainer.model_card import format_model_card, write_loss_csv, write_loss_png
from thresher.trainer.runs import ADAPTER, CONTROL, MAIN, PREDICTIONS, SKIPPED, FinishedRun
from thresher.trainer.untouched.forgetting import build_general_table, describe_forgetting
from thresher.trainer.untouched.measure import UntouchedOutcomes
from thresher.trainer.untouched.probe import extract_probe, predict_majority
from thresher.trainer.untouched.scale import describe_no_gain
from thresher.trainer.untouched.summary import MAJORITY, PROBE, START, Reference, describe_base, name_shots

GENERAL = "predictions_general.parquet"
BASE = "predictions_base"  # of the untouched language model


def write_result(
    context: RunContext,
    runs: list[FinishedRun],
    untouched: UntouchedOutcomes,
    work: Path,
    *,
    identity: str,
    facts: dict[str, Any],
) -> None:
    """Write the output folder from the finished runs; the manifest last.

    Args:
        context: of the call.
        runs: all of them, the first one is the result.
        untouched: what the untouched model does.
        work: folder to write into.
        identity: hash of what determines the result.
        facts: what may differ between two runs of the same work, for the manifest's section `run`.
    """
    first = runs[0]
    copy_folder(first.folder / ADAPTER, work)
    metrics = _build_metrics(context, runs, untouched, _write_general(context, runs, untouched, work))
    for each in untouched.base:
        name = f"{BASE}_{each.shots}_shots.parquet" if each.shots else f"{BASE}.parquet"
        write_parquet(each.outcomes, work / name)
    _write_run(first, work)
    control = _find_control(runs)
    if control is not None:
        (work / CONTROL).mkdir(exist_ok=True)
        _write_run(control, work / CONTROL)
        write_atomic(work / CONTROL / METRICS, encode_record({"seed": control.seed, **metrics["control"]}))
    write_atomic(work / METRICS, encode_record(metrics))
    manifest = _build_manifest(context, metrics, identity, facts)
    servings = list_servings(work, context.task, "path/to/this/folder")
    card = format_model_card(metrics, manifest.content, base=context.base, servings=servings)
    write_atomic(work / "README.md", card.encode())
    write_atomic(work / MANIFEST, manifest.to_json())


def _find_control(runs: list[FinishedRun]) -> FinishedRun | None:
    return next((run for run in runs if run.role == CONTROL), None)


def _write_run(run: FinishedRun, folder: Path) -> None:
    write_loss_csv(folder / "loss.csv", run.history)
    write_loss_png(folder / "loss.png", run.history, (run.held_out or {}).get("loss"))
    if run.outcomes is not None:
        write_parquet(run.outcomes, folder / PREDICTIONS)
    if run.skipped is not None:
        write_parquet(run.skipped, folder / SKIPPED)


def _build_metrics(
    context: RunContext, runs: list[FinishedRun], untouched: UntouchedOutcomes, general: dict[str, Any] | None
) -> dict[str, Any]:
    """Return the content of `metrics.json`: the same for the same work, so without times."""
    first, split, control = runs[0], context.split, _find_control(runs)
    scale = _build_scale(context, first)
    return {
        "format": "thresher-metrics/1",
        "task": context.task,
        "model": {"name": context.base.name, "fingerprint": context.base.fingerprint},
        "labels": list(context.labels),
        **({"learner": context.describe_learner()} if context.task == "classification" else {}),
        "seed": first.seed,
        "n_steps": first.history.step,
        "best_step": first.history.best_step,
        "is_stopped_early": first.history.is_stopped,
        "counts": {
            "given": len(context.data),
            "unusable": {role: dict(reasons) for role, reasons in context.unusable.items()},
            "held_out": split.n_held_out,
            "same_text_as_held_out": split.n_leaked,
            "train": first.counts,
            "eval": _count_eval_rows(context, first),
        },
        "held_out": first.held_out,
        "base": _build_base(context, runs, untouched, scale),
        "general": general,
        "scale": scale,
        **({} if first.diagnosis is None else {"diagnosis": first.diagnosis}),
        **({} if first.skipped is None else {"skipping": describe_skipping(first.skipped, context.settings)}),
        "control": None if control is None else _describe_control(context, control),
        "comparison": None if control is None else _build_comparison(runs),
        "runs": [_build_run_metrics(run) for run in runs],
        "settings": context.settings.to_json(),
    }


def _describe_control(context: RunContext, control: FinishedRun) -> dict[str, Any]:
    """Return the numbers of the control; `is_same`: of the same rows, each learned alike."""
    same = {"is_same": True} if context.split.is_control_same else {}
    return {"train": control.counts, "held_out": control.held_out, **same}


def _build_base(
    context: RunContext, runs: list[FinishedRun], untouched: UntouchedOutcomes, scale: dict[str, Any] | None
) -> dict[str, Any] | None:
    """Return the references: those of a classifier, or the untouched language model."""
    if not context.untouched.prompts:
        return None
    ours = [run.outcomes for run in runs if run.role == MAIN and run.outcomes is not None]
    references = [
        Reference(name_shots(each.shots), [each.outcomes] * len(ours), each.shots, each.mean_shots)
        for each in untouched.base
    ]
    if untouched.start is not None:
        references.append(Reference(START, [untouched.start] * len(ours)))
    if context.task == "classification" and ours:
        majority = predict_majority(ours[0], context.split.train.frame["response"].to_list())
        references.append(Reference(MAJORITY, [majority] * len(ours)))
        probes = [probe for table in ours if (probe := extract_probe(table)) is not None]
        references += [Reference(PROBE, probes)] if len(probes) == len(ours) else []
    section, no_gain = describe_base(ours, references, context.task), describe_no_gain(scale)
    return section if section is None or no_gain is None else {**section, "sentence": no_gain}


def _build_scale(context: RunContext, run: FinishedRun) -> dict[str, Any] | None:
    if run.front is None:
        return None
    untouched = context.untouched
    return {**run.front, "is_chosen": untouched.scale == "auto", "allowed": untouched.forget}


def _write_general(
    context: RunContext, runs: list[FinishedRun], untouched: UntouchedOutcomes, work: Path
) -> dict[str, Any] | None:
    """Write both sides of the rows that are not of the task; return what was lost on them."""
    before, general = untouched.on_general, untouched.general
    after = [run.general for run in runs if run.role == MAIN and run.general is not None]
    if general is None or before is None or not after:
        return None
    write_parquet(build_general_table(before, after[0]), work / GENERAL)
    control = [run.general for run in runs if run.role == CONTROL and run.general is not None]
    lost = estimate_forgetting([each.losses for each in control], before.losses) if control else None
    section = describe_forgetting(context, general, before, after)
    return {**section, "control_lost": None if lost is None else lost.to_json()}


def _count_eval_rows(context: RunContext, run: FinishedRun) -> dict[str, Any] | None:
    if run.eval_counts is None or run.outcomes is None:
        return None
    counts: dict[str, Any] = dict(run.eval_counts)
    if context.task == "classification":
        unknown = count_unknown_labels(run.outcomes["label"], context.labels)
        counts["rows_of_unknown_label"] = sum(unknown.values())
        counts["unknown_labels"] = unknown
    return counts


def _build_run_metrics(run: FinishedRun) -> dict[str, Any]:
    return {
        "role": run.role,
        "seed": run.seed,
        "n_steps": run.history.step,
        "rows": run.counts["rows"],
        "held_out": None if run.held_out is None else _without_classes(run.held_out),
    }


def _without_classes(held_out: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in held_out.items() if name != "classes"}


def _build_comparison(runs: list[FinishedRun]) -> dict[str, Any]:
    sides = {
        role: [run.outcomes for run in runs if run.role == role and run.outcomes is not None]
        for role in (MAIN, CONTROL)
    }
    comparison = compare(sides[MAIN], sides[CONTROL])
    return {
        "metric": comparison.metric,
        "is_higher_better": comparison.is_higher_better,
        "seeds": [run.seed for run in runs if run.role == MAIN],
        "subset": comparison.ours.to_json(),
        "random": comparison.theirs.to_json(),
        "difference": comparison.difference.to_json(),
        "gain": None if comparison.gain is None else comparison.gain.to_json(),
    }


def _build_manifest(context: RunContext, metrics: dict[str, Any], identity: str, facts: dict[str, Any]) -> Manifest:
    parts, split = context.identity(), context.split
    return Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": identity,
            "data": {
                "fingerprint": context.data.fingerprint,
                "rows": len(context.data),
                "manifest_hash": context.subset_hash,
                "train": parts["train"],
                **({"left_out": list(split.leaked)} if split.leaked else {}),
            },
            "eval": None if split.held_out is None else {"fingerprint": parts["held_out"], "rows": len(split.held_out)},
            "control": None if split.control is None else {"fingerprint": parts["control"], "rows": len(split.control)},
            "reading": describe_sides({"data": context.data, "eval": split.held_out, "control": split.control}),
            "model": parts["model"],
            **({"start": parts["start"]} if context.start is not None else {}),
            "task": context.task,
            "settings": context.settings.to_json(),
            "untouched": context.untouched.list_changed(),
            "seeds": list(context.seeds),
            "versions": versions(PACKAGES),
            "metrics": {"held_out": _without_classes(metrics["held_out"] or {}), "comparison": metrics["comparison"]},
            "run": facts,
        }
    )
