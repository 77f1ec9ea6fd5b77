"""What training cost: section `general` of `metrics.json`, from losses and answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from thresher.artifacts.folder import MANIFEST, write_atomic, write_parquet
from thresher.artifacts.manifest import FORMAT, Manifest, digest, versions
from thresher.artifacts.stored import read_table
from thresher.evaluation.forgetting import (
    Form,
    describe_loss,
    estimate_forgetting,
    find_form,
    measure_bits,
    name_loss,
    summarize_sources,
)
from thresher.evaluation.generation import score_leniently
from thresher.trainer.context import PACKAGES, RunContext
from thresher.trainer.engine.fit import load_untouched_model
from thresher.trainer.untouched.base_cache import get_base_cache
from thresher.trainer.untouched.general import GeneralSet

RECIPE = 2  # raise it when what was kept before must not be used again
LOSSES, ANSWERS = "general.parquet", "general_answers.parquet"
N_WORST = 8  # rows that are shown
LONGEST = 300  # characters of a text that is shown
NO_ANSWERS = pl.DataFrame(
    schema={"row_id": pl.String, "prompt": pl.String, "response": pl.String, "prediction": pl.String}
)


@dataclass(frozen=True)
class GeneralOutcomes:
    """What a model does on the general set.

    Attributes:
        losses: one row per general row: `row_id`, `source`, `loss`, `n_bytes`.
        answers: to some of the questions: `row_id`, `prompt`, `response`, `prediction`.
    """

    losses: pl.DataFrame
    answers: pl.DataFrame


def measure_general(context: RunContext, general: GeneralSet, model: Any, *, has_answers: bool) -> GeneralOutcomes:
    """Run a model in evaluation mode over the general set."""
    answers = general.answer(context, model) if has_answers else NO_ANSWERS
    return GeneralOutcomes(general.measure(context, model), answers)


def measure_general_base(context: RunContext, general: GeneralSet) -> GeneralOutcomes:
    """Measure the untouched model on the general set, once for all commands."""
    if context.accelerator.num_processes > 1:  # they measure together, and keep nothing
        return measure_general(context, general, load_untouched_model(context), has_answers=True)
    settings = context.settings
    key = digest(
        {
            "recipe": RECIPE,
            "general": general.fingerprint,
            "model": context.base.fingerprint,
            "has_answers": bool(general.prompts),
            "load_in_4bit": settings.load_in_4bit,
            "precision": settings.precision,
            "versions": versions(PACKAGES),
        }
    )

    def write(work: Path) -> None:
        fresh = measure_general(context, general, load_untouched_model(context), has_answers=True)
        write_parquet(fresh.losses, work / LOSSES)
        write_parquet(fresh.answers, work / ANSWERS)
        write_atomic(work / MANIFEST, Manifest({"format": FORMAT, "kind": "base", "identity": key}).to_json())

    folder = get_base_cache().make(key, write)
    return GeneralOutcomes(read_table(folder / LOSSES), read_table(folder / ANSWERS))


def describe_forgetting(
    context: RunContext, general: GeneralSet, before: GeneralOutcomes, after: Sequence[GeneralOutcomes]
) -> dict[str, Any]:
    """Return the section `general` of `metrics.json`.

    Args:
        context: of the call; its training rows say what form the task's answers have.
        general: the rows.
        before: of the untouched model.
        after: of each seed; those of the first have answers.

    Returns:
        `before` and `after` (of the first seed) in bits per byte, `lost`: their paired difference
        with its 95 % interval, `allowed`, `verdict` ("kept", "lost", "cannot tell") and `sentence`,
        `sources`, `questions`: share of answers that hold what was expected, `form`: share of
        answers in the form of the task, and `worst`: the rows that lost most, with both answers.
    """
    lost, allowed = estimate_forgetting([each.losses for each in after], before.losses), context.untouched.forget
    form = find_form(context.split.train.frame["response"].to_list()) if context.task == "sft" else None
    return {
        "set": general.name,
        "rows": len(before.losses),
        "rows_left_out": general.n_left_out,
        "unit": "bits per byte",
        "before": measure_bits(before.losses).to_json(),
        "after": measure_bits(after[0].losses).to_json(),
        "lost": None if lost is None else lost.to_json(),
        "allowed": allowed,
        "verdict": None if lost is None else name_loss(lost, allowed),
        "sentence": None if lost is None else describe_loss(lost, allowed),
        "sources": summarize_sources(after[0].losses, before.losses),
        "questions": _compare_answers(before.answers, after[0].answers),
        "form": None if form is None else _compare_forms(form, before.answers, after[0].answers),
        "worst": list_worst(general, before, after[0]),
    }


def _compare_answers(before: pl.DataFrame, after: pl.DataFrame) -> dict[str, Any] | None:
    """Return the share of questions answered right on both sides; None without answers."""
    sides = {}
    for name, table in (("before", before), ("after", after)):
        share = score_leniently(table["prediction"].to_list(), table["response"].to_list())
        if share is None:
            return None
        sides[name] = share.to_json()
    return sides


def _compare_forms(form: Form, before: pl.DataFrame, after: pl.DataFrame) -> dict[str, Any] | None:
    if not len(before) or not len(after):
        return None
    shares = {
        name: sum(map(form.matches, table["prediction"])) / len(table)
        for name, table in (("before", before), ("after", after))
    }
    return {"form": form.name, **shares, "n": len(after)}


def list_worst(general: GeneralSet, before: GeneralOutcomes, after: GeneralOutcomes) -> list[dict[str, Any]]:
    """Return the rows that lost most, in bits per byte, with what both models answer."""
    rows = {row["row_id"]: row for part in general.parts for row in part.rows.frame.iter_rows(named=True)}
    table = build_general_table(before, after).sort("lost", "row_id", descending=[True, False]).head(N_WORST)
    worst = []
    for line in table.iter_rows(named=True):
        row = rows[line["row_id"]]
        text = row["prompt"] or row["response"]
        worst.append({**line, "text": text[:LONGEST], "expected": row["response"][:LONGEST] if row["prompt"] else None})
    return worst


def build_general_table(before: GeneralOutcomes, after: GeneralOutcomes) -> pl.DataFrame:
    """Return `predictions_general.parquet`: both sides of each row, and what was lost."""
    bits = pl.col("loss") / pl.lit(0.6931471805599453) / pl.col("n_bytes")
    table = before.losses.select("row_id", "source", "n_bytes", bits.alias("bits_before"))
    own = after.losses.select("row_id", bits.alias("bits_after"))
    answers = before.answers.select("row_id", answer_before="prediction").join(
        after.answers.select("row_id", answer_after="prediction"), on="row_id", how="left"
    )
    table = table.join(own, on="row_id", how="left").join(answers, on="row_id", how="left")
    return table.with_columns(lost=pl.col("bits_after") - pl.col("bits_before"))


def format_forgetting(section: dict[str, Any] | None) -> list[str]:
    """Return the section `general` in lines for a summary."""
    if not section or section["sentence"] is None:
        return []
    lines = [f"the trained model {section['sentence']}"]
    questions, form = section["questions"], section["form"]
    if questions is not None:
        shares = f"{questions['before']['value']:.0%} before, {questions['after']['value']:.0%} after"
        lines.append(f"general questions answered correctly: {shares} (n = {questions['after']['n']})")
    if form is not None:
        lines.append(
            f"general questions answered with {form['form']}: {form['before']:.0%} before, {form['after']:.0%} after"
        )
    return lines
