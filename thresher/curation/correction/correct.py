"""The arrow from a dataset to one with better answers: CLEAR's auto-correct, with every decision on record."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import orjson
import polars as pl

from thresher.artifacts.folder import MANIFEST, OutputFolder, write_atomic, write_ndjson, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.curation.correction.replace_answer import has_plain_answer, with_answer
from thresher.dataset import Dataset, load
from thresher.dataset.provenance import describe_reading, describe_rows, describe_run, refuse_input_as_output
from thresher.errors import InputError
from thresher.validation import check_number, check_whole

if TYPE_CHECKING:
    from thresher.features import FeatureContext, Progress
    from thresher.models.generation.generator import Generation, TextGenerator

Decided = tuple[str, str]  # decision and reason
KIND = "corrected"
ROWS, AUDIT, REJECTED = "rows.jsonl", "audit.parquet", "rejected.jsonl"
SLICE_ROWS = 8_192  # rows written at a time
REPLACED, KEPT, SAME, NO_CANDIDATE, UNDECIDED = "replaced", "kept", "same", "no-candidate", "undecided"
RECIPE = "correct-1"
LETTERS = ("A", "B")
VERDICT = (
    "Question:\n{prompt}\n\nAnswer A:\n{first}\n\nAnswer B:\n{second}\n\nWhich answer is better?\n(A) Answer A\n"
    "(B) Answer B\n\nThe output should be the letter A or B only."
)
AUDIT_SCHEMA = {
    "row_id": pl.String,
    "file": pl.String,
    "line": pl.UInt64,
    "decision": pl.String,
    "confidence": pl.Float64,
    "shown_first": pl.Float64,
    "shown_second": pl.Float64,
    "reason": pl.String,
    "original": pl.String,
    "candidate": pl.String,
}


@dataclass(frozen=True, kw_only=True)
class Corrected:
    """The rows of a pool with some answers replaced, and why.

    Attributes:
        pool: the rows as they were, (n,).
        audit: one row per row of the pool, in its order: `row_id`, `file`, `line`, `decision`
            ("replaced", "kept", "same", "no-candidate", "undecided"), `confidence` that the
            candidate is better, `shown_first` and `shown_second` (the judge's probability of it in
            each place), `reason`, `original`, `candidate`.
        column: where replaced answers are kept.
        manifest: what ran, with which settings, counts by decision.
    """

    pool: Dataset
    audit: pl.DataFrame
    column: str
    manifest: Manifest

    @property
    def rows(self) -> list[dict[str, Any]]:
        """All rows of the pool in its order, each with the user's own columns and `column`."""
        return self._rows(np.arange(len(self.pool)))

    def _rows(self, at: np.ndarray[Any, np.dtype[np.int64]]) -> list[dict[str, Any]]:
        rows = []
        told = self.audit[at].select("decision", "original", "candidate").iter_rows()
        for row, (decision, original, candidate) in zip(self.pool.rows(at), told, strict=True):
            if decision == REPLACED:
                rows.append(with_answer(row, self.pool.schema, candidate, original=original, column=self.column))
            else:
                rows.append({**row, self.column: None})
        return rows

    def write_into(self, folder: Path) -> None:
        """Write `rows.jsonl`, `audit.parquet`, `rejected.jsonl` (rows that could not be used) and the manifest."""
        with open(folder / ROWS, "wb") as file:
            for start in range(0, len(self.pool), SLICE_ROWS):
                for row in self._rows(np.arange(start, min(start + SLICE_ROWS, len(self.pool)))):
                    file.write(orjson.dumps(row, default=str) + b"\n")
        write_parquet(self.audit, folder / AUDIT)
        write_ndjson(self.pool.rejected, folder / REJECTED)
        write_atomic(folder / MANIFEST, self.manifest.to_json())

    def __repr__(self) -> str:
        """Return the counts, one line each."""
        counts = self.manifest.content["counts"]["decisions"]
        return "Corrected\n" + "\n".join(f"  {name:<14}{n:,} rows" for name, n in counts.items())


@dataclass(frozen=True, kw_only=True)
class _Plan:
    pool: Dataset
    writer: FeatureContext
    judge: FeatureContext
    eta: float
    column: str
    max_new_tokens: int

    def settings(self) -> dict[str, Any]:
        """Return what the manifest says of the request, in JSON values."""
        from thresher.models.generation.load import load_generator

        asked = {"model": load_generator(self.writer), "judge": load_generator(self.judge)}
        return {
            "eta": self.eta,
            "column": self.column,
            "max_new_tokens": self.max_new_tokens,
            "pool": self.pool.fingerprint,
            **{role: {"name": who.name, "fingerprint": who.fingerprint} for role, who in asked.items()},
        }

    def identity(self) -> str:
        request = {"recipe": [RECIPE, VERDICT], **self.settings()}
        return digest({"request": request, "read": describe_reading(self.pool), "thresher": versions(())})


def correct(
    pool: Any,
    *,
    model: str,
    judge: str | None = None,
    eta: float = 0.8,
    column: str = "original_response",
    max_new_tokens: int = 256,
    device: str | None = None,
    batch_tokens: int | None = None,
    out: str | Path | None = None,
    force: bool = False,
    on_progress: Callable[[Progress], None] | None = None,
) -> Corrected:
    """Replace answers by better ones of a fine-tuned model where a judge is confident (CLEAR's auto-correct).

    The model answers each prompt with its likeliest words. The judge is shown both answers in both
    orders, and its probability that the model's is better, P(A) / (P(A) + P(B)) of its next token,
    is averaged over the two. At `eta` or above the answer is replaced, and the original goes into a
    column of its own. Every decision is on record.

    An answer that was cut at `max_new_tokens`, or that takes the place of a call of tools, never
    replaces one.

    Source: Chen & Mueller 2024, arXiv:2403.12776. Differs: the verdict's confidence is the judge's
    own probability; the paper attaches a confidence from sampled verdicts to it, whose mean, for
    two options, that probability is. Its eta of 0.8 could not be confirmed. Cost: an answer and two
    forward passes over prompt and two answers for each row. Fails: a judge that prefers long or
    fluent answers replaces right ones; a weak one is never confident, or always.

    Args:
        pool: a Dataset with prompts and responses, or anything `load` accepts.
        model: who writes the candidates: a fine-tuned model, its adapter, or the address of a
            server.
        judge: who compares; not set: the base of the adapter.
        eta: least confidence that the candidate is better, 0.5 to 1.
        column: name for the column with original answers.
        max_new_tokens: limit of a candidate.
        device: "cpu", "cuda", ...; not set: the best there is.
        batch_tokens: as for `select`.
        out: folder to write the result to; it appears whole or not at all.
        force: replace an earlier result in `out`.
        on_progress: called with a Progress while models run.

    Raises:
        OutputError: `out` holds something else, or the rows.
    """
    from thresher.features import Progress, make_context

    started = time.monotonic()
    check_number("correct", "eta", eta, 0.5, 1.0)
    check_whole("correct", "max_new_tokens", max_new_tokens, 1)
    rows = pool if isinstance(pool, Dataset) else load(pool)
    _check_rows(rows, column)
    contexts = [
        make_context(model=name, device=device, batch_tokens=batch_tokens, on_progress=on_progress)
        for name in (model, _base_of(model) if judge is None else judge)
    ]
    plan = _Plan(
        pool=rows, writer=contexts[0], judge=contexts[1], eta=eta, column=column, max_new_tokens=max_new_tokens
    )
    if out is None:
        return _run(plan, started)
    refuse_input_as_output(Path(out), [rows])
    with OutputFolder(out, identity=plan.identity(), force=force) as folder:
        if folder.is_done:
            if on_progress is not None:
                on_progress(Progress(stage="correct", done=1, total=1, note=f"{folder.path}: done before, read back"))
            return _read(folder.path, plan)
        corrected = _run(plan, started)
        try:
            corrected.write_into(folder.work)
            folder.publish()
        except OSError:
            folder.discard()  # a full disk: the answers are cached, so nothing worth keeping is lost
            raise
    return corrected


def _check_rows(rows: Dataset, column: str) -> None:
    if rows.kind != "sft":
        raise InputError(
            f"correct: rows need a prompt and a response, found rows of kind '{rows.kind}'; for wrong labels see "
            f"the curation rule label-issues"
        )
    if column in rows.column_names:
        raise InputError(
            f"correct: the rows have a column '{column}' already, which would be overwritten; choose another column"
        )


def _base_of(model: str) -> str:
    """Return the name of an adapter's base.

    Raises:
        InputError: the model is no adapter.
    """
    from thresher.models.causal_lm.adapter import ADAPTER_CONFIG, read_base_name
    from thresher.models.server_address import ServerAddress, is_server

    folder = Path(model).expanduser()
    if (folder / ADAPTER_CONFIG).is_file():
        return read_base_name(folder)
    shown = ServerAddress.parse(model).url if is_server(model) else model  # an address may hold a password
    raise InputError(
        f"correct: '{shown}' is no adapter whose base could judge; name who judges (--judge MODEL), best the model "
        f"as it was before the fine-tuning"
    )


def _run(plan: _Plan, started: float) -> Corrected:
    """Write candidates, compare, decide, and write down what happened."""
    from thresher.features.answers.prompts import PromptRows
    from thresher.models.generation.decoding import Decoding
    from thresher.models.generation.load import load_generator

    asked = PromptRows.of(plan.pool, by="correct")
    decoding = Decoding(max_new_tokens=plan.max_new_tokens)
    writer, judge = load_generator(plan.writer), load_generator(plan.judge)
    written = writer.generate(asked.conversations, decoding, stage="correct: candidates", context=plan.writer)
    decided = [_decided_at_once(row[0], original) for row, original in zip(written, asked.responses, strict=True)]
    for i in _tool_calls(plan.pool, decided):
        decided[i] = (NO_CANDIDATE, "the row's answer is a call of tools")
    left = [i for i, found in enumerate(decided) if found is None]
    shown = np.full((len(plan.pool), 2), np.nan)
    shown[left], problems = _compared(
        [(asked.prompts[i], asked.responses[i], str(written[i][0].text)) for i in left], judge, plan.judge
    )
    confidence = shown.mean(axis=1)
    for i, problem in zip(left, problems, strict=True):
        decided[i] = _decided_by(float(confidence[i]), plan.eta) if problem is None else (UNDECIDED, problem)
    audit = pl.DataFrame(
        {
            "row_id": plan.pool.frame["row_id"],
            "file": plan.pool.frame["file"].cast(pl.String),
            "line": plan.pool.frame["line"],
            "decision": [found[0] for found in decided if found is not None],
            "confidence": confidence,
            "shown_first": shown[:, 0],
            "shown_second": shown[:, 1],
            "reason": [found[1] for found in decided if found is not None],
            "original": asked.responses,
            "candidate": [row[0].text for row in written],
        },
        schema=AUDIT_SCHEMA,
    ).with_columns(pl.col(pl.Float64).fill_nan(None))
    manifest = _manifest(plan, audit, [*writer.notes(), *judge.notes()], started)
    return Corrected(pool=plan.pool, audit=audit, column=plan.column, manifest=manifest)


def _decided_at_once(candidate: Generation, original: str) -> Decided | None:
    """Return the decision where there is nothing to compare."""
    from thresher.features.answers.prompts import plain

    if not candidate.text:
        return NO_CANDIDATE, candidate.problem or "the model's answer is empty"
    if plain(candidate.text) == plain(original):
        return SAME, "the model gives the same answer"
    return (NO_CANDIDATE, "the model's answer was cut at max_new_tokens") if candidate.is_cut else None


def _decided_by(confidence: float, eta: float) -> Decided:
    if confidence >= eta:
        return REPLACED, f"confidence {confidence:.3f} that the candidate is better, at least {eta:g}"
    return KEPT, f"confidence {confidence:.3f} that the candidate is better, less than {eta:g}"


def _tool_calls(pool: Dataset, decided: Sequence[Decided | None]) -> list[int]:
    """Return the undecided rows whose answer is a call of tools."""
    left = [i for i, found in enumerate(decided) if found is None]
    found: list[int] = []
    for start in range(0, len(left), SLICE_ROWS):
        at = left[start : start + SLICE_ROWS]
        found += [i for i, row in zip(at, pool.rows(at), strict=True) if not has_plain_answer(row, pool.schema)]
    return found


def _compared(
    triples: Sequence[tuple[str, str, str]], judge: TextGenerator, context: FeatureContext
) -> tuple[np.ndarray[Any, np.dtype[np.float64]], list[str | None]]:
    """Return how likely the judge finds the candidate better when it stands first and second, (m, 2), and problems.

    Args:
        triples: prompt, original and candidate of each row.
        judge: who is asked.
        context: of the judge.
    """
    from thresher.models.generation.generator import user_turn

    first = [VERDICT.format(prompt=p, first=candidate, second=original) for p, original, candidate in triples]
    second = [VERDICT.format(prompt=p, first=original, second=candidate) for p, original, candidate in triples]
    conversations = [user_turn(text) for text in (*first, *second)]
    found = judge.score_options(conversations, LETTERS, stage="correct: verdicts", context=context)
    m = len(triples)
    shown = np.stack([found.probabilities[:m, 0], found.probabilities[m:, 1]], axis=1)
    return shown, [a or b for a, b in zip(found.problems[:m], found.problems[m:], strict=True)]


def _manifest(plan: _Plan, audit: pl.DataFrame, notes: Sequence[str], started: float) -> Manifest:
    pool = plan.pool
    counts = dict.fromkeys((REPLACED, KEPT, SAME, NO_CANDIDATE, UNDECIDED), 0)
    counts |= dict(audit["decision"].value_counts().iter_rows())
    return Manifest(
        {
            "format": FORMAT,
            "kind": KIND,
            "identity": plan.identity(),
            **plan.settings(),
            **describe_rows(pool, {"decisions": counts}),
            "notes": list(notes),
            "decided": digest(audit["decision"].to_list()),
            "versions": versions(),
            "run": describe_run(pool, seconds={"total": round(time.monotonic() - started, 3)}),
        }
    )


def _read(folder: Path, plan: _Plan) -> Corrected:
    """Return a finished result."""
    return Corrected(
        pool=plan.pool,
        audit=pl.read_parquet(folder / AUDIT),
        column=plan.column,
        manifest=Manifest.read(folder),
    )
