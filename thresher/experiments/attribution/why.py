"""`why`: which training rows a wrong answer came from, with the proof by training without them.

OUT/rows.parquet   each training row with its score and rank
OUT/why.json       the answer, the suspects, and the proof
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from shutil import rmtree
from typing import Any, Unpack

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.result import Excerpt, Result
from thresher.artifacts.seal import encode_record
from thresher.artifacts.stored import read_table
from thresher.dataset import Dataset, load
from thresher.errors import InputError, SettingsError
from thresher.experiments.attribution.proof import Proof, measure_answer, prove
from thresher.experiments.attribution.row_influence import GradientSketcher, score_rows
from thresher.experiments.attribution.settings import WhyOptions, WhySettings
from thresher.experiments.result_folder import RunClock, read_result
from thresher.numeric.arrays import Float64, Int64
from thresher.numeric.units import format_count
from thresher.progress import OnProgress, Progress
from thresher.trainer.adapter import Adapter
from thresher.trainer.context import PACKAGES, RunContext, content_hash, load_rows, resolve_run
from thresher.trainer.engine.adapters.kinds import LOW_RANK
from thresher.trainer.engine.fit import load_trained_model
from thresher.trainer.engine.tokenization import Examples
from thresher.trainer.estimate import PlannedRuns, TrainingPlan, measure_run
from thresher.trainer.held_out import HeldOut, prepare_held_out
from thresher.trainer.runs import tokenize_rows
from thresher.trainer.settings import TrainSettings
from thresher.trainer.split import split_rows
from thresher.validation import build_settings, document_options

KIND, RESULT, ROWS, WORK = "why", "why.json", "rows.parquet", ".proof"
RECIPE = "why-3"  # raise it when the same question would be answered otherwise
SHOWN = 10


@dataclass(frozen=True, kw_only=True, repr=False)
class Explanation(Result):
    """Which training rows led to an answer.

    Attributes:
        rows: `row_id`, `prompt`, `response`, `score` and `rank`, the suspects first.
        content: of `why.json`.
        path: of the folder, or None.
        manifest: what ran.
    """

    rows: pl.DataFrame
    content: Mapping[str, Any]
    path: Path | None
    manifest: Manifest

    def list_facts(self) -> list[tuple[str, str]]:
        """Return the question, the answer and the proof."""
        content = self.content
        facts = [("question", content["question"]), ("answer", content["answer"])]
        return [
            *facts,
            ("suspects", f"{content['n_suspects']:,} of {len(self.rows):,} rows"),
            ("proof", content["verdict"]),
        ]

    def list_excerpts(self) -> list[Excerpt]:
        """Return the suspects."""
        shown = self.rows.head(self.content["n_suspects"]).select("score", "prompt", "response")
        return [Excerpt("Suspects", shown.columns, [list(row) for row in shown.iter_rows()])]


@document_options(WhySettings)
def why(
    adapter: str | Path,
    question: str,
    *,
    data: Any,
    on_progress: OnProgress | None = None,
    **options: Unpack[WhyOptions],
) -> Explanation:
    """Find the training rows that led to an adapter's answer, and test it by retraining.

    Rows are ranked by the cosine of their gradient with that of the answer. The proof trains again
    without the first ones, without as many random rows, and without other random rows, from the
    same seeds: the suspects made the answer if it becomes less likely without them than without
    random rows.

    Args:
        adapter: folder that `train` wrote.
        question: as the adapter is asked: an instruction, or the text to classify.
        data: the rows that it was trained on (anything `load` accepts).
        on_progress: called with a Progress as rows are read and trainings end.
        options: fields of `WhySettings`.

    Raises:
        InputError: these are not the rows that the adapter was trained on.
        SettingsError: its kind has no low-rank matrices.
        ManifestError: the folder is not one that `train` wrote.
        OutputError: `out` holds something else.
    """
    settings = build_settings(WhySettings, "why", options)
    if not question.strip():
        raise InputError("why: the question must hold a word, found none; give the one that the adapter was asked")
    trained = Adapter.read(adapter)
    rows = load_rows(data)
    context = _resolve(trained, rows, settings.device)
    about = {"recipe": RECIPE, "why": _list_settings(settings), "question": question, "adapter": trained.manifest.hash}
    identity = digest({**about, "run": context.identity()})
    call = _Call(
        context=context,
        trained=trained,
        question=question,
        settings=settings,
        work=Path(),
        identity=identity,
        report=on_progress or (lambda progress: None),
    )
    if settings.out is None:
        with tempfile.TemporaryDirectory() as temporary:
            return _explain(replace(call, work=Path(temporary)), None)
    with OutputFolder(settings.out, identity=identity, force=settings.force) as folder:
        if not folder.is_done:
            found = _explain(replace(call, work=folder.work), folder.path)
            write_parquet(found.rows, folder.work / ROWS)
            write_atomic(folder.work / RESULT, encode_record(found.content))
            write_atomic(folder.work / MANIFEST, found.manifest.to_json())
            rmtree(folder.work / WORK, ignore_errors=True)
            folder.publish()
        return read_explanation(folder.path)


def plan_why(adapter: str | Path, question: str, *, data: Any, **options: Unpack[WhyOptions]) -> TrainingPlan:
    """Estimate what `why` with the same arguments will take; nothing is written.

    Args:
        adapter: as for `why`.
        question: as for `why`; it is not read.
        data: as for `why`.
        options: fields of `WhySettings`.
    """
    del question
    settings = build_settings(WhySettings, "why", options)
    context = _resolve(Adapter.read(adapter), load_rows(data), settings.device)
    n, cost = len(context.split.train), measure_run(context)
    # the gradient of a row takes about what a step takes for each of its rows
    reading = n * cost.step_seconds / int(context.settings.batch_size or 1)
    parts = [PlannedRuns(name=f"gradients of {n:,} rows", n=0, seconds=cost.start_seconds + reading, tokens=0)]
    if settings.proofs:
        seconds, tokens = cost.estimate(n, context.settings, 0)
        n_runs = 3 * settings.proofs
        parts.append(PlannedRuns(name="proof", n=n_runs, seconds=n_runs * seconds, tokens=n_runs * tokens))
    note = "runs that a killed call has finished cost nothing"
    return TrainingPlan(parts=tuple(parts), n_workers=1, memory_bytes=cost.memory_bytes, note=note)


def read_explanation(path: str | Path) -> Explanation:
    """Read the folder of `why`.

    Raises:
        ManifestError: the folder is not one that `why` wrote.
    """
    folder = Path(path)
    manifest, content = read_result(folder, KIND, "an explanation", RESULT)
    return Explanation(rows=read_table(folder / ROWS), content=content, path=folder, manifest=manifest)


def _resolve(trained: Adapter, rows: Dataset, device: str | None) -> RunContext:
    """Return the adapter's training again, on all of its rows."""
    metrics = trained.metrics
    kind = metrics["settings"].get("adapter", "lora")
    if kind not in LOW_RANK or kind == "adalora":
        raise SettingsError(
            f"why: gradients are compared in low-rank matrices, got an adapter of kind '{kind}'; train one with "
            f"--adapter lora"
        )
    if metrics["task"] == "text":
        raise SettingsError("why: explains answers to questions, got an adapter that was trained on plain texts")
    if "start" in trained.manifest.content:
        raise SettingsError(
            f"why: retrains without some rows, which does not explain an adapter that continues another one, as "
            f"{trained.path} does; train it without --from"
        )
    rows = find_learned_rows(trained, rows)
    stored = {**metrics["settings"], "epochs": None, "min_steps": None, "max_steps": metrics["n_steps"]}
    stored |= {"early_stopping_patience": None, "eval_every": None, "stop_at": 1.0}
    return resolve_run(
        rows,
        model=metrics["model"]["name"] if metrics["task"] != "classification" else name_classifier(metrics),
        settings=replace(TrainSettings.read(stored), device=device),
        seed=int(metrics["seed"]),
        labels=metrics["labels"],
    )


def find_learned_rows(trained: Adapter, rows: Dataset) -> Dataset:
    """Return the rows that the adapter has learned: those that were held out are left out.

    Raises:
        InputError: these are other rows, or it cannot be told which of them were held out.
    """
    data = trained.manifest.content["data"]
    if content_hash(rows) == data["train"]:
        return rows
    if rows.fingerprint != data["fingerprint"]:
        raise InputError(
            f"data: must be the rows that {trained.path} was trained on (fingerprint {data['fingerprint'][:12]}), got "
            f"others ({rows.fingerprint[:12]}, {len(rows):,} rows); give the same file"
        )
    rows = rows.take(np.flatnonzero(~rows.frame["row_id"].is_in(data.get("left_out", [])).to_numpy()))
    if content_hash(rows) == data["train"]:
        return rows
    measured = trained.path / "predictions.parquet"
    ids = read_table(measured)["row_id"].unique().to_list() if measured.is_file() else []
    held_out = rows.take(np.flatnonzero(rows.frame["row_id"].is_in(ids).to_numpy()))
    if 0 < len(held_out) < len(rows):
        learned = split_rows(rows, pool=None, held_out=held_out, seed=0, control=False).train
        if content_hash(learned) == data["train"]:
            return learned
    raise InputError(
        f"data: {trained.path} has learned some of these rows only, as others were held out or repeat rows that were, "
        f"and its version did not record which; train it again"
    )


def name_classifier(metrics: Mapping[str, Any]) -> str | None:
    """Return the base of a classifier as `train` takes it."""
    from thresher.trainer.engine.load_model import MINILM

    name = str(metrics["model"]["name"])
    return None if name == MINILM else name


@dataclass(frozen=True, kw_only=True)
class _Call:
    """A question, its training run, and where the work goes."""

    context: RunContext
    trained: Adapter
    question: str
    settings: WhySettings
    work: Path
    identity: str
    report: OnProgress


def _explain(call: _Call, path: Path | None) -> Explanation:
    """Answer, rank the rows, and prove."""
    clock, context, settings = RunClock(), call.context, call.settings
    model = load_trained_model(context, call.trained.path).to(context.accelerator.device)
    answer = settings.answer if settings.answer is not None else _answer(context, call.question, model)
    asked = _ask(context, call.question, answer)
    loss = measure_answer(asked, model)
    examples = tokenize_rows(context, context.split.train)
    n_suspects = min(settings.suspects, len(examples) // 3)
    if n_suspects < 1:
        raise InputError(f"why: needs at least 3 training rows, found {len(examples)}")
    scores = _score(call, examples, asked, model)
    order = np.argsort(-scores, kind="stable")
    proof = _prove(call, examples, asked, order[:n_suspects]) if settings.proofs else None
    rows = context.split.train.frame.select("row_id", "prompt", "response")
    rows = rows[np.array(examples.position)[order].tolist()].with_columns(score=pl.Series(scores[order]))
    content = {
        "question": call.question,
        "answer": answer,
        "loss": loss,
        "n_suspects": n_suspects,
        "suspects": rows.head(n_suspects).to_dicts(),
        "proof": None if proof is None else proof.to_json(),
        "verdict": describe_proof(proof, n_suspects),
    }
    manifest = {
        "format": FORMAT,
        "kind": KIND,
        "identity": call.identity,
        "adapter": call.trained.manifest.hash,
        "data": {"fingerprint": context.data.fingerprint, "rows": len(examples)},
        "settings": _list_settings(settings),
        "versions": versions(PACKAGES),
        "run": clock.to_json(),
    }
    return Explanation(
        rows=rows.with_columns(rank=pl.int_range(1, len(rows) + 1)),
        content=content,
        path=path,
        manifest=Manifest(manifest),
    )


def _list_settings(settings: WhySettings) -> dict[str, Any]:
    """Return what decides the result."""
    return {name: value for name, value in vars(settings).items() if name not in ("out", "force", "device")}


def _score(call: _Call, examples: Examples, asked: HeldOut, model: Any) -> Float64:
    """Return how much each training row pulls towards the answer: (n,)."""
    context, n = call.context, len(examples)
    sketcher = GradientSketcher(model, task=context.task, dim=call.settings.dim, device=context.accelerator.device)
    sketches = sketcher.sketch_all(examples.rows, lambda done: call.report(Progress(stage="rows", done=done, total=n)))
    return score_rows(sketches, sketcher.sketch(asked.examples.rows[0]))


def _prove(call: _Call, examples: Examples, asked: HeldOut, suspects: Int64) -> Proof:
    first = call.settings.seed
    return prove(
        call.context,
        examples.rows,
        asked,
        suspects,
        seeds=range(first, first + call.settings.proofs),
        work=call.work / WORK,
        on_run=lambda done, total: call.report(Progress(stage="trainings", done=done, total=total)),
    )


def _ask(context: RunContext, question: str, answer: str) -> HeldOut:
    """Return the question with an answer, as a held-out row."""
    if context.task == "classification":
        if answer not in context.labels:
            raise InputError(f"answer: must be a label of the adapter{_list_labels(context.labels)}, got '{answer}'")
        row = {"text": question, "label": answer}
    else:
        row = {"prompt": question, "completion": answer}
    rows = load([row])
    held_out = prepare_held_out(replace(context, split=replace(context.split, held_out=rows)))
    if held_out is None:
        raise AssertionError("there is a row to measure")
    return held_out


def _answer(context: RunContext, question: str, model: Any) -> str:
    """Return what the adapter answers."""
    settings = replace(context.settings, eval_generations=1)
    placeholder = context.labels[0] if context.labels else "-"
    asked = _ask(replace(context, settings=settings), question, placeholder)
    answer = asked.measure(model)["prediction"][0]
    if not answer:
        raise InputError("why: the adapter answers nothing to this question; give the answer to explain (--answer)")
    return str(answer)


def _list_labels(labels: Sequence[str]) -> str:
    """Return the labels in parentheses, if they are few."""
    return f" ({', '.join(labels)})" if len(labels) <= SHOWN else ""


def describe_proof(proof: Proof | None, n_suspects: int) -> str:
    """Return the verdict in one sentence: the answer first."""
    if proof is None:
        return "not tested: no model was trained without the suspects (--proofs 0), and the scores alone are a guess"
    ours, others = proof.suspects, proof.others
    rows = f"the {n_suspects} suspects" if n_suspects > 1 else "the suspect"
    random = format_count(n_suspects, "random row")
    verb = "makes" if proof.holds else "does not clearly make"
    return (
        f"training without {rows} {verb} the answer less likely: its loss changes by {ours.value:+.3f} nats "
        f"[{ours.low:+.3f}, {ours.high:+.3f}] compared with training without {random} ({ours.n} seeds); for other "
        f"random rows, by {others.value:+.3f} [{others.low:+.3f}, {others.high:+.3f}]"
    )
