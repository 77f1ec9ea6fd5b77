"""The runs behind one call of `train`: each role and seed trains, is measured, and is kept until all are done."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import copytree, rmtree
from typing import Any

import numpy as np
import polars as pl

from thresher.dataset import Dataset
from thresher.evaluation.held_out import classification_metrics, compare, language_metrics
from thresher.evaluation.outcomes import Judge, classification_outcomes, language_outcomes
from thresher.manifest import FORMAT, Manifest, versions
from thresher.output import MANIFEST, write_whole
from thresher.trainer.adapter import KIND, METRICS
from thresher.trainer.base import load_tokenizer
from thresher.trainer.chat import prepare_template, render_prompt
from thresher.trainer.checkpoint import History
from thresher.trainer.events import OnEvent, TrainEvent
from thresher.trainer.examples import Examples, require_rows, tokenize
from thresher.trainer.fit import Fitted, Recipe, count_steps, fit
from thresher.trainer.loop import HeldOutLoss
from thresher.trainer.lora import save_adapter
from thresher.trainer.processes import gather, share
from thresher.trainer.report import model_card, write_loss_csv, write_loss_png
from thresher.trainer.request import PACKAGES, Request
from thresher.trainer.split import draw

MAIN, CONTROL = "main", "control"
PREDICTIONS, DONE, ADAPTER = "predictions.parquet", "done.json", "adapter"
RUNS = ".runs"  # in the work folder, until the result is written


@dataclass(frozen=True, kw_only=True)
class Run:
    """One finished run.

    Attributes:
        role: "main" for the given rows, "control" for random ones.
        seed: of the run.
        folder: where its files wait for the result to be written.
        history: of the training.
        counts: of the rows it learned from.
        outcomes: one row per held-out row, or None without held-out rows.
    """

    role: str
    seed: int
    folder: Path
    history: History
    counts: dict[str, Any]
    outcomes: pl.DataFrame | None


@dataclass(frozen=True, kw_only=True)
class HeldOut:
    """Held-out rows, tokenised once for all runs."""

    rows: Dataset
    examples: Examples
    prompts: list[list[int]]


def run_all(request: Request, work: Path, accelerator: Any, on_event: OnEvent) -> list[Run]:
    """Train and measure every role and seed; runs that an earlier, killed call finished are read back.

    Args:
        request: resolved.
        work: folder that survives a kill.
        accelerator: of accelerate.
        on_event: listener; only the main process calls it.

    Raises:
        InputError: no row is usable.
    """
    tokenizer = load_tokenizer(request.base)
    if request.task == "sft":
        prepare_template(tokenizer)
    learn = partial(_tokenize, request, tokenizer)
    examples = learn(request.parts.train)
    require_rows(examples, "train")
    recipe = Recipe(
        base=request.base,
        tokenizer=tokenizer,
        task=request.task,
        settings=request.settings,
        classes=request.labels,
        n_steps=count_steps(len(examples), request.settings),
    )
    held_out = None if request.parts.held_out is None else _prepare(request, tokenizer)
    judge = Judge(
        tokenizer=tokenizer,
        device=accelerator.device,
        share=partial(share, accelerator=accelerator),
        gather=partial(gather, accelerator=accelerator),
    )
    runs = []
    for seed in request.seeds:
        runs.append(_run(recipe, examples, MAIN, seed, held_out, judge, request, work, accelerator, on_event))
        if request.parts.control is not None:
            drawn = learn(draw(request.parts.control, len(examples), seed=seed))
            require_rows(drawn, "control")
            runs.append(_run(recipe, drawn, CONTROL, seed, held_out, judge, request, work, accelerator, on_event))
    return runs


def _tokenize(request: Request, tokenizer: Any, rows: Dataset, labels: Sequence[str] | None = None) -> Examples:
    return tokenize(
        rows,
        tokenizer,
        task=request.task,
        max_length=int(request.settings.max_length or 0),
        loss_on=request.settings.loss_on,
        classes=request.labels if labels is None else labels,
    )


def _prepare(request: Request, tokenizer: Any) -> HeldOut:
    """Tokenise the held-out rows; labels the model does not know get codes beyond its classes, and count as wrong."""
    rows = request.parts.held_out
    if rows is None:
        raise AssertionError("called only with held-out rows")
    unknown = set(rows.frame["response"].unique()) - set(request.labels) if request.task == "classification" else set()
    examples = _tokenize(request, tokenizer, rows, [*request.labels, *sorted(unknown)])
    require_rows(examples, "eval")
    prompts: list[list[int]] = []
    if request.task == "sft" and request.settings.eval_generations:
        first = examples.position[: request.settings.eval_generations]
        texts = [render_prompt(tokenizer, talk.messages, talk.tools) for talk in rows.messages(first)]
        encoded = tokenizer(texts, add_special_tokens=False, verbose=False)["input_ids"]
        room = (request.base.max_positions or 1 << 30) - request.settings.max_new_tokens
        prompts = [ids[-max(1, room) :] for ids in encoded]
    return HeldOut(rows=rows, examples=examples, prompts=prompts)


def _run(
    recipe: Recipe,
    examples: Examples,
    role: str,
    seed: int,
    held_out: HeldOut | None,
    judge: Judge,
    request: Request,
    work: Path,
    accelerator: Any,
    on_event: OnEvent,
) -> Run:
    folder = work / RUNS / f"{role}-{seed}"
    is_done = (folder / DONE).is_file()
    accelerator.wait_for_everyone()
    if not is_done:
        fitted = fit(
            recipe,
            examples.rows,
            seed=seed,
            accelerator=accelerator,
            folder=folder,
            run=f"{role}/seed-{seed}",
            evaluate=None if held_out is None else partial(_held_out_loss, judge, held_out, request, accelerator),
            on_event=on_event,
        )
        outcomes = None if held_out is None else _measure(judge, held_out, request, fitted.model)
        if accelerator.is_main_process:
            is_result = role == MAIN and seed == request.seeds[0]
            _keep(folder, fitted, outcomes, recipe, is_result=is_result, is_merged=request.is_merged)
            on_event(
                TrainEvent(kind="done", run=f"{role}/seed-{seed}", step=fitted.history.step, n_steps=recipe.n_steps)
            )
        accelerator.wait_for_everyone()
    kept = folder / PREDICTIONS
    return Run(
        role=role,
        seed=seed,
        folder=folder,
        history=History(**json.loads((folder / DONE).read_bytes())),
        counts=examples.counts(),
        outcomes=pl.read_parquet(kept) if kept.is_file() else None,
    )


def _held_out_loss(judge: Judge, held_out: HeldOut, request: Request, accelerator: Any, model: Any) -> HeldOutLoss:
    """Return the held-out loss of a model in training, equal on all processes."""
    from thresher.evaluation.estimate import mean, ratio

    bare = accelerator.unwrap_model(model)
    if request.task == "classification":
        losses = np.array([loss for _, _, loss in judge.classes(bare, held_out.examples.rows)])
        found = mean(losses[~np.isnan(losses)])
    else:
        pairs = judge.losses(bare, held_out.examples.rows)
        found = ratio([total for total, _ in pairs], [count for _, count in pairs])
    return HeldOutLoss(found.value, found.stderr, found.n)


def _measure(judge: Judge, held_out: HeldOut, request: Request, model: Any) -> pl.DataFrame:
    usable = held_out.rows.frame[held_out.examples.position]
    row_id, response = usable["row_id"].to_list(), usable["response"].to_list()
    if request.task == "classification":
        return classification_outcomes(
            judge, model, held_out.examples.rows, row_id=row_id, truth=response, classes=request.labels
        )
    return language_outcomes(
        judge,
        model,
        held_out.examples.rows,
        row_id=row_id,
        references=response,
        prompts=held_out.prompts,
        max_new_tokens=request.settings.max_new_tokens,
    )


def _keep(
    folder: Path, fitted: Fitted, outcomes: pl.DataFrame | None, recipe: Recipe, *, is_result: bool, is_merged: bool
) -> None:
    """Write what a run leaves, the mark that it is done last, and delete its checkpoints."""
    folder.mkdir(parents=True, exist_ok=True)
    if outcomes is not None:
        outcomes.write_parquet(folder / PREDICTIONS)
    if is_result:
        rmtree(folder / ADAPTER, ignore_errors=True)
        save_adapter(fitted.model, folder / ADAPTER)
        recipe.tokenizer.save_pretrained(folder / ADAPTER)
        if is_merged:
            merged = fitted.model.merge_and_unload()
            merged.save_pretrained(folder / ADAPTER / "merged")
            recipe.tokenizer.save_pretrained(folder / ADAPTER / "merged")
    write_whole(folder / DONE, json.dumps(vars(fitted.history)).encode())
    for path in folder.glob("*.safetensors"):
        path.unlink()


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
    copytree(first.folder / ADAPTER, work, dirs_exist_ok=True)
    metrics = _metrics(request, runs)
    _write_run(first, work, metrics["held_out"])
    control = next((run for run in runs if run.role == CONTROL), None)
    if control is not None:
        (work / CONTROL).mkdir(exist_ok=True)
        _write_run(control, work / CONTROL, _held_out_metrics(control))
        write_whole(work / CONTROL / METRICS, _json({"seed": control.seed, **metrics["control"]}))
    write_whole(work / METRICS, _json(metrics))
    manifest = _manifest(request, metrics, identity, facts)
    write_whole(work / "README.md", model_card(metrics, manifest.content).encode())
    rmtree(work / RUNS)
    write_whole(work / MANIFEST, manifest.to_json())


def _write_run(run: Run, folder: Path, held_out: dict[str, Any] | None) -> None:
    write_loss_csv(folder / "loss.csv", run.history)
    write_loss_png(folder / "loss.png", run.history, None if held_out is None else held_out.get("loss"))
    if run.outcomes is not None:
        run.outcomes.write_parquet(folder / PREDICTIONS)


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
    held_out = request.parts.held_out
    if held_out is None or run.outcomes is None:
        return None
    counts = {"rows": len(run.outcomes), "rows_left_out": len(held_out) - len(run.outcomes)}
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
