"""From a dataset to one with better answers: CLEAR's auto-correct, every decision on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np
import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic, write_ndjson, write_parquet
from thresher.artifacts.json_text import encode_json
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.result import Excerpt, copy_result
from thresher.artifacts.stored import read_table
from thresher.curation.correction.abstain import decide_abstentions
from thresher.curation.correction.call import CorrectionCall, plan_call
from thresher.curation.correction.judge import ask_judge
from thresher.curation.correction.replace_answer import has_plain_answer, replace_answer
from thresher.curation.correction.settings import CorrectOptions, CorrectSettings
from thresher.dataset import Dataset, load
from thresher.dataset.mixture.reload import load_kept_rows
from thresher.dataset.provenance import (
    describe_rows,
    describe_run,
    refuse_input_as_output,
    schema_from_json,
)
from thresher.dataset.values.kept_rows import KeptRows
from thresher.models.settings import ModelSettings
from thresher.progress import Progress, report_done
from thresher.validation import document_options

if TYPE_CHECKING:
    from thresher.features.answers.prompts import PromptRows
    from thresher.models.generation.generator import Generation

Decision = tuple[str, str]  # what is done with the answer, and why
KIND = "corrected"
ROWS, AUDIT, REJECTED = "rows.jsonl", "audit.parquet", "rejected.jsonl"
SLICE_ROWS = 8_192  # rows written at a time
ABSTAINED = "abstained"
REPLACED, KEPT, SAME, NO_CANDIDATE, UNDECIDED = "replaced", "kept", "same", "no-candidate", "undecided"
AUDIT_SCHEMA = {
    **{"row_id": pl.String, "file": pl.String, "line": pl.UInt64, "decision": pl.String},
    **dict.fromkeys(("confidence", "shown_first", "shown_second"), pl.Float64),
    **dict.fromkeys(("reason", "original", "candidate"), pl.String),
}


@dataclass(frozen=True, kw_only=True, repr=False)
class Corrected(KeptRows):
    """The rows of a pool with some answers replaced, and why.

    Attributes:
        audit: one row per row of the pool, in its order: `row_id`, `file`, `line`, `decision`
            ("replaced", "kept", "same", "no-candidate", "undecided"; with `abstain` "abstained",
            and `entropy` in nats), `confidence` that the candidate is better, `shown_first` and
            `shown_second` (the judge's probability of it in each place), `reason`, `original`,
            `candidate`.
        column: where replaced answers are kept.
        manifest: what ran, with which settings, counts by decision.
        path: of the folder, or None when none was asked for.
        pool: the rows as they were, (n,); None where the folder was read back.
    """

    audit: pl.DataFrame
    column: str
    manifest: Manifest
    path: Path | None = None
    pool: Dataset | None = None

    @staticmethod
    def read(folder: str | Path) -> Corrected:
        """Read a folder that `correct` wrote.

        Raises:
            ManifestError: the folder is not one, or is damaged.
        """
        path = Path(folder)
        manifest = Manifest.read_kind(path, KIND, "corrected rows")
        column = str(manifest.content["column"])
        return Corrected(audit=read_table(path / AUDIT), column=column, manifest=manifest, path=path)

    @cached_property
    def dataset(self) -> Dataset:  # type: ignore[override] # read, never set
        """All rows of the pool in its order, with the answers replaced."""
        if self.path is not None:
            return load_kept_rows(self.path, self.manifest.content)
        schema = schema_from_json(self.manifest.content["schema"])
        return load(list(self), schema=schema, id_column=self.manifest.content["id_column"], wanted=schema.wanted)

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows of the pool in its order, each with the user's own columns and `column`."""
        return list(self)

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.audit)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the rows of the pool in its order, with the user's columns and `column`."""
        if self.pool is None:
            yield from self.dataset
            return
        for start in range(0, len(self.pool), SLICE_ROWS):
            audit = self.audit[start : start + SLICE_ROWS].select("decision", "original", "candidate").iter_rows()
            rows = self.pool.rows(np.arange(start, min(start + SLICE_ROWS, len(self.pool))))
            for row, (decision, original, candidate) in zip(rows, audit, strict=True):
                if decision in (REPLACED, ABSTAINED):
                    yield replace_answer(row, self.pool.schema, candidate, original=original, column=self.column)
                else:
                    yield {**row, self.column: None}

    def save(self, folder: str | Path, *, force: bool = False) -> Path:
        """Write the folder, whole or not at all, and return its path.

        Raises:
            OutputError: the folder holds something else and `force` is not set, or cannot be
                written.
        """
        if self.pool is None and self.path is not None:
            return copy_result(self.path, self.manifest, folder, force=force)
        with OutputFolder(folder, identity=self.manifest.identity, force=force) as out:
            if not out.is_done:
                out.publish_files(self.write_files)
            return out.path

    def write_files(self, folder: Path) -> None:
        """Write `rows.jsonl`, `audit.parquet`, `rejected.jsonl` and the manifest."""
        with open(folder / ROWS, "wb") as file:
            file.writelines(encode_json(row) + b"\n" for row in self)
        write_parquet(self.audit, folder / AUDIT)
        if self.pool is not None:
            write_ndjson(self.pool.rejected, folder / REJECTED)
        write_atomic(folder / MANIFEST, self.manifest.to_json())

    def list_facts(self) -> list[tuple[str, str]]:
        """Return how many answers met which decision."""
        return [(name, f"{n:,} rows") for name, n in self.manifest.content["counts"]["decisions"].items()]

    def list_excerpts(self) -> list[Excerpt]:
        """Return the first replaced answers."""
        first = (
            self.audit.filter(pl.col("decision").is_in([REPLACED, ABSTAINED]))
            .head(5)
            .select("original", "candidate", "confidence")
        )
        return [Excerpt("Replaced", first.columns, first.rows())]


@document_options(CorrectSettings, ModelSettings)
def correct(
    pool: Any,
    *,
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
    **options: Unpack[CorrectOptions],
) -> Corrected:
    """Replace answers with better ones from a fine-tuned model if a judge is confident.

    CLEAR's auto-correct: the model answers each prompt with its likeliest words. The judge is shown
    both answers in both orders, and its probability that the model's is better, P(A) / (P(A) +
    P(B)) of its next token, is averaged over the two. At `eta` or above the answer is replaced, and
    the original goes into a column of its own. Every decision is on record.

    With `abstain` no answer is made better: a row that the model does not know gets the refusal in
    place of its answer (`curation/correction/abstain.py`).

    An answer that was cut at `max_new_tokens`, or that takes the place of a call of tools, never
    replaces one.

    Source: Chen & Mueller 2024, arXiv:2403.12776. Differs: the verdict's confidence is the judge's
    own probability; the paper attaches a confidence from sampled verdicts to it, whose mean, for
    two options, that probability is. Its eta of 0.8 could not be confirmed. Cost: an answer and two
    forward passes over prompt and two answers for each row. Fails: a judge that prefers long or
    fluent answers replaces right ones; a weak one is never confident, or always.

    Args:
        pool: a Dataset with prompts and responses, or anything `load` accepts.
        out: folder to write the result to; it appears whole or not at all.
        force: replace an earlier result in `out`.
        on_progress: called with a Progress while models run.
        **options: fields of `CorrectSettings` and of `ModelSettings`; `model` is required: it
            writes the candidates: a fine-tuned model, its adapter, or the address of a server.

    Raises:
        SettingsError: an option is illegal, or no model is named.
        OutputError: `out` holds something else, or the rows.
    """
    started = time.monotonic()
    plan = plan_call(pool, on_progress=on_progress, **options)
    rows = plan.pool
    if out is None:
        return run_correction(plan, started)
    refuse_input_as_output(Path(out), [rows])
    with OutputFolder(out, identity=plan.identity(), force=force) as folder:
        if folder.is_done:
            report_done(on_progress, stage="correct", folder=folder.path, outcome="read back")
            return replace(Corrected.read(folder.path), pool=rows)
        corrected = run_correction(plan, started)
        folder.publish_files(corrected.write_files)
    return replace(corrected, path=folder.path)


def run_correction(plan: CorrectionCall, started: float) -> Corrected:
    """Write candidates, compare, decide, and write down what happened."""
    from thresher.features.answers.prompts import PromptRows
    from thresher.models.generation.decoding import Decoding
    from thresher.models.generation.load import load_generator

    pool = plan.pool
    prompts = PromptRows.from_dataset(pool, by="correct")
    if plan.settings.abstain:
        return _run_abstention(plan, prompts, started)
    writer, judge = load_generator(plan.writer), load_generator(plan.judge)
    decoding = Decoding(max_new_tokens=plan.settings.max_new_tokens)
    generations = writer.generate(prompts.conversations, decoding, stage="correct: candidates", context=plan.writer)
    candidates = [row[0] for row in generations]
    decisions = [_decide_early(*pair) for pair in zip(candidates, prompts.responses, strict=True)]
    for i in _list_tool_calls(pool, decisions):
        decisions[i] = (NO_CANDIDATE, "the row's answer is a tool call")
    # the judge compares the other rows; of all rows its probabilities are NaN where it was not
    # asked
    open_rows = [i for i, decision in enumerate(decisions) if decision is None]
    shown = np.full((len(pool), 2), np.nan)
    shown[open_rows], problems = ask_judge(
        [(prompts.prompts[i], prompts.responses[i], str(candidates[i].text)) for i in open_rows], judge, plan.judge
    )
    confidence = shown.mean(axis=1)
    for i, problem in zip(open_rows, problems, strict=True):
        decisions[i] = (
            _compare_confidence(float(confidence[i]), plan.settings.eta) if problem is None else (UNDECIDED, problem)
        )
    audit = pl.DataFrame(
        {
            "row_id": pool.frame["row_id"],
            "file": pool.frame["file"].cast(pl.String),
            "line": pool.frame["line"],
            "decision": [decision[0] for decision in decisions if decision is not None],
            "confidence": confidence,
            "shown_first": shown[:, 0],
            "shown_second": shown[:, 1],
            "reason": [decision[1] for decision in decisions if decision is not None],
            "original": prompts.responses,
            "candidate": [candidate.text for candidate in candidates],
        },
        schema=AUDIT_SCHEMA,
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    manifest = _build_manifest(plan, audit, [*writer.notes(), *judge.notes()], started)
    return Corrected(pool=pool, audit=audit, column=plan.settings.column, manifest=manifest)


def _run_abstention(plan: CorrectionCall, prompts: PromptRows, started: float) -> Corrected:
    """Put refusals where the model does not know, and write down what happened."""
    from thresher.models.generation.load import load_generator

    pool, settings = plan.pool, plan.settings
    writer = load_generator(plan.writer)
    abstention = decide_abstentions(prompts, writer, settings, plan.writer)
    decisions = [(ABSTAINED if away else KEPT, why) for away, why in abstention.decisions]
    for i, problem in abstention.problems.items():
        decisions[i] = (UNDECIDED, problem)
    calls = _list_tool_calls(pool, [None if name == ABSTAINED else (name, why) for name, why in decisions])
    for i in calls:
        decisions[i] = (KEPT, "the row's answer is a tool call")
    audit = pl.DataFrame(
        {
            "row_id": pool.frame["row_id"],
            "file": pool.frame["file"].cast(pl.String),
            "line": pool.frame["line"],
            "decision": [name for name, _ in decisions],
            **{name: None for name in ("confidence", "shown_first", "shown_second")},
            "reason": [why for _, why in decisions],
            "original": prompts.responses,
            "candidate": [settings.refusal if name == ABSTAINED else None for name, _ in decisions],
            "entropy": abstention.entropy,
        },
        schema={**AUDIT_SCHEMA, "entropy": pl.Float64},
    ).with_columns(pl.col("entropy").fill_nan(None))
    return Corrected(
        pool=pool, audit=audit, column=settings.column, manifest=_build_manifest(plan, audit, writer.notes(), started)
    )


def _decide_early(candidate: Generation, original: str) -> Decision | None:
    """Return the decision where there is nothing to compare."""
    from thresher.features.answers.prompts import plain

    if not candidate.text:
        return NO_CANDIDATE, candidate.problem or "the model's answer is empty"
    if plain(candidate.text) == plain(original):
        return SAME, "the model gives the same answer"
    return (NO_CANDIDATE, "the model's answer was truncated at max_new_tokens") if candidate.is_cut else None


def _compare_confidence(confidence: float, eta: float) -> Decision:
    if confidence >= eta:
        return REPLACED, f"confidence {confidence:.3f} that the candidate is better, at least {eta:g}"
    return KEPT, f"confidence {confidence:.3f} that the candidate is better, less than {eta:g}"


def _list_tool_calls(pool: Dataset, decisions: Sequence[Decision | None]) -> list[int]:
    """Return the undecided rows whose answer is a call of tools."""
    undecided = [i for i, decision in enumerate(decisions) if decision is None]
    calls: list[int] = []
    for start in range(0, len(undecided), SLICE_ROWS):
        at = undecided[start : start + SLICE_ROWS]
        calls += [i for i, row in zip(at, pool.rows(at), strict=True) if not has_plain_answer(row, pool.schema)]
    return calls


def _build_manifest(plan: CorrectionCall, audit: pl.DataFrame, notes: Sequence[str], started: float) -> Manifest:
    pool = plan.pool
    counts = dict.fromkeys((REPLACED, KEPT, SAME, NO_CANDIDATE, UNDECIDED), 0)
    counts |= dict(audit["decision"].value_counts().iter_rows())
    return Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": plan.identity(),
            **plan.describe(),
            **describe_rows(pool, {"decisions": counts}),
            "notes": list(notes),
            "decided": digest(audit["decision"].to_list()),
            "versions": versions(),
            "run": describe_run(pool, seconds={"total": round(time.monotonic() - started, 3)}),
        }
    )
